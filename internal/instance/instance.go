// Package instance names what runs, where several of the same run.
package instance

import (
	"crypto/rand"
	"fmt"
	"os"
)

// Name returns a name that no other call of it returns: host and process for the
// operator, and a random suffix, since a process may hold several instances. It has
// at most 200 bytes.
func Name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%.100s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}
