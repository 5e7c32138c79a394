package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
)

// A site loses all of its JetStream while its services run. The document is followed
// to the letter, and what comes back is what it says.
//
// A row of docs/DELIVERY.md.
func TestASiteThatLostItsJetStreamIsRebuiltByTheRunbook(t *testing.T) {
	t.Parallel()
	s, book := setupSites(t), readRunbook(t)
	here, there := s.maskin[dvtest.SiteA], s.maskin[dvtest.SiteB]
	local, afar := s.plattform[dvtest.SiteA], s.plattform[dvtest.SiteB]
	local.bad.Store(is("bad"))
	all := []*party{here, there, local, afar}
	for _, p := range all {
		p.start(t)
	}
	v := variables{"DIR": t.TempDir(), "WHY": "JetStream lost, DV-500"}

	// Letters of before the backup and of after it.
	here.provision(t, "bad-kept")
	local.requireLetters(t, dlq.StateOpen, "bad-kept")
	book.follow(t, "Backups", local.environment, v)
	ours, theirs, bad := numbered("ours-", 12), numbered("theirs-", 8), []string{"bad-ours", "bad-still", "bad-aged"}
	here.provision(t, slices.Concat(ours, bad)...)
	there.provision(t, append(slices.Clone(theirs), "bad-theirs")...)
	here.say(t, connect.New("link-1", nodeV1{"a"}), connect.New("link-2", nodeV1{"b"}))
	local.requireHosts(t, ours, theirs)
	local.requireLetters(t, dlq.StateOpen, "bad-kept", "bad-ours", "bad-still", "bad-aged", "bad-theirs")
	afar.requireHosts(t, ours, theirs, bad, []string{"bad-kept", "bad-theirs"})
	for _, p := range all {
		p.requirePublished(t)
	}

	// What retention does to rows that are a day old.
	here.exec(t, `delete from messaging.outbox_events where ordering_key = 'bad-aged'`)
	s.A().Lose(t)
	waiting := []string{"waiting-1", "waiting-2"}
	here.provision(t, waiting...)
	local.bad.Store(is("bad-still"))

	s.rebuild(t, book, v)
	s.AwaitFlows(t)

	revived := []string{"bad-ours", "bad-theirs"}
	local.requireHosts(t, ours, theirs, waiting, revived)
	local.requireLetters(t, dlq.StateOpen, "bad-kept", "bad-still")
	for _, p := range all {
		p.requirePublished(t)
		p.requireIdle(t)
	}
	afar.requireHosts(t, ours, theirs, bad, waiting, []string{"bad-kept", "bad-theirs"})
	// The letter of the backup is one that can be replayed; what its row says, and
	// only that, holds for the one whose row had aged: nothing of it is left.
	local.environment.dvmsg(t, "dlq", "replay", local.letters(t, dlq.StateOpen)["bad-kept"], "--reason", v["WHY"], "--wait").ok(t)
	local.requireHosts(t, ours, theirs, waiting, revived, []string{"bad-kept"})

	commands := s.nett.stored(t, "DV_NETT_CMD")
	require.Len(t, commands, 2, "they wait again, once each")
	require.Equal(t, []string{"a", "b"}, []string{hostOf(t, commands[0]), hostOf(t, commands[1])})
}

// rebuild does J2 to J6 at the first site.
func (s twoSites) rebuild(t *testing.T, book runbook, v variables) {
	t.Helper()
	here, local := s.maskin[dvtest.SiteA], s.plattform[dvtest.SiteA]
	each := func(step string, parties ...*party) string {
		var printed strings.Builder
		for _, p := range parties {
			v["SERVICE"], v["FILE"] = p.set.Service.String(), p.file
			printed.WriteString(book.follow(t, step, p.environment, v))
		}
		return printed.String()
	}
	each("J2", local)
	book.requirePrinted(t, "J3", each("J3", here, s.nett, local))
	each("J4", here, s.nett, local)
	for p, streams := range map[*party]int{here: 2, local: 1} { // the relay notices, and waits
		require.Eventually(t, func() bool {
			return strings.Count(p.dvmsg(t, "outbox", "status").ok(t).out, "STREAM MADE ANEW") == streams
		}, soon, tick)
	}
	book.requirePrinted(t, "J5", each("J5", here, local))
	book.requirePrinted(t, "J6", each("J6", here, s.nett, local))
}
