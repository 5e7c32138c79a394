package topology_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/conf"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// twoSites is a network with a flow of each kind.
func twoSites() topology.Network {
	return topology.Network{
		Sites: []topology.Site{
			{Name: "osl1", Domain: "osl1", Accepts: []string{"nats.osl1.example:7422"}},
			{Name: "trd1", Domain: "trd1"},
		},
		Flows: []topology.Flow{
			{From: "osl1", To: "trd1", Cargo: topology.CargoEvents, Service: subject.Maskin},
			{From: "trd1", To: "osl1", Cargo: topology.CargoEvents, Service: subject.Maskin, Entities: []string{"server", "rack"}},
			{From: "osl1", To: "trd1", Cargo: topology.CargoCommands, Service: subject.Plattform, Owner: subject.Sentral, Limits: topology.Limits{Replicas: 3}},
		},
	}
}

// siteFaults returns the kinds of all *SiteError in err, by field.
func siteFaults(err error) map[string]topology.SiteFault {
	found := map[string]topology.SiteFault{}
	for _, e := range flatten(err) {
		if s, ok := errors.AsType[*topology.SiteError](e); ok {
			found[s.Field] = s.Fault
		}
	}
	return found
}

func TestAFlowOfEventsEndsInACopyThatTakesNothingElse(t *testing.T) {
	t.Parallel()
	n := twoSites()
	require.NoError(t, n.Validate())
	all, some := n.StreamOf(n.Flows[0]), n.StreamOf(n.Flows[1])
	require.Equal(t, "DV_MASKIN_EVT_FROM_OSL1", all.Name)
	cfg := all.Config()
	require.Empty(t, cfg.Subjects)
	require.Equal(t, topology.Duplicates, cfg.Duplicates, "left out on a stream with sources, the server turns it off")
	require.Len(t, cfg.Sources, 2)
	require.Equal(t, "DV_MASKIN_EVT", cfg.Sources[0].Name)
	require.Equal(t, "$JS.osl1.API", cfg.Sources[0].External.APIPrefix)
	require.Equal(t, "DV_MASKIN_EVT_RESENT_TO_TRD1", cfg.Sources[1].Name)
	require.Equal(t, []string{"dv.maskin.evt.server.>", "dv.maskin.evt.rack.>"}, []string{
		some.Config().Sources[0].SubjectTransforms[0].Source, some.Config().Sources[0].SubjectTransforms[1].Destination,
	})
}

func TestAFlowOfCommandsWaitsAtItsOriginAndEndsBesideTheLocalOnes(t *testing.T) {
	t.Parallel()
	n := twoSites()
	waiting := n.StreamOf(n.Flows[2])
	require.Equal(t, "DV_PLATTFORM_CMD_TO_TRD1", waiting.Name)
	require.Equal(t, []string{"dv.xdc.trd1.plattform.cmd.*"}, waiting.Config().Subjects)
	require.Empty(t, waiting.Config().Sources)
	require.Empty(t, n.Commands("osl1", subject.Plattform, topology.Limits{}).Sources)
	there := n.Commands("trd1", subject.Plattform, topology.Limits{}).Config()
	require.Equal(t, []string{"dv.plattform.cmd.*"}, there.Subjects)
	require.Equal(t, "DV_PLATTFORM_CMD_TO_TRD1", there.Sources[0].Name)
	require.Equal(t, "dv.plattform.cmd.>", there.Sources[0].SubjectTransforms[0].Destination)
}

func TestWhatIsResentArrivesOnTheSubjectThatItHad(t *testing.T) {
	t.Parallel()
	n := twoSites()
	all, some, commands := n.Flows[0], n.Flows[1], n.Flows[2]
	again := n.ResentOf(all)
	require.Equal(t, "DV_MASKIN_EVT_RESENT_TO_TRD1", again.Name)
	require.Equal(t, []string{"dv.xdr.trd1.maskin.evt.>"}, again.Config().Subjects)
	require.Equal(t, topology.DefaultResentAge, again.MaxAge)
	require.Equal(t, topology.Mapping{From: "dv.xdr.trd1.maskin.evt.>", To: "dv.maskin.evt.>"}, n.StreamOf(all).Sources[1].Subjects[0])
	require.Equal(t, topology.Mapping{From: "dv.xdr.osl1.maskin.evt.rack.>", To: "dv.maskin.evt.rack.>"}, n.StreamOf(some).Sources[1].Subjects[1])
	to := n.ResentOf(commands)
	require.Equal(t, "DV_PLATTFORM_CMD_RESENT_TO_TRD1", to.Name)
	require.Equal(t, subject.Sentral, to.Owner, "who sends them has it")
	require.Equal(t, 3, to.Replicas)
	require.Equal(t, topology.Mapping{From: "dv.xdr.trd1.plattform.cmd.>", To: "dv.plattform.cmd.>"},
		n.Commands("trd1", subject.Plattform, topology.Limits{}).Sources[1].Subjects[0])

	require.Equal(t, "dv.xdr.trd1.maskin.evt.server.provisioned", n.ResentSubject(all, "dv.maskin.evt.server.provisioned"))
	require.Equal(t, "dv.xdr.trd1.plattform.cmd.resize", n.ResentSubject(commands, "dv.xdc.trd1.plattform.cmd.resize"))
	require.Empty(t, n.ResentSubject(some, "dv.maskin.evt.disk.failed"), "an entity that the flow leaves out")
	require.Empty(t, n.ResentSubject(commands, "dv.plattform.cmd.resize"))
	require.Equal(t, "DV_PLATTFORM_CMD_TO_TRD1", n.OriginOf(commands))

	set := n.At("osl1", maskin())
	require.NoError(t, set.Validate())
	require.Contains(t, names(set.Streams), "DV_MASKIN_EVT_RESENT_TO_TRD1")
	set.Streams[len(set.Streams)-1].Owner = subject.Nett
	require.Error(t, set.Validate())
}

