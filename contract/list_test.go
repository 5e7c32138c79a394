package contract_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// see is a command to maskin, told one to nett, and up an event of nett.
var (
	see  = envelope.MustCommand[seenV1](envelope.CommandSpec{Service: subject.Maskin, Entity: "server", Action: "see", Version: 1})
	told = envelope.MustCommand[seenV1](envelope.CommandSpec{Service: subject.Nett, Entity: "port", Action: "open", Version: 3})
	up   = envelope.MustEvent[seenV2](envelope.EventSpec{Service: subject.Nett, Entity: "port", Verb: "opened", Version: 1, Visibility: envelope.External})
)

func TestACatalogueListsWhatAServiceSaysAndUnderstands(t *testing.T) {
	t.Parallel()
	seen := event[seenV1]("server", "seen", 1)
	c, err := contract.New(subject.Maskin, contract.Handles(up, see, seen), contract.Produces(told, seen))
	require.NoError(t, err)
	var got []string
	for _, e := range c.List().Contracts {
		got = append(got, strings.Join([]string{e.String(), string(e.Kind), string(e.Direction), e.Subject, e.Visibility}, " "))
	}
	require.Equal(t, []string{
		"maskin.server.see.requested v1 command handles dv.maskin.cmd.see internal",
		"maskin.server.seen v1 event both dv.maskin.evt.server.seen internal",
		"nett.port.open.requested v3 command produces dv.nett.cmd.open internal",
		"nett.port.opened v1 event handles dv.nett.evt.port.opened external",
	}, got)
	require.Empty(t, c.List().Lint())
	require.Equal(t, told.Schema(), c.List().Contracts[2].DataSchema())

	require.Equal(t, []subject.Subject{seen.Subject(), told.Subject()}, c.Subjects(contract.Sent))
	require.Equal(t, []subject.Subject{see.Subject(), seen.Subject(), up.Subject()}, c.Subjects(contract.Received))
	require.Equal(t, []subject.Subject{see.Subject(), seen.Subject(), told.Subject(), up.Subject()}, c.Subjects(contract.Both))

	again, err := contract.New(subject.Maskin, contract.Produces(seen, told), contract.Handles(seen, see, up))
	require.NoError(t, err)
	require.Equal(t, c, again, "order means nothing")

	l := c.List()
	l.Contracts[0].Type = "changed"
	require.Equal(t, again, c, "a catalogue does not change with its list")
}

