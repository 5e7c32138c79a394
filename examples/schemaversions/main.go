// Command schemaversions shows how a new version of an event is rolled out while
// everybody goes on: the readers first, then the sender. It runs on an embedded
// NATS server and prints what each reader received.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/examples/schemaversions/maskinevents"
	"codeberg.org/dataverket/messaging/subject"
)

func main() { servers.Main("schemaversions", run) }

// patience bounds the whole program; it takes a moment.
const patience = 60 * time.Second

func run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, stop, err := newPlatform(ctx)
	defer stop()
	if err != nil {
		return err
	}
	plattform, nett := p.reader(subject.Plattform), p.reader(subject.Nett)
	defer func() { err = errors.Join(err, plattform.stop(), nett.stop()) }()

	fmt.Println("Everybody speaks version 1.")
	err = errors.Join(plattform.deploy(ctx, readsFirst), nett.deploy(ctx, readsFirst), p.send(ctx, first("web-1.osl.example")))
	if err != nil {
		return err
	}
	if err := p.show(ctx, "web-1", plattform, nett); err != nil {
		return err
	}

	fmt.Println("Readers first: plattform's new release handles version 2 and is given version 1 carried forward. nett is late.")
	if err := errors.Join(plattform.deploy(ctx, readsSecond), p.send(ctx, first("web-2.osl.example"))); err != nil {
		return err
	}
	if err := p.show(ctx, "web-2", plattform, nett); err != nil {
		return err
	}

	fmt.Println("maskin rolls out too early: one instance sends version 1, the other version 2. nett goes on with version 1.")
	if err := errors.Join(p.send(ctx, second("web-3", "osl.example")), p.send(ctx, first("web-4.osl.example"))); err != nil {
		return err
	}
	if err := errors.Join(p.show(ctx, "web-3", plattform), p.show(ctx, "web-4", plattform, nett), nett.showLetter(ctx)); err != nil {
		return err
	}

	fmt.Println("nett is rolled out, and an operator replays its letter: nothing was lost.")
	if err := errors.Join(nett.deploy(ctx, readsSecond), nett.replay(ctx)); err != nil {
		return err
	}
	return p.show(ctx, "web-3", nett)
}

// first and second are what the two releases of maskin send about a server.
func first(hostname string) envelope.Draft {
	host, _, _ := strings.Cut(hostname, ".")
	return maskinevents.FirstServerProvisioned.New(host, maskinevents.ServerProvisionedV1{Hostname: hostname})
}

func second(host, domain string) envelope.Draft {
	return maskinevents.ServerProvisioned.New(host, maskinevents.ServerProvisionedV2{Host: host, Domain: domain})
}