func names(streams []topology.Stream) []string {
	var all []string
	for _, s := range streams {
		all = append(all, s.Name)
	}
	return all
}

// The names of streams that are copies have _FROM_ in them, and so had the commands for
// such a site.
func TestASiteMayBeNamedLikeACopy(t *testing.T) {
	t.Parallel()
	n := twoSites()
	n.Sites[1].Name = "a_from_b"
	for i, f := range n.Flows {
		if f.From == "trd1" {
			n.Flows[i].From = "a_from_b"
		}
		if f.To == "trd1" {
			n.Flows[i].To = "a_from_b"
		}
	}
	require.NoError(t, n.At("a_from_b", plattform()).Validate())
	require.NoError(t, n.At("a_from_b", maskin()).Validate())
}

func TestASetAtASiteIsValidHasItsStreamsAndSurvivesItsJSONForm(t *testing.T) {
	t.Parallel()
	n := twoSites()
	set := n.At("trd1", plattform())
	require.NoError(t, set.Validate())
	require.Len(t, set.Consumers[0].Stream.Sources, 2, "the consumer reads the stream as it is here")
	maskinThere := n.At("trd1", maskin())
	require.Equal(t, "DV_MASKIN_EVT_FROM_OSL1", maskinThere.Streams[1].Name)
	sentral := n.At("osl1", topology.Set{Service: subject.Sentral})
	require.Equal(t, "DV_PLATTFORM_CMD_TO_TRD1", sentral.Streams[0].Name, "the declared owner has it")
	require.Equal(t, "DV_PLATTFORM_CMD_RESENT_TO_TRD1", sentral.Streams[1].Name)
	for _, s := range []topology.Set{set, maskinThere, sentral} {
		data, err := json.Marshal(s)
		require.NoError(t, err)
		parsed, err := topology.ParseSet(data)
		require.NoError(t, err)
		again, err := json.Marshal(parsed)
		require.NoError(t, err)
		require.JSONEq(t, string(data), string(again))
		require.Equal(t, s.Network, parsed.Network)
	}
}

