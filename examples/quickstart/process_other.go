//go:build unix && !linux

package main

import "syscall"

// childAttributes give a child a group of its own. When we are killed it sees the
// end of its standard input.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
