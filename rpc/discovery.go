package rpc

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// Discovery is the micro protocol of NATS, so that "nats micro ls", "info", "ping"
// and "stats" show our servers beside all others. Subjects and forms come from
// package micro; its service loop does not, because it runs handlers one after the
// other, and tells what a request took and whether it failed only of handlers that
// it ran itself.

// Keys of an endpoint's metadata.
const (
	metaType    = "type"
	metaVersion = "version"
	metaRequest = "request_schema"
	metaReply   = "reply_schema"
)

// listenForDiscovery answers PING, INFO and STATS for all services, for this
// service, and for this instance.
func (s *Server) listenForDiscovery(l *listeners) error {
	for verb, value := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity(), Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info() },
		micro.StatsVerb: func() any { return s.stats() },
	} {
		service := s.cfg.Service.String()
		for _, who := range [...][2]string{{}, {service}, {service, s.id}} {
			on, err := micro.ControlSubject(verb, who[0], who[1])
			if err != nil {
				return fmt.Errorf("rpc: discovery: %w", err)
			}
			sub, err := s.nc.Subscribe(on, func(m *nats.Msg) { s.tell(m, value()) })
			if err != nil {
				return fmt.Errorf("rpc: subscribe to %s: %w", on, err)
			}
			l.discovery = append(l.discovery, sub)
		}
	}
	return nil
}

// tell answers one question. Who asks again after a lost answer gets another.
func (s *Server) tell(m *nats.Msg, value any) {
	if !answerable(m.Reply) {
		return
	}
	data, err := json.Marshal(value)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.log.Debug("rpc: discovery was not answered", "error", err.Error())
	}
}

func (s *Server) identity() micro.ServiceIdentity {
	return micro.ServiceIdentity{Name: s.cfg.Service.String(), ID: s.id, Version: s.cfg.Version, Metadata: map[string]string{}}
}

// each calls f for every operation in every version.
func (s *Server) each(f func(e *endpoint, r *served)) {
	for _, e := range s.endpoints {
		for _, r := range e.order {
			f(e, r)
		}
	}
}

func (s *Server) info() micro.Info {
	info := micro.Info{ServiceIdentity: s.identity(), Type: micro.InfoResponseType, Description: s.cfg.Description}
	s.each(func(e *endpoint, r *served) {
		c := r.contract
		info.Endpoints = append(info.Endpoints, micro.EndpointInfo{
			Name: e.subject.Operation(), Subject: e.subject.String(), QueueGroup: s.cfg.Service.String(),
			Metadata: map[string]string{
				metaType: c.name, metaVersion: c.version,
				metaRequest: c.request.schema, metaReply: c.reply.schema,
			},
		})
	})
	return info
}

func (s *Server) stats() micro.Stats {
	stats := micro.Stats{ServiceIdentity: s.identity(), Type: micro.StatsResponseType, Started: s.started}
	s.each(func(e *endpoint, r *served) {
		one := r.stats()
		one.Name, one.Subject, one.QueueGroup = e.subject.Operation(), e.subject.String(), s.cfg.Service.String()
		stats.Endpoints = append(stats.Endpoints, one)
	})
	return stats
}

// stats returns the counts, in the form of the protocol.
func (s *served) stats() *micro.EndpointStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &micro.EndpointStats{NumRequests: s.requests, NumErrors: s.errors, LastError: s.last, ProcessingTime: s.busy}
	if s.requests > 0 {
		one.AverageProcessingTime = time.Duration(s.busy.Nanoseconds() / int64(s.requests))
	}
	return one
}
