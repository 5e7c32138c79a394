//go:build !linux

package main

import (
	"syscall"
	"time"
)

// processUsage returns the processor time and the peak resident size of this
// process; the size is in bytes on macOS.
func processUsage() (cpu time.Duration, peak int64) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), int64(r.Maxrss)
}