func TestACatalogueRefusesWhatAServiceCannotSayOrHear(t *testing.T) {
	t.Parallel()
	seen := event[seenV1]("server", "seen", 1)
	_, err := contract.New(subject.Maskin, contract.Produces(up, seen, seen, envelope.Type[seenV1]{}, nil), contract.Handles(told, event[seenV2]("server", "seen", 1)))
	for _, want := range []string{
		"contract: produces[0] (nett.port.opened v1): only nett can publish its events",
		"contract: produces[2] (maskin.server.seen v1): is listed twice",
		"contract: produces[3]: is no message", "contract: produces[4]: is no message",
		"contract: handles[0] (nett.port.open.requested v3): the command is addressed to nett",
		"contract: handles[1] (maskin.server.seen v1): is declared with the data contract_test.seenV2, and elsewhere with contract_test.seenV1",
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = contract.New(0)
	require.ErrorContains(t, err, "contract: service: is not set")
}

func TestAListSurvivesItsFile(t *testing.T) {
	t.Parallel()
	l := list(t, event[everything]("thing", "seen", 2), told, event[node]("node", "grown", 1))
	data, err := l.Encode()
	require.NoError(t, err)
	again, err := contract.Parse(data)
	require.NoError(t, err)
	require.Empty(t, contract.Compare(l, again))
	twice, err := again.Encode()
	require.NoError(t, err)
	require.Equal(t, string(data), string(twice))

	slices.Reverse(again.Contracts)
	twice, err = again.Encode()
	require.NoError(t, err)
	require.Equal(t, string(data), string(twice), "order means nothing")

	c, err := contract.New(subject.Maskin, contract.Produces(event[everything]("thing", "seen", 2), told, event[node]("node", "grown", 1)))
	require.NoError(t, err)
	exported, err := json.Marshal(c)
	require.NoError(t, err)
	require.JSONEq(t, string(data), string(exported))
}

func TestAFileThatIsNoListIsRefusedWithAllFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"format":2,"service":"maskin","contracts":[]}`:         "format 2, this version of the library reads 1",
		`{"service":"maskin"}`:                                   "format 0",
		`{"format":1,"servixe":"maskin"}`:                        `unknown field "servixe"`,
		`{"format":1,"format":1}`:                                "twice",
		`[]`:                                                     "must be a JSON object",
		`{"format":1,"contracts":[{"type":"a"}]}`:                `contracts[0] ("a v0"): schema: is missing`,
		`{"format":1,"contracts":[{"schema":{}},{"schema":{}}]}`: "stands there twice",
		`<<<<<<< HEAD`:                                           "byte 0",
	} {
		_, err := contract.Parse([]byte(text))
		require.ErrorContains(t, err, "contract: parse list: ")
		require.ErrorContains(t, err, want, text)
	}
}

func TestLintFindsNamesThatBreakTheRules(t *testing.T) {
	t.Parallel()
	good := list(t, event[seenV1]("server", "seen", 1)).Contracts[0]
	for _, c := range []struct {
		change func(*contract.Contract)
		want   string
	}{
		{func(c *contract.Contract) { c.Type = "maskin.Server.seen" }, "type: entity"},
		{func(c *contract.Contract) { c.Type = "robot.server.seen" }, "type: service"},
		{func(c *contract.Contract) { c.Type = "maskin.server" }, "type: an event is called <service>.<entity>.<verb>"},
		{func(c *contract.Contract) { c.Kind = contract.Command }, "type: a command is called <service>.<entity>.<action>.requested"},
		{func(c *contract.Contract) { c.Kind = "query" }, "type: kind must be event or command"},
		{func(c *contract.Contract) { c.Subject = "dv.maskin.evt.server.v1.seen" }, "subject: of this event it must be dv.maskin.evt.server.seen"},
		{func(c *contract.Contract) { c.Version = 0 }, "version: must be 1 to 65535"},
		{func(c *contract.Contract) { c.Visibility = "public" }, "visibility: must be internal or external"},
		{func(c *contract.Contract) { c.Direction = "" }, "direction: must be produces, handles or both"},
		{func(c *contract.Contract) { c.Type, c.Subject = "nett.server.seen", "dv.nett.evt.server.seen" }, "direction: only nett publishes its events: handles"},
		{func(c *contract.Contract) {
			c.Kind, c.Type, c.Subject, c.Direction = contract.Command, "nett.server.see.requested", "dv.nett.cmd.see", contract.Received
		}, "direction: the command is addressed to nett: produces"},
		{func(c *contract.Contract) {
			c.Kind, c.Type, c.Subject, c.Visibility = contract.Command, "maskin.server.see.requested", "dv.maskin.cmd.see", "external"
		}, "visibility: a command never leaves the platform"},
	} {
		bad := good
		c.change(&bad)
		l := contract.List{Format: 1, Service: "maskin", Contracts: []contract.Contract{bad}}
		found := l.Lint()
		require.Len(t, found, 1, c.want)
		require.Contains(t, found[0].String(), c.want)
		require.Equal(t, bad.String(), found[0].Contract)
		_, _, err := contract.Accept(contract.NewLock("maskin"), l)
		require.ErrorContains(t, err, "contract: accept: ", "a lock takes no such list")
	}
	require.Contains(t, contract.List{Service: "robot"}.Lint()[0].String(), "service: ")
}
