package topology

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// field is one setting of a stream or a consumer, with all that Verify, Plan
// and Apply need to know about it. C is the server's configuration struct. One
// table for all three is what keeps them from disagreeing.
type field[C any] struct {
	// name is the setting's key in the server's JSON.
	name string

	// show is its value as text, for people and for comparison.
	show func(C) string

	// fits reports whether got satisfies want. Nil: the texts are equal.
	fits func(want, got C) bool

	// fixed says what to do about a difference that no update removes. Empty:
	// an update can.
	fixed string

	// loses reports whether changing from into to can lose messages or cannot
	// be undone. Nil: it never does.
	loses func(from, to C) bool

	// also names further keys that are set together with this one.
	also []string
}

func (f field[C]) fit(want, got C) bool {
	if f.fits != nil {
		return f.fits(want, got)
	}
	return f.show(want) == f.show(got)
}

// drift returns a *DriftError for each setting of got that does not fit want.
func drift[C any](object string, fields []field[C], want, got C) []error {
	var errs []error
	for _, f := range fields {
		if !f.fit(want, got) {
			errs = append(errs, &DriftError{Object: object, Field: f.name, Want: f.show(want), Got: f.show(got)})
		}
	}
	return errs
}

// changes returns what would make got equal to want, and an *ImpossibleError
// for each difference that nothing can remove. Unlike drift it also lists
// settings that are larger than declared: the declaration is then behind.
func changes[C any](object string, fields []field[C], want, got C) (list []Change, errs []error) {
	for _, f := range fields {
		from, to := f.show(got), f.show(want)
		switch {
		case from == to:
		case f.fixed != "" && f.fit(want, got):
			// It satisfies the declaration and cannot be changed: leave it.
		case f.fixed != "":
			errs = append(errs, &ImpossibleError{Object: object, Field: f.name, From: from, To: to, Remedy: f.fixed})
		default:
			list = append(list, Change{
				Object: object, Field: f.name, From: from, To: to,
				Destructive: f.loses != nil && f.loses(got, want),
			})
		}
	}
	return list, errs
}

// The ways in which values are shown.

func showBool(b bool) string { return fmt.Sprint(b) }

func showLimit[N int | int32 | int64 | uint64](n N) string {
	if n <= 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func showAge(d time.Duration) string {
	if d == 0 {
		return "unlimited"
	}
	return d.String()
}

func showList(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(slices.Values(list)), ", ")
}

// showSet tells whether something is set that the contract never sets.
func showSet(set bool) string {
	if set {
		return "set"
	}
	return "none"
}

// atLeast reports whether got is no smaller a limit than want; zero and less is
// no limit.
func atLeast[N int | int32 | int64 | uint64 | time.Duration](want, got N) bool {
	return got <= 0 || want > 0 && got >= want
}
