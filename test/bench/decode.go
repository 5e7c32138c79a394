package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"codeberg.org/dataverket/messaging/envelope"
)

// decodeRows measures reading an envelope, with all its checks, beside reading
// the same bytes with the SDK of CloudEvents, whose format it is
// but for the underscores in names.
func decodeRows(ctx context.Context, b *bench) ([]Row, error) {
	_, data, err := sample(ctx)
	if err != nil {
		return nil, err
	}
	ours := func() error { _, err := envelope.Decode(data); return err }
	plain := withoutUnderscores(data)
	theirs := func() error { var e cloudevents.Event; return json.Unmarshal(plain, &e) } // as its documentation has it
	f, err := b.interleave(ctx,
		side{"envelope.Decode", callsPerSecond(ours)},
		side{"CloudEvents SDK", callsPerSecond(theirs)},
	)
	if err != nil {
		return nil, err
	}
	allocations := testing.AllocsPerRun(1000, func() { _ = ours() })
	return []Row{
		ratioRow("decode/cloudevents", "envelope decode / CloudEvents SDK event unmarshal", "msg/s", 3, f[0], f[1]),
		limitRow("decode/allocations", "allocations of one envelope decode", "", 12, []float64{allocations}),
	}, nil
}

// withoutUnderscores renames our extension attributes: those of CloudEvents have
// only letters and digits in their names, and its SDK refuses others.
func withoutUnderscores(data []byte) []byte {
	for _, name := range []string{"tenant_id", "project_id", "correlation_id", "causation_id"} {
		data = bytes.ReplaceAll(data, []byte(`"`+name+`":`), []byte(`"`+strings.ReplaceAll(name, "_", "")+`":`))
	}
	return data
}

// callsPerSecond runs f for about a second on one core.
func callsPerSecond(f func() error) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) {
		if err := f(); err != nil {
			return 0, fmt.Errorf("decode: %w", err)
		}
		r := testing.Benchmark(func(b *testing.B) {
			for range b.N {
				_ = f()
			}
		})
		return 1e9 / float64(r.NsPerOp()), nil
	}
}
