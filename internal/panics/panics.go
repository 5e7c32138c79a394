// Package panics tells where a recovered panic came from.
package panics

import (
	"fmt"
	"runtime"
	"strings"
)

// Location returns the function and the line that panicked, "maskin.register:41",
// and "" where nothing panics. The deferred function that recovered calls it, itself
// or through others: the panicking frames are on the stack until it returns.
//
// It walks from its caller through the runtime to the first frame of other code. A
// panic of the runtime itself (a nil map, an index) has more frames of the runtime
// than a call of panic.
func Location() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	panicking := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicking && !inRuntime {
			return fmt.Sprintf("%s:%d", frame.Function, frame.Line)
		}
		panicking = panicking || inRuntime && strings.HasSuffix(frame.Function, "panic")
		if !more {
			return ""
		}
	}
}
