package envelope

import "time"

// Layouts of a time on the wire.
const (
	wireSeconds  = "2006-01-02T15:04:05" // fixed; then a fraction, if any, and Z
	wireFraction = ".999999"             // the longest that is written
)

// wireTime is t as it is written: in UTC, and cut to the microseconds that
// PostgreSQL and readers of other languages keep.
func wireTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// timeSize returns how many bytes a time takes with its quotes.
func timeSize(t time.Time) int {
	size := len(`""`) + len(wireSeconds) + len("Z")
	micros := t.Nanosecond() / int(time.Microsecond)
	if micros == 0 {
		return size
	}
	for ; micros%10 == 0; micros /= 10 {
		size-- // trailing zeros are not written
	}
	return size + len(wireFraction)
}

// parseTime reads RFC 3339 in UTC and cuts it to microseconds. Package time has no
// strict reader: Parse and UnmarshalText both take a comma for the point and an
// hour of one digit, which other languages refuse. A leap second is refused,
// because Go has no value for it.
func parseTime(text string) (t time.Time, ok bool) {
	end := len(text) - len("Z")
	if end < len(wireSeconds) || text[end] != 'Z' ||
		text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' || text[16] != ':' {
		return t, false
	}
	ok = true
	digits := func(from, to, most int) int {
		n := 0
		for _, c := range []byte(text[from:to]) {
			ok = ok && '0' <= c && c <= '9'
			n = n*10 + int(c-'0')
		}
		ok = ok && n <= most
		return n
	}
	year, month, day := digits(0, 4, 9999), digits(5, 7, 12), digits(8, 10, 31)
	hour, minute, second := digits(11, 13, 23), digits(14, 16, 59), digits(17, 19, 59)
	micros, fraction := parseFraction(text[len(wireSeconds):end])
	t = time.Date(year, time.Month(month), day, hour, minute, second, micros*int(time.Microsecond), time.UTC)
	// Date turns month 0, day 0 and February 30 into days of other months.
	return t, ok && fraction && t.Month() == time.Month(month)
}

// parseFraction reads what stands between the seconds and Z: nothing, or a point
// and one digit or more, of which six count.
func parseFraction(text string) (micros int, ok bool) {
	if text == "" {
		return 0, true
	}
	if text[0] != '.' || len(text) == 1 {
		return 0, false
	}
	unit := 100000
	for i := 1; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
		micros += unit * int(text[i]-'0')
		unit /= 10
	}
	return micros, true
}
