package main

import "syscall"

// childAttributes give a child a group of its own, and let the kernel kill it
// when the thread that made it ends, even if we were killed ourselves.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
