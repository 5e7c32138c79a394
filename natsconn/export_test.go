package natsconn

import (
	"context"
	"log/slog"
)

// What the tests outside of the package need to see.
var (
	Redact      = redact
	ParseDenial = parseDenial
)

// Validate checks a configuration without a connection.
func Validate(cfg Config) error { return cfg.validate() }

// Judged is what Do would tell its breaker about an error.
func Judged(caller context.Context, err error) string {
	switch judge(caller, err) {
	case answered:
		return "answered"
	case unanswered:
		return "unanswered"
	}
	return "unclear"
}

// TestBreaker is a breaker without a connection.
type TestBreaker struct{ b *breaker }

// NewTestBreaker returns one with its default cool-down.
func NewTestBreaker(cfg Breaker) *TestBreaker {
	cfg = Config{Breaker: cfg}.withDefaults().Breaker
	return &TestBreaker{newBreaker(cfg, slog.New(slog.DiscardHandler))}
}

// Begin asks for leave; the functions it returns end the call.
func (t *TestBreaker) Begin() (answer func(), fail func(error), abandon func(), err error) {
	leave, err := t.b.enter()
	return func() { leave(answered, nil) }, func(e error) { leave(unanswered, e) }, func() { leave(unclear, nil) }, err
}
