package topology

import (
	"fmt"
	"slices"
	"strings"
)

// Account is the NATS account of the platform in the configurations that
// ServerConfig writes.
const Account = "DV"

// platformSubjects are all that the platform publishes on. Leafnode connections
// deny them, so that nothing crosses but what a stream sources.
const platformSubjects = "dv.>"

// What a site needs to source from another one, beside the right to create a
// consumer there: flow control, the messages, and the answers to its requests.
const (
	flowControl  = "$JS.FC.>"
	sourcedData  = "$JS.S.>"
	sourceAnswer = "$JSC.R.>"
)

// SiteQuestions begins the subjects on which site is asked about its flows, and
// on which it gets the answers to its own questions: "dvsites.osl1". The link
// lets them pass between sites with a flow, see package sites. They do not begin
// with dv., which the link denies.
func SiteQuestions(site string) string { return "dvsites." + site }

// questions are all that a site is asked or answered.
func questions(s Site) string { return SiteQuestions(s.Name) + ".>" }

// ServerConfig returns the configuration of the NATS servers of a site: a
// domain, the platform's account, and the leafnode link with the rights that the
// flows need and no other. It is the same for all servers of the site and
// complete for a single one; servers of a cluster add their cluster block.
//
// What differs from server to server, and every secret, is a variable that is
// taken from the environment: DV_SERVER_NAME, DV_LISTEN, DV_STORE_DIR, DV_USER
// and DV_PASSWORD of the services; at the site that accepts connections
// DV_LEAF_<SITE>_PASSWORD for each other site, and at the others
// DV_LEAF_<SITE>_URL of the one that accepts,
// "nats-leaf://leaf_<own site>:<password>@host:port", _URL_2 and so on where it
// accepts at several addresses.
//
// The error is that of Validate, or a *SiteError for an unknown site.
func (n Network) ServerConfig(site string) (string, error) {
	if err := n.Validate(); err != nil {
		return "", err
	}
	s, ok := n.Site(site)
	if !ok {
		return "", &SiteError{Fault: FaultDeclaration, Field: "Network.Sites", Reason: fmt.Sprintf("%.40q is no site", site), Remedy: "use the name of a listed one"}
	}
	var w configWriter
	w.line("# nats-server of site %s, written by dvmsg topology server-config.", s.Name)
	w.line("# Change the network's declaration and write it again.")
	w.line("server_name: $DV_SERVER_NAME")
	w.line("listen: $DV_LISTEN")
	w.open("jetstream")
	w.line("store_dir: $DV_STORE_DIR")
	w.line("domain: %q", s.Domain)
	w.close()
	n.writeAccounts(&w, s)
	n.writeLeafnodes(&w, s)
	return w.text.String(), nil
}

func (n Network) writeAccounts(w *configWriter, s Site) {
	w.open("accounts")
	w.open(Account)
	w.line("jetstream: enabled")
	w.line("users: [")
	w.depth++
	w.line("{ user: $DV_USER, password: $DV_PASSWORD }")
	for _, other := range n.dialling(s) {
		r := n.rights(s, other)
		w.open("")
		w.line("user: %q", leafUser(other))
		w.line("password: $%s", leafVariable(other, "PASSWORD"))
		w.line(`allowed_connection_types: ["LEAFNODE"]`)
		w.open("permissions")
		w.right("publish", r.publish)
		w.right("subscribe", r.subscribe)
		w.close()
		w.close()
	}
	w.depth--
	w.line("]")
	w.close()
	w.close()
}

func (n Network) writeLeafnodes(w *configWriter, s Site) {
	if len(n.Sites) < 2 {
		return
	}
	w.open("leafnodes")
	if len(s.Accepts) > 0 {
		w.line("listen: $DV_LEAF_LISTEN")
		w.line("# The other site dials what it was told and learns no further address.")
		w.line("no_advertise: true")
		w.close()
		return
	}
	hub, _ := n.hub()
	w.line(`reconnect: "1s"`)
	w.line("remotes: [")
	w.depth++
	w.open("")
	w.line("urls: [%s]", strings.Join(leafURLs(hub), ", "))
	w.line("account: %q", Account)
	w.line("deny_imports: [%q]", platformSubjects)
	w.line("deny_exports: [%q]", platformSubjects)
	w.close()
	w.depth--
	w.line("]")
	w.close()
}

// dialling lists the sites whose connections s accepts.
func (n Network) dialling(s Site) []Site {
	if len(s.Accepts) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(n.Sites), func(o Site) bool { return o.Name == s.Name })
}

func leafUser(s Site) string { return "leaf_" + s.Name }

func leafVariable(s Site, what string) string {
	return "DV_LEAF_" + strings.ToUpper(s.Name) + "_" + what
}

func leafURLs(hub Site) []string {
	var urls []string
	for i := range hub.Accepts {
		url := "$" + leafVariable(hub, "URL")
		if i > 0 {
			url += fmt.Sprintf("_%d", i+1)
		}
		urls = append(urls, url)
	}
	return urls
}

// rights are what the user of a leafnode connection may do, seen from the site
// that accepts it.
type rights struct {
	publish   []string // what the other site may send here
	subscribe []string // what it may get from here
}

// rights returns the least that the flows between the two sites need. For a
// flow from hub to leaf the leaf sends requests and gets messages; for one the
// other way it is the other way round. Where there is a flow, each may ask the
// other about it.
func (n Network) rights(hub, leaf Site) rights {
	var r rights
	for _, f := range n.Flows {
		if f.From == hub.Name && f.To == leaf.Name || f.From == leaf.Name && f.To == hub.Name {
			r.publish = append(r.publish, questions(hub))
			r.subscribe = append(r.subscribe, questions(leaf))
		}
		switch {
		case f.From == hub.Name && f.To == leaf.Name:
			r.publish = append(r.publish, n.requests(f)...)
			r.subscribe = append(r.subscribe, sourcedData, sourceAnswer)
		case f.From == leaf.Name && f.To == hub.Name:
			r.subscribe = append(r.subscribe, n.requests(f)...)
			r.publish = append(r.publish, sourcedData, sourceAnswer)
		}
	}
	for _, list := range []*[]string{&r.publish, &r.subscribe} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return r
}

// requests are what the destination of f publishes at its origin. Which of the
// two subjects a server uses depends on whether it filters.
func (n Network) requests(f Flow) []string {
	all := []string{flowControl}
	for _, src := range n.sources(f) {
		create := domainAPI(src.Domain) + ".CONSUMER.CREATE." + src.Stream
		all = append(all, create, create+".>")
	}
	return all
}

// configWriter writes nats-server's configuration language.
type configWriter struct {
	text  strings.Builder
	depth int
}

func (w *configWriter) line(format string, args ...any) {
	w.text.WriteString(strings.Repeat("  ", w.depth))
	fmt.Fprintf(&w.text, format, args...)
	w.text.WriteByte('\n')
}

func (w *configWriter) open(name string) {
	w.line("%s", strings.TrimSpace(name+" {"))
	w.depth++
}

func (w *configWriter) close() {
	w.depth--
	w.line("}")
}

// right writes the allow list and, since allow and deny lists had faults of
// their own in the past, the deny list too. An empty allow list would allow all.
func (w *configWriter) right(name string, allow []string) {
	if len(allow) == 0 {
		w.line("%s: { deny: [\">\"] }", name)
		return
	}
	w.open(name)
	w.line("allow: [")
	w.depth++
	for _, subject := range allow {
		w.line("%q", subject)
	}
	w.depth--
	w.line("]")
	w.line("deny: [%q]", platformSubjects)
	w.close()
}
