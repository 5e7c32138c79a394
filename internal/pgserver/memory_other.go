//go:build !linux

package pgserver

// memoryDir is a directory in memory that is large enough: none is known here.
func memoryDir() string { return "" }
