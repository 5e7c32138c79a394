package topology

import (
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/subject"
)

// The part of the contract file that is about sites. It is left out where there
// is one site only.

type networkJSON struct {
	Sites []siteJSON `json:"sites"`
	Flows []flowJSON `json:"flows"`
}

type siteJSON struct {
	Name    string   `json:"name"`
	Domain  string   `json:"domain"`
	Accepts []string `json:"accepts,omitempty"`
}

type flowJSON struct {
	From     string          `json:"from"`
	To       string          `json:"to"`
	Cargo    Cargo           `json:"cargo"`
	Service  subject.Service `json:"service"`
	Entities []string        `json:"entities,omitempty"`
	Owner    string          `json:"owner,omitempty"`
	Replicas int             `json:"replicas,omitempty"`
	MaxBytes int64           `json:"max_bytes,omitempty"`
	MaxMsgs  int64           `json:"max_msgs,omitempty"`
	MaxAge   durationJSON    `json:"max_age,omitempty"`
	Rate     float64         `json:"rate,omitempty"`
}

type sourceJSON struct {
	Site     string        `json:"site"`
	Domain   string        `json:"domain"`
	Stream   string        `json:"stream"`
	Subjects []mappingJSON `json:"subjects"`
}

type mappingJSON struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (n Network) toJSON() *networkJSON {
	if len(n.Sites)+len(n.Flows) == 0 {
		return nil
	}
	out := &networkJSON{Sites: []siteJSON{}, Flows: []flowJSON{}}
	for _, s := range n.Sites {
		out.Sites = append(out.Sites, siteJSON(s))
	}
	for _, f := range n.Flows {
		out.Flows = append(out.Flows, flowJSON{
			From: f.From, To: f.To, Cargo: f.Cargo, Service: f.Service, Entities: f.Entities, Owner: ownerText(f.Owner),
			Replicas: f.Limits.Replicas, MaxBytes: f.Limits.MaxBytes, MaxMsgs: f.Limits.MaxMsgs,
			MaxAge: durationJSON(f.Limits.MaxAge), Rate: f.Limits.Rate,
		})
	}
	return out
}

func (in *networkJSON) toNetwork(f *faults) Network {
	var n Network
	if in == nil {
		return n
	}
	for _, s := range in.Sites {
		n.Sites = append(n.Sites, Site(s))
	}
	for i, flow := range in.Flows {
		n.Flows = append(n.Flows, Flow{
			From: flow.From, To: flow.To, Cargo: flow.Cargo, Service: flow.Service, Entities: flow.Entities,
			Owner: ownerOf(f, fmt.Sprintf("network.flows[%d].owner", i), flow.Owner),
			Limits: Limits{
				Replicas: flow.Replicas, MaxBytes: flow.MaxBytes, MaxMsgs: flow.MaxMsgs,
				MaxAge: time.Duration(flow.MaxAge), Rate: flow.Rate,
			},
		})
	}
	return n
}

func sourcesToJSON(list []Source) []sourceJSON {
	var out []sourceJSON
	for _, s := range list {
		one := sourceJSON{Site: s.Site, Domain: s.Domain, Stream: s.Stream, Subjects: []mappingJSON{}}
		for _, m := range s.Subjects {
			one.Subjects = append(one.Subjects, mappingJSON(m))
		}
		out = append(out, one)
	}
	return out
}

func sourcesOf(list []sourceJSON) []Source {
	var out []Source
	for _, s := range list {
		one := Source{Site: s.Site, Domain: s.Domain, Stream: s.Stream}
		for _, m := range s.Subjects {
			one.Subjects = append(one.Subjects, Mapping(m))
		}
		out = append(out, one)
	}
	return out
}

// ownerText is "" for none, which the file leaves out.
func ownerText(s subject.Service) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

func ownerOf(f *faults, field, text string) subject.Service {
	if text == "" {
		return 0
	}
	s, err := subject.ParseService(text)
	if err != nil {
		f.add(field, "%.40q is not a known service", text)
	}
	return s
}
