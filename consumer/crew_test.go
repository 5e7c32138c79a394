package consumer_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

// A task must not wait behind another one, which may wait for it: that would be a
// message behind a whole handler.
func TestTasksOfACrewDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	const side = 8
	c := consumer.NewCrew(2) // fewer than end at once
	for range 3000 {
		var met sync.WaitGroup
		met.Add(side)
		done := make(chan struct{})
		for range side {
			go c.Run(func() {
				met.Done()
				met.Wait() // nobody is through before all have begun
			})
		}
		go func() {
			met.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(soon):
			require.Fail(t, "a task waits for one that waits for it")
		}
	}
	c.Dismiss()
}
