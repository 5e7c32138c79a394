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
	if !slices.Contains(t.groups(), words[0]) {
		// The last words of a path say enough where one path has them.
		for n := len(words); n > 0; n-- {
			if paths := t.withEnd(strings.Join(words[:n], " ")); len(paths) == 1 {
				return paths[0]
			}
		}
	}
	var path []string
	for _, word := range words {
		follow := t.following(path)
		if !slices.Contains(follow, word) {
			word = closest(word, follow)
		}
		switch {
		case word != "":
			path = append(path, word)
		case len(path) == 0:
			return ""
		default:
			return strings.Join(path, " ") + " " + strings.Join(follow, "|")
		}
	}
	return strings.Join(path, " ")
}

// following returns the words that may stand behind path, each once.
func (t table) following(path []string) (words []string) {
	for _, c := range t.in(strings.Join(path, " ")) {
		if word := c.words()[len(path)]; !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// withEnd returns the commands and groups whose paths end so.
func (t table) withEnd(end string) (paths []string) {
	for _, c := range t {
		words := c.words()
		for n := range words {
			path := strings.Join(words[:n+1], " ")
			if strings.HasSuffix(path, " "+end) && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
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
