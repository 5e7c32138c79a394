// Command service is what a new service of the platform is copied from: plattform,
// which makes nodes of maskin's servers and drains them when asked. README.md says
// what is where.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "plattform:", err)
		os.Exit(1)
	}
}

// run is the whole life of the process.
//
// Spans and metrics go to the global OpenTelemetry providers. A service sets them
// here, before anything is made, with the exporters of its choice:
//
//	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter)))
//	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
//
// and shuts them down after everything else, so that the last spans are sent.
func run(ctx context.Context, getenv func(string) string) (err error) {
	cfg, err := readConfig(getenv)
	if err != nil {
		return fmt.Errorf("environment:\n%w", err)
	}
	if cfg.local() {
		servers, err := startLocal(ctx)
		if err != nil {
			return err
		}
		defer servers.stop()
		cfg.NATSURL, cfg.DatabaseURL = servers.nats.URL(), servers.postgres.URL("postgres")
	}
	s, err := open(ctx, cfg)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return err
	}
	slog.Info("serving", "api", "http://"+s.apis.Addr().String(), "probes", "http://"+s.probes.Addr().String())
	return s.run(ctx)
}
