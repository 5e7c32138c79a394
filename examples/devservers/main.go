// Command devservers starts a broker and a database for trying things out: both are
// empty, listen for this machine alone, and vanish when the command ends.
//
//	devservers servers.env     writes their addresses there, for a shell to read
//
// It needs PostgreSQL's server binaries, which "make postgres" installs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
)

func main() {
	servers.Main("devservers", func(ctx context.Context) error { return run(ctx, os.Args[1:]) })
}

// run starts both servers, writes the file, and waits for the end of ctx.
func run(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return errors.New("name the file for the addresses: devservers servers.env")
	}
	dir, err := os.MkdirTemp("", "devservers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	postgres, err := pgserver.Start(ctx, pgserver.Options{CachedInit: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Stop()) }()
	broker, err := natsserver.Start(ctx, dir, natsserver.Options{TCP: true})
	if err != nil {
		return err
	}
	defer broker.Stop()

	// The services' names for them, and those of dvmsg.
	text := fmt.Sprintf("export NATS_URL='%[1]s' DATABASE_URL='%[2]s'\nexport DVMSG_NATS_URL='%[1]s' DVMSG_DATABASE_URL='%[2]s'\n",
		broker.URL(), postgres.URL("postgres"))
	if err := os.WriteFile(args[0], []byte(text), 0o600); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(args[0])) }()
	fmt.Println("servers are up: . ./" + args[0])
	<-ctx.Done()
	return nil
}
