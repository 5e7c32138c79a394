package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// CheckServer holds the configuration of a site's nats-server against the
// network: the domain, the deny lists, and the rights of the leafnode users. It
// takes the tree that package conf of nats-server makes of a configuration, maps
// of any and lists of any, and returns a *SiteError for each fault, joined, or nil.
//
// It sees what the text says, not what a server was given beside it: operator
// mode with JWTs, whose rights are in the account, it cannot check.
func (n Network) CheckServer(site string, config map[string]any) error {
	if err := n.Validate(); err != nil {
		return err
	}
	var f faults
	s, ok := n.Site(site)
	if !ok {
		f.site(FaultDeclaration, "Network.Sites", "use the name of a listed one", "%.40q is no site", site)
		return errors.Join(f...)
	}
	root := lower(config)
	js, _ := root["jetstream"].(map[string]any)
	switch domain := js["domain"]; {
	case domain == nil || domain == "":
		f.site(FaultNoDomain, "jetstream.domain", "set it to "+s.Domain, "is missing; both sites would answer one request")
	case domain != s.Domain:
		f.site(FaultDeclaration, "jetstream.domain", "change it, or the declaration", "is %.64q, declared %s", fmt.Sprint(domain), s.Domain)
	}
	if root["no_auth_user"] != nil {
		f.site(FaultLeak, "no_auth_user", "remove it", "lets leafnode connections in without a password, with the rights of that user")
	}
	leaf := child(root, "leafnodes", "leaf")
	if len(s.Accepts) == 0 && len(n.Sites) > 1 {
		checkRemotes(&f, leaf)
	}
	for _, other := range n.dialling(s) {
		n.checkLeafUser(&f, s, other, root)
	}
	return errors.Join(f...)
}

// checkRemotes demands both deny lists on every link that is dialled.
func checkRemotes(f *faults, leaf map[string]any) {
	remotes := list(leaf["remotes"])
	if len(remotes) == 0 {
		f.site(FaultDeclaration, "leafnodes.remotes", "use the text of Network.ServerConfig", "is missing; the site dials nobody")
	}
	for i, r := range remotes {
		remote, _ := r.(map[string]any)
		for _, name := range []string{"deny_imports", "deny_exports"} {
			denied := wordsOf(first(remote, name, strings.TrimSuffix(name, "s")))
			if !holdsAll(denied, []string{platformSubjects}) {
				f.site(FaultDenyList, fmt.Sprintf("leafnodes.remotes[%d].%s", i, name), fmt.Sprintf("add %q", platformSubjects),
					"does not deny the platform's subjects; one publish would be stored at both sites, and either may acknowledge it")
			}
		}
	}
}

// checkLeafUser demands that the user with which other dials may do what the
// flows need, and nothing else.
func (n Network) checkLeafUser(f *faults, s, other Site, root map[string]any) {
	field := "user " + leafUser(other)
	user, found := findUser(root, leafUser(other))
	if !found {
		f.site(FaultAllowList, field, "use the text of Network.ServerConfig", "is missing; site %s could not connect, or as somebody with more rights", other.Name)
		return
	}
	permissions := child(user, "permissions", "permission", "authorization")
	want := n.rights(s, other)
	checkRight(f, field+".publish", want.publish, first(permissions, "publish", "pub", "import"))
	checkRight(f, field+".subscribe", want.subscribe, first(permissions, "subscribe", "sub", "export"))
}

func checkRight(f *faults, field string, want []string, right any) {
	var allow, deny []string
	if m, ok := right.(map[string]any); ok {
		allow, deny = wordsOf(m["allow"]), wordsOf(m["deny"])
	} else {
		allow = wordsOf(right)
	}
	if len(allow) == 0 && !slices.Contains(deny, ">") {
		f.site(FaultLeak, field, "list what the flows need, as Network.ServerConfig does", "allows everything")
		return
	}
	if len(want) > 0 && !slices.Contains(deny, platformSubjects) {
		f.site(FaultDenyList, field+".deny", fmt.Sprintf("add %q", platformSubjects), "does not deny the platform's subjects, which an allow list that grows would let through")
	}
	for _, subject := range want {
		switch {
		case slices.Contains(allow, subject):
		case subject == flowControl:
			f.site(FaultFlowControl, field+".allow", fmt.Sprintf("add %q", flowControl), "has no flow control; a flow would stand still after about 2 MB, and say nothing")
		case strings.HasPrefix(subject, SiteQuestions("")):
			f.site(FaultAllowList, field+".allow", fmt.Sprintf("add %q", subject), "lets no questions about the flows pass; how far a copy is behind, and what it lacks, would not be known")
		default:
			f.site(FaultAllowList, field+".allow", fmt.Sprintf("add %q", subject), "lacks what a flow needs")
		}
	}
	for _, denied := range deny {
		hit := slices.IndexFunc(want, func(subject string) bool { return subjectsOverlap(denied, subject) })
		if hit >= 0 && len(allow) > 0 {
			f.site(FaultAllowList, field+".deny", "remove it", "%.200q takes away %q, which a flow needs, although it is allowed", denied, want[hit])
		}
	}
	for _, subject := range allow {
		if !slices.Contains(want, subject) {
			f.site(FaultLeak, field+".allow", "remove it, or declare the flow that needs it", "%.200q is more than the flows need", subject)
		}
	}
}

// subjectsOverlap reports whether some subject is of both: * is any token, > the rest.
func subjectsOverlap(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		switch {
		case as[i] == ">" || bs[i] == ">":
			return true
		case as[i] != bs[i] && as[i] != "*" && bs[i] != "*":
			return false
		}
	}
	return len(as) == len(bs)
}

// findUser looks in all accounts and in the authorization blocks.
func findUser(root map[string]any, name string) (map[string]any, bool) {
	accounts := child(root, "accounts")
	blocks := []map[string]any{child(root, "authorization"), child(child(root, "leafnodes", "leaf"), "authorization")}
	for _, account := range accounts {
		if block, ok := account.(map[string]any); ok {
			blocks = append(blocks, block)
		}
	}
	for _, block := range blocks {
		for _, u := range list(block["users"]) {
			if user, ok := u.(map[string]any); ok && first(user, "user", "username") == name {
				return user, true
			}
		}
	}
	return nil, false
}

// lower makes all keys lower case, as the server reads them.
func lower(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for key, value := range m {
		out[strings.ToLower(key)] = lowerValue(value)
	}
	return out
}

func lowerValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return lower(v)
	case []map[string]any:
		all := make([]any, 0, len(v))
		for _, one := range v {
			all = append(all, lower(one))
		}
		return all
	case []any:
		all := make([]any, 0, len(v))
		for _, one := range v {
			all = append(all, lowerValue(one))
		}
		return all
	}
	return value
}

// first returns the value of the first name that is there: the server knows
// several for some.
func first(m map[string]any, names ...string) any {
	for _, name := range names {
		if value := m[name]; value != nil {
			return value
		}
	}
	return nil
}

func child(m map[string]any, names ...string) map[string]any {
	value, _ := first(m, names...).(map[string]any)
	return value
}

func list(value any) []any {
	all, _ := value.([]any)
	return all
}

// wordsOf reads one text or a list of them.
func wordsOf(value any) []string {
	if text, ok := value.(string); ok {
		return []string{text}
	}
	var all []string
	for _, one := range list(value) {
		if text, ok := one.(string); ok {
			all = append(all, text)
		}
	}
	return all
}
