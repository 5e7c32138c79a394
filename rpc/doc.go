// Package rpc
package rpc
