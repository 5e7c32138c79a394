package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processUsage returns the processor time and the peak resident size of this
// process. The size is not taken from getrusage: Linux counts there what the
// parent had in memory when it started us.
func processUsage() (cpu time.Duration, peak int64) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err == nil {
		cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return cpu, 0
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return cpu, kib << 10
		}
	}
	return cpu, 0
}