func TestBadNetworksAreRefusedWithReasonAndRemedy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*topology.Network)
		field  string
		fault  topology.SiteFault
	}{
		"a flow that ends where it begins": {func(n *topology.Network) { n.Flows[0].To = "osl1" }, "Network.Flows[0].To", topology.FaultLoop},
		"a site without a domain":          {func(n *topology.Network) { n.Sites[1].Domain = "" }, "Network.Sites[trd1].Domain", topology.FaultNoDomain},
		"two sites of one domain":          {func(n *topology.Network) { n.Sites[1].Domain = "osl1" }, "Network.Sites[trd1].Domain", topology.FaultLeak},
		"a domain that NATS refuses":       {func(n *topology.Network) { n.Sites[1].Domain = "a.b" }, "Network.Sites[trd1].Domain", topology.FaultDeclaration},
		"a site's name":                    {func(n *topology.Network) { n.Sites[1].Name = "Trd-1" }, "Network.Sites[Trd-1].Name", topology.FaultDeclaration},
		"a site named like a family":       {func(n *topology.Network) { n.Sites[1].Name = "dlq" }, "Network.Sites[dlq].Name", topology.FaultDeclaration},
		"nobody accepts":                   {func(n *topology.Network) { n.Sites[0].Accepts = nil }, "Network.Sites", topology.FaultDeclaration},
		"two accept":                       {func(n *topology.Network) { n.Sites[1].Accepts = []string{"x:1"} }, "Network.Sites", topology.FaultDeclaration},
		"an address":                       {func(n *topology.Network) { n.Sites[0].Accepts = []string{"x"} }, "Network.Sites[osl1].Accepts", topology.FaultDeclaration},
		"an unknown destination":           {func(n *topology.Network) { n.Flows[0].To = "bgo1" }, "Network.Flows[0].To", topology.FaultDeclaration},
		"an unknown cargo":                 {func(n *topology.Network) { n.Flows[0].Cargo = "rpc" }, "Network.Flows[0].Cargo", topology.FaultDeclaration},
		"an unknown service":               {func(n *topology.Network) { n.Flows[0].Service = 0 }, "Network.Flows[0].Service", topology.FaultDeclaration},
		"an entity that is a pattern":      {func(n *topology.Network) { n.Flows[1].Entities = []string{">"} }, "Network.Flows[1].Entities", topology.FaultDeclaration},
		"commands with entities":           {func(n *topology.Network) { n.Flows[2].Entities = []string{"a"} }, "Network.Flows[2].Entities", topology.FaultDeclaration},
		"a flow declared twice":            {func(n *topology.Network) { n.Flows = append(n.Flows, n.Flows[0]) }, "Network.Flows[3]", topology.FaultDeclaration},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := twoSites()
			c.change(&n)
			err := n.Validate()
			require.Equal(t, c.fault, siteFaults(err)[c.field], "%v", err)
			_, err = n.ServerConfig("osl1")
			require.Error(t, err, "a bad network has no configuration")
		})
	}
}

// What a contract file says that somebody edited.
func TestBadStreamsOfSitesAreRefusedWithReasonAndRemedy(t *testing.T) {
	t.Parallel()
	const copyField = "Set.Streams[DV_MASKIN_EVT_FROM_OSL1]"
	for name, c := range map[string]struct {
		change func(*topology.Set)
		field  string
		fault  topology.SiteFault
	}{
		"events that come from elsewhere into the own stream": {func(s *topology.Set) {
			s.Streams[0].Sources = []topology.Source{{Site: "osl1", Domain: "osl1", Stream: "DV_MASKIN_EVT", Subjects: []topology.Mapping{{From: "dv.maskin.evt.>", To: "dv.maskin.evt.>"}}}}
		}, "Set.Streams[DV_MASKIN_EVT].Sources", topology.FaultBothDirections},
		"a stream that feeds its namesake": {func(s *topology.Set) {
			s.Streams[1].Sources[0].Stream = "DV_MASKIN_EVT_FROM_OSL1"
		}, copyField + ".Sources[0].Stream", topology.FaultLoop},
		"a copy of a copy": {func(s *topology.Set) {
			s.Streams[1].Sources[0].Stream = "DV_MASKIN_EVT_FROM_TRD1"
		}, copyField + ".Sources[0].Stream", topology.FaultLoop},
		"a source without a domain": {func(s *topology.Set) {
			s.Streams[1].Sources[0].Domain = ""
		}, copyField + ".Sources[0].Domain", topology.FaultNoDomain},
		"a copy with subjects": {func(s *topology.Set) {
			s.Streams[1].Subjects = []subject.Filter{subject.EventsOf(subject.Nett)}
		}, copyField + ".Subjects", topology.FaultLeak},
		"a source of everything": {func(s *topology.Set) {
			s.Streams[1].Sources[0].Subjects = nil
		}, copyField + ".Sources[0].Subjects", topology.FaultLeak},
		"a mapping into another service": {func(s *topology.Set) {
			s.Streams[1].Sources[0].Subjects[0].To = "dv.nett.evt.>"
		}, copyField + ".Sources[0].Subjects", topology.FaultLeak},
		"a copy that takes nothing that is resent": {func(s *topology.Set) {
			s.Streams[1].Sources = s.Streams[1].Sources[:1]
		}, copyField + ".Sources", topology.FaultDeclaration},
		"a copy that no flow has": {func(s *topology.Set) {
			s.Network.Flows = nil
		}, copyField, topology.FaultDeclaration},
		"a set of no site": {func(s *topology.Set) { s.Site = "bgo1" }, "Set.Site", topology.FaultDeclaration},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := twoSites().At("trd1", maskin())
			require.NoError(t, set.Validate())
			c.change(&set)
			err := set.Validate()
			require.Equal(t, c.fault, siteFaults(err)[c.field], "%v", err)
		})
	}
	set := twoSites().At("trd1", plattform())
	set.Streams[0].Sources[0].Subjects[0].From = "dv.plattform.cmd.>"
	require.Equal(t, topology.FaultBothDirections,
		siteFaults(set.Validate())["Set.Streams[DV_PLATTFORM_CMD].Sources[0].Subjects"], "commands of one space in both directions")
}

