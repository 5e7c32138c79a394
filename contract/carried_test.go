package contract_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// later is version n of maskin.server.seen, which carries an older one forward.
func later[New, Old any](n int, from envelope.Type[Old]) envelope.Type[New] {
	return envelope.MustEvent(envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "seen", Version: n},
		envelope.Upcast(from, func(Old) (New, error) { var next New; return next, nil }))
}

// states names the versions of a list with what is done with them.
func states(l contract.List) (all []string) {
	for _, c := range l.Contracts {
		text := c.String() + " " + string(c.Direction)
		if c.Retired {
			text += " retired"
		}
		all = append(all, text)
	}
	return all
}

// Nobody lists a version that is no longer sent, but stored messages have it, and
// its Go type still reads them: a changed tag would give them empty fields.
func TestAVersionThatIsOnlyCarriedForwardKeepsItsMeaning(t *testing.T) {
	t.Parallel()
	type changed struct {
		Name string `json:"hostname"`
	}
	one := event[seenV1]("server", "seen", 1)
	three := later[seenV2](3, later[seenV2](2, one))
	lock, changes, err := contract.Accept(contract.NewLock("maskin"), list(t, three))
	require.NoError(t, err)
	require.Len(t, changes, 3)
	require.Equal(t, []string{"maskin.server.seen v1 produces retired", "maskin.server.seen v2 produces retired", "maskin.server.seen v3 produces"}, states(lock))
	require.Empty(t, lock.Lint())

	_, _, err = contract.Accept(lock, list(t, later[seenV2](3, later[seenV2](2, event[changed]("server", "seen", 1)))))
	require.ErrorContains(t, err, "breaking: maskin.server.seen v1: name (required-property-removed)")

	lock, changes, err = contract.Accept(lock, list(t, one, three))
	require.NoError(t, err)
	require.Equal(t, "compatible: maskin.server.seen v1 (revived): listed again", changes[0].String())
	_, changes, err = contract.Accept(lock, list(t, three))
	require.NoError(t, err)
	require.Equal(t, "warning: maskin.server.seen v1 (retired): no longer listed: take a version out of Produces when nobody sends it", changes[0].String())
}

func TestWhatIsCarriedForwardIsOneContractHoweverItIsListed(t *testing.T) {
	t.Parallel()
	one := event[seenV1]("server", "seen", 1)
	two := later[seenV2](2, one)
	says, hears := contract.Produces(two), contract.Handles(two)
	both := []string{"maskin.server.seen v1 both retired", "maskin.server.seen v2 both"}
	for _, parts := range [][]contract.Part{{says, hears}, {hears, says}} {
		require.Equal(t, both, states(contract.MustNew(subject.Maskin, parts...).List()))
	}
	require.Equal(t, []string{"maskin.server.seen v1 handles", "maskin.server.seen v2 produces"},
		states(contract.MustNew(subject.Maskin, says, contract.Handles(one)).List()))
	reader := func(m contract.Message) contract.List {
		return contract.MustNew(subject.Maskin, contract.Handles(m)).List()
	}
	require.Contains(t, contract.Compare(reader(one), reader(two))[0].String(), "(retired): no longer listed: what still comes of it needs a later version")
	_, err := contract.New(subject.Maskin, contract.Produces(event[seenV2]("server", "seen", 1), two))
	require.ErrorContains(t, err, "a version has one type")
	_, err = contract.New(subject.Maskin, contract.Produces(later[seenV2](2, event[struct{ C chan int }]("server", "seen", 1))))
	require.ErrorContains(t, err, "carried forward (maskin.server.seen v1): field C of ")
}
