package natsconn

import (
	"net/url"
	"strings"
)

// hidden stands where a user name, password or token was. A token is written in
// the user's place, so the whole user part goes and not only the password.
const hidden = "xxxxx"

// redact returns urls (one, or several separated by commas) fit for logs and
// errors: scheme, host and port, nothing else.
func redact(urls string) string {
	parts := splitURLs(urls)
	for i, part := range parts {
		parts[i] = redactOne(part)
	}
	return strings.Join(parts, ",")
}

func redactOne(raw string) string {
	u, err := parseServer(raw)
	if err != nil || u.Host == "" || lateAt(u) {
		// What cannot be parsed cannot be cut safely.
		return "(unreadable URL)"
	}
	clean := url.URL{Scheme: u.Scheme, Host: u.Host}
	if u.User != nil {
		clean.User = url.User(hidden)
	}
	return clean.String()
}

// checkURLs returns what is wrong with urls, or "". It never repeats its input,
// which may hold a password.
func checkURLs(urls string) string {
	for _, raw := range splitURLs(urls) {
		u, err := parseServer(raw)
		switch {
		case err != nil, lateAt(u):
			return "cannot be parsed (a password with reserved characters must be percent-encoded)"
		case u.Hostname() == "":
			return "has no host"
		case !knownScheme(u.Scheme):
			return "has a scheme other than nats, tls, ws and wss"
		}
	}
	return ""
}

// lateAt reports an @ behind the host. A password with a slash or a question
// mark in it looks so: its beginning is then taken for the host.
func lateAt(u *url.URL) bool {
	return strings.Contains(u.Path+u.RawQuery+u.Fragment, "@")
}

func knownScheme(scheme string) bool {
	switch scheme {
	case "nats", "tls", "ws", "wss":
		return true
	}
	return false
}

// splitURLs cuts as the client does.
func splitURLs(urls string) []string {
	parts := strings.Split(urls, ",")
	for i := range parts {
		parts[i] = strings.TrimSuffix(strings.TrimSpace(parts[i]), "/")
	}
	return parts
}

// parseServer accepts host:port without a scheme, as the client does.
func parseServer(raw string) (*url.URL, error) {
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	return url.Parse(raw)
}
