// Package sleep waits, as long as a context lets it.
package sleep

import (
	"context"
	"time"
)

// For returns after d or at the end of ctx, whatever comes first. Which it was, ctx
// tells.
func For(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
