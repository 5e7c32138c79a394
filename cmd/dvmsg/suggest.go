package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// unknown says that no command is called words, and which one was meant.
func (t table) unknown(words []string) string {
	text := fmt.Sprintf("unknown command %q", strings.Join(words, " "))
	if meant := t.nearest(words); meant != "" {
		return text + fmt.Sprintf("; did you mean %q?", meant)
	}
	return text
}

// nearest returns the command or group that words were meant to be, or "".
func (t table) nearest(words []string) string {
	group := words[0]
	if !slices.Contains(t.groups(), group) {
		// The verb alone says enough where one group has it.
		if paths := t.withVerb(group); len(paths) == 1 {
			return paths[0]
		}
		if group = closest(group, t.groups()); group == "" {
			return ""
		}
	}
	if len(words) == 1 {
		return group
	}
	var verbs []string
	for _, c := range t.in(group) {
		verbs = append(verbs, c.words()[1])
	}
	if verb := closest(words[1], verbs); verb != "" {
		return group + " " + verb
	}
	return group + " " + strings.Join(verbs, "|")
}

// withVerb returns the commands with that second word.
func (t table) withVerb(verb string) (paths []string) {
	for _, c := range t {
		if c.words()[1] == verb {
			paths = append(paths, c.path)
		}
	}
	return paths
}

// closestFlag returns the flag that name was meant to be, or "".
func closestFlag(fs *flag.FlagSet, name string) string {
	var names []string
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	return closest(name, names)
}

// closest returns the candidate that text is a beginning or a misspelling of; ""
// if none is near enough to be what was meant.
func closest(text string, candidates []string) string {
	const far = 3
	best, least := "", far
	for _, c := range candidates {
		d := distance(text, c)
		if text != "" && strings.HasPrefix(c, text) {
			d = min(d, 1)
		}
		if d < least && d < max(len(text), len(c)) {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour to make b of a. A swap counts as one, since it is the typing
// fault that tired people make.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
