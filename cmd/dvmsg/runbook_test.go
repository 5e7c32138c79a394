package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

// runbook is docs/RECOVERY.md as somebody follows it: the commands of a step, and
// what it says that they print.
type runbook struct {
	commands map[string][]string // by step: "J3"; those of a section by its title
	prints   map[string][]string
}

// readRunbook takes the fenced lines below each heading.
func readRunbook(t testing.TB) runbook {
	t.Helper()
	text, err := os.ReadFile("../../docs/RECOVERY.md")
	require.NoError(t, err)
	book := runbook{map[string][]string{}, map[string][]string{}}
	step, fence := "", ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		mark, fenced := strings.CutPrefix(line, "```")
		title, heading := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		switch {
		case fenced && fence != "":
			fence = ""
		case fenced:
			fence = mark + "."
		case fence == "sh.":
			book.commands[step] = append(book.commands[step], line)
		case fence == "text.":
			book.prints[step] = append(book.prints[step], line)
		case strings.HasPrefix(line, "#") && heading:
			step, _, _ = strings.Cut(title, ".")
		}
	}
	return book
}

// words takes a command of the document apart as a shell does.
func (v variables) words(t testing.TB, line string) []string {
	t.Helper()
	var words []string
	for _, word := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1) {
		word = os.Expand(strings.Trim(word, `"`), func(name string) string {
			value, known := v[name]
			require.True(t, known, "%s: the test does not set %s", line, name)
			return value
		})
		words = append(words, word)
	}
	return words
}

// variables are what the operator exported.
type variables map[string]string

// follow does a step of the document for one service and returns what it printed.
func (r runbook) follow(t testing.TB, step string, e environment, v variables) string {
	t.Helper()
	require.NotEmpty(t, r.commands[step], step)
	var printed strings.Builder
	for _, line := range r.commands[step] {
		words := v.words(t, line)
		switch tool := strings.Join(words[:min(3, len(words))], " "); {
		case words[0] == "dvmsg":
			got := e.dvmsg(t, words[1:]...)
			require.Equal(t, exitOK, got.code, "%s: %s%s", line, got.out, got.err)
			printed.WriteString(got.out)
		case tool == "nats stream backup" && len(words) == 5:
			backUp(t, e[envNATS], words[3], filepath.Join(v["DIR"], words[4]))
		case tool == "nats stream restore" && len(words) == 4:
			putBack(t, e[envNATS], filepath.Join(v["DIR"], words[3]))
		default:
			require.Fail(t, "the test does not know how to run it", line)
		}
	}
	return printed.String()
}

// requirePrinted checks that the output has each line that the document promises: its
// numbers are any, and … is anything.
func (r runbook) requirePrinted(t testing.TB, step, printed string) {
	t.Helper()
	require.NotEmpty(t, r.prints[step], step)
	for _, line := range r.prints[step] {
		pattern := regexp.MustCompile(`\d+`).ReplaceAllString(regexp.QuoteMeta(line), `\d+`)
		pattern = strings.NewReplacer("…", ".*", "messages", "messages?", "message ", "messages? ").Replace(pattern)
		require.Regexp(t, "(?m)^"+pattern+"$", printed, step)
	}
}

// backUp and putBack are what the command nats does: the server's own snapshot of a
// stream, in chunks.
func backUp(t testing.TB, url, stream, dir string) {
	t.Helper()
	nc := dialBroker(t, url)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	inbox := nc.NewInbox()
	chunks, err := nc.SubscribeSync(inbox)
	require.NoError(t, err)
	head := ask(t, nc, "$JS.API.STREAM.SNAPSHOT."+stream, fmt.Appendf(nil, `{"deliver_subject":%q}`, inbox))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "backup.json"), head, 0o600))
	data, err := os.Create(filepath.Join(dir, "stream.tar.s2"))
	require.NoError(t, err)
	for {
		chunk, err := chunks.NextMsg(soon)
		require.NoError(t, err)
		if len(chunk.Data) == 0 {
			require.Contains(t, []string{"", "204"}, chunk.Header.Get("Status"), chunk.Header.Get("Description"))
			break
		}
		_, err = data.Write(chunk.Data)
		require.NoError(t, err)
		if chunk.Reply != "" { // the last one needs no answer
			require.NoError(t, chunk.Respond(nil))
		}
	}
	require.NoError(t, data.Close())
}

func putBack(t testing.TB, url, dir string) {
	t.Helper()
	nc := dialBroker(t, url)
	head, err := os.ReadFile(filepath.Join(dir, "backup.json"))
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, "stream.tar.s2"))
	require.NoError(t, err)
	var snapshot struct {
		Config json.RawMessage `json:"config"`
		State  json.RawMessage `json:"state"`
	}
	require.NoError(t, json.Unmarshal(head, &snapshot))
	request, err := json.Marshal(snapshot)
	require.NoError(t, err)
	var where struct {
		Subject string `json:"deliver_subject"`
	}
	require.NoError(t, json.Unmarshal(ask(t, nc, "$JS.API.STREAM.RESTORE."+filepath.Base(dir), request), &where))
	for len(data) > 0 {
		n := min(len(data), 64<<10)
		ask(t, nc, where.Subject, data[:n])
		data = data[n:]
	}
	ask(t, nc, where.Subject, nil)
}

func dialBroker(t testing.TB, url string) *nats.Conn {
	t.Helper()
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: url, FailFast: true, Logger: quiet()})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	return conn.NATS()
}

// ask sends a request that must not be refused.
func ask(t testing.TB, nc *nats.Conn, subject string, data []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	answer, err := nc.RequestWithContext(ctx, subject, data)
	require.NoError(t, err, subject)
	require.NotContains(t, string(answer.Data), `"error"`, subject)
	return answer.Data
}

// Every command of the document exists, with its flags; the steps that no test
// follows are looked at here.
func TestTheRunbookNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	v := variables{"SERVICE": "plattform", "FILE": writeSet(t, plattformSet()), "WHY": "a test", "BACKUP": time.Now().Format(time.RFC3339)}
	book := readRunbook(t)
	for _, step := range []string{"Backups", "J2", "J3", "J4", "J5", "J6", "P3", "P4", "P5", "P6"} {
		require.NotEmpty(t, book.commands[step], step)
	}
	text, err := os.ReadFile("../../docs/RECOVERY.md")
	require.NoError(t, err)
	lines := regexp.MustCompile("`(dvmsg [^`]+)`").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, lines)
	var all []string
	for _, commands := range book.commands {
		all = append(all, commands...)
	}
	for _, l := range lines {
		all = append(all, l[1])
	}
	for _, line := range all {
		if !strings.HasPrefix(line, "dvmsg ") {
			continue
		}
		words, rest := commands().split(v.words(t, line)[1:])
		cmd, found := commands().find(words)
		require.True(t, found, line)
		for _, word := range rest {
			name, isFlag := strings.CutPrefix(word, "--")
			require.True(t, !isFlag || cmd.flags().Lookup(name) != nil || newCall(silent(), cmd).flags.Lookup(name) != nil, line)
		}
	}
	for _, name := range regexp.MustCompile(`scripts/[a-z-]+\.sh`).FindAllString(string(text), -1) {
		require.FileExists(t, "../../"+name)
	}
}
