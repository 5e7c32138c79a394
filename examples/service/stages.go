package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"
)

// part runs until its ctx ends, and returns nil then.
type part = func(ctx context.Context) error

// stage is the parts that stop together, by name.
type stage map[string]part

// runStages runs all parts at once until ctx ends or one of them returns, and then
// stops one stage after another: a stage is told to stop when the one before has
// ended. It returns when all have, with everything that went wrong.
func runStages(ctx context.Context, stages ...stage) error {
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	groups := make([]errgroup.Group, len(stages))
	stops := make([]context.CancelFunc, len(stages))
	for i, parts := range stages {
		// What ends ctx must not end all of them at once.
		running, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		stops[i] = stop
		for name, run := range parts {
			groups[i].Go(func() error {
				err := run(running)
				if err == nil && running.Err() == nil {
					err = errors.New("ended unasked")
				}
				if err != nil {
					err = fmt.Errorf("%s: %w", name, err)
					end(err) // without one of its parts the service is not the service
				}
				return err
			})
		}
	}
	<-serving.Done()
	slog.Info("stopping", "why", context.Cause(serving))
	var errs []error
	for i := range stages {
		stops[i]()
		errs = append(errs, groups[i].Wait())
	}
	return errors.Join(errs...)
}
