package topology

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Resume makes a stream ask for its sources at once. It is for the time after a
// link came back.
//
// The server asks by itself, but a question that was lost with the link is waited
// for 30 s, and then asked again after 10 s, each further one that is lost after
// 10 s more, up to 2 min (nats-server 2.15; 40 s were measured after a flapping
// link). Resume removes the sources and puts them back: the server then begins
// anew, behind the last message that it holds. If it ends in between, the stream
// has no sources, Verify says so, and Resume with the declaration, or Apply, puts
// them back.
//
// What it puts back is what the server had, and of s only the sources that the server
// had not: while a release is rolled out, replicas of the older one call it with the
// older declaration. To make a stream as declared is for Apply.
//
// It needs the rights STREAM.INFO.<stream> and STREAM.UPDATE.<stream> of the
// JetStream API. A stream without declared sources is left alone.
func Resume(ctx context.Context, js jetstream.JetStream, s Stream) error {
	if len(s.Sources) == 0 {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	a, what := api{js: js}, "resume sources of "+streamObject(s.Name)
	current, err := a.request(ctx, what, streamInfo(s.Name), nil)
	if err != nil {
		return err
	}
	with, err := merge(current, s.Config(), []string{"sources", "subjects"})
	if err == nil {
		err = keepSources(with, current)
	}
	if err != nil {
		return fmt.Errorf("topology: %s: %w", what, err)
	}
	without := document{}
	for key, value := range with {
		if key != "sources" {
			without[key] = value
		}
	}
	if len(s.Subjects) == 0 {
		// A stream without sources must have a subject, and would take its name.
		// This one nobody but the account's owner may publish on.
		without["subjects"] = json.RawMessage(`["$DV.` + s.Name + `"]`)
	}
	for _, next := range []document{without, with} {
		if _, err := a.request(ctx, what, "STREAM.UPDATE."+s.Name, next); err != nil {
			return err
		}
	}
	return nil
}

// keepSources gives next the sources that current has, as they are, and behind them
// those of next that current has not.
func keepSources(next, current document) error {
	var had, declared []json.RawMessage
	if text := current["sources"]; text != nil {
		if err := json.Unmarshal(text, &had); err != nil {
			return fmt.Errorf("read the sources that the server has: %w", err)
		}
	}
	if err := json.Unmarshal(next["sources"], &declared); err != nil {
		return err
	}
	names := map[string]bool{}
	for _, source := range had {
		names[sourceName(source)] = true
	}
	for _, source := range declared {
		if !names[sourceName(source)] {
			had = append(had, source)
		}
	}
	all, err := json.Marshal(had)
	next["sources"] = all
	return err
}

// sourceName tells the sources of a stream apart: by stream and site.
func sourceName(source json.RawMessage) string {
	var named struct {
		Name     string `json:"name"`
		External struct {
			API string `json:"api"`
		} `json:"external"`
	}
	_ = json.Unmarshal(source, &named) // what is none has no name, and is kept
	return named.External.API + " " + named.Name
}