// Operators keep these files: their form changes only by decision.
func TestServerConfigurationsAreAsBefore(t *testing.T) {
	t.Parallel()
	for _, site := range []string{"osl1", "trd1"} {
		got, err := twoSites().ServerConfig(site)
		require.NoError(t, err)
		golden := filepath.Join("testdata", "server."+site+".golden.conf")
		if os.Getenv("DVMSG_UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), got)
	}
	_, err := twoSites().ServerConfig("bgo1")
	require.Equal(t, topology.FaultDeclaration, siteFaults(err)["Network.Sites"])
}

// parsed is a configuration of a site with its variables filled in, changed as
// text.
func parsed(t *testing.T, site string, change func(string) string) map[string]any {
	t.Helper()
	text, err := twoSites().ServerConfig(site)
	require.NoError(t, err)
	text = regexp.MustCompile(`\$DV_[A-Z0-9_]+`).ReplaceAllString(text, `"x"`)
	changed := change(text)
	tree, err := conf.Parse(changed)
	require.NoError(t, err)
	return tree
}

func TestAServerThatLeaksOrStarvesAFlowIsRefused(t *testing.T) {
	t.Parallel()
	replace := func(old, with string) func(string) string {
		return func(text string) string {
			return regexp.MustCompile(old).ReplaceAllString(text, with)
		}
	}
	for name, c := range map[string]struct {
		site   string
		change func(string) string
		field  string
		fault  topology.SiteFault
	}{
		"no deny list of imports":  {"trd1", replace(`deny_imports.*\n`, "\n"), "leafnodes.remotes[0].deny_imports", topology.FaultDenyList},
		"no deny list of exports":  {"trd1", replace(`deny_exports.*\n`, "\n"), "leafnodes.remotes[0].deny_exports", topology.FaultDenyList},
		"a deny list of something": {"trd1", replace(`deny_exports: \["dv.>"\]`, `deny_exports: "dv.maskin.>"`), "leafnodes.remotes[0].deny_exports", topology.FaultDenyList},
		"no link":                  {"trd1", func(s string) string { return s[:strings.Index(s, "leafnodes")] }, "leafnodes.remotes", topology.FaultDeclaration},
		"no domain":                {"trd1", replace(`domain: .*\n`, "\n"), "jetstream.domain", topology.FaultNoDomain},
		"another domain":           {"osl1", replace(`domain: .*\n`, "domain: hub\n"), "jetstream.domain", topology.FaultDeclaration},
		"no flow control":          {"osl1", replace(`"\$JS.FC.>"\n`, "\n"), "user leaf_trd1.publish.allow", topology.FaultFlowControl},
		"no right to create":       {"osl1", replace(`"\$JS.osl1.API.CONSUMER.CREATE.DV_MASKIN_EVT.>"\n`, "\n"), "user leaf_trd1.publish.allow", topology.FaultAllowList},
		"no questions":             {"osl1", replace(`"dvsites.osl1.>"\n`, "\n"), "user leaf_trd1.publish.allow", topology.FaultAllowList},
		"no answers":               {"osl1", replace(`"dvsites.trd1.>"\n`, "\n"), "user leaf_trd1.subscribe.allow", topology.FaultAllowList},
		"no messages":              {"osl1", replace(`"\$JS.S.>"\n`, "\n"), "user leaf_trd1.subscribe.allow", topology.FaultAllowList},
		"more than the flows need": {"osl1", replace(`"\$JS.S.>"\n`, "\"$$JS.S.>\"\n\"$$JS.API.>\"\n"), "user leaf_trd1.publish.allow", topology.FaultLeak},
		"no permissions":           {"osl1", replace(`(?s)permissions \{.*?\n        \}\n`, "\n"), "user leaf_trd1.publish", topology.FaultLeak},
		"no deny list of a user":   {"osl1", replace(`deny: .*\n`, "\n"), "user leaf_trd1.publish.deny", topology.FaultDenyList},
		"a deny list of too much":  {"osl1", replace(`deny: \["dv.>"\]`, `deny: ["dv.>", "$$JS.FC.>"]`), "user leaf_trd1.publish.deny", topology.FaultAllowList},
		"no user":                  {"osl1", replace(`leaf_trd1`, "somebody"), "user leaf_trd1", topology.FaultAllowList},
		"a user without password":  {"osl1", func(s string) string { return s + "no_auth_user: x\n" }, "no_auth_user", topology.FaultLeak},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			same := func(s string) string { return s }
			require.NoError(t, twoSites().CheckServer(c.site, parsed(t, c.site, same)))
			err := twoSites().CheckServer(c.site, parsed(t, c.site, c.change))
			require.Equal(t, c.fault, siteFaults(err)[c.field], "%v", err)
		})
	}
}
