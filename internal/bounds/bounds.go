// Package bounds holds the numbers of a configuration against their ranges, each
// from a row of a table, so that no field can be forgotten in code and present in
// prose.
//
//	faults := bounds.Check("rpc: ClientConfig.",
//		bounds.Of("MaxTimeout", c.MaxTimeout, time.Millisecond, time.Minute, "longer work is a command with a task"),
//		bounds.Of("MaxRequest", c.MaxRequest, 1<<10, 1<<20, ""),
//	)
package bounds

import (
	"errors"
	"fmt"
)

// Bound is one field and its range. Make it with [Of].
type Bound struct{ fault string }

// Of says that value must be low to high, both included. why tells whoever set
// another value what the range is for; "" tells nothing.
func Of[T ~int | ~int64](field string, value, low, high T, why string) Bound {
	if low <= value && value <= high {
		return Bound{}
	}
	fault := fmt.Sprintf("%s: %v is out of range; use %v to %v", field, value, low, high)
	if why != "" {
		fault += " (" + why + ")"
	}
	return Bound{fault}
}

// Check returns a fault for each value that is out of its range, in their order:
// "<of><field>: <value> is out of range; use <low> to <high> (<why>)".
func Check(of string, all ...Bound) (faults []error) {
	for _, b := range all {
		if b.fault != "" {
			faults = append(faults, errors.New(of+b.fault))
		}
	}
	return faults
}
