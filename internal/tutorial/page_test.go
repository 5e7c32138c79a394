package tutorial_test

import (
	"fmt"
	"regexp"
	"strings"
)

// step is one thing that the reader of the page does: write a file, or run commands.
type step struct {
	line  int    // of the fence
	file  string // to write; "" for commands
	text  string // of the file, or the commands
	again bool   // the commands may be repeated until they print what is wanted
	want  []string
}

// named is the line above the text of a file.
var named = regexp.MustCompile("^`([a-zA-Z0-9_./]+)`:$")

// readPage returns the steps of a page, in its order:
//
//	a line `name`: and then a fence     a file
//	a fence of sh, or of "sh again"     commands
//	a fence of text                     what the commands before it print, in essence:
//	                                    each line is somewhere in the output, in order
//
// Any other fence is a fault: the reader would not know what to do with it.
func readPage(page string) (steps []step, err error) {
	lines := strings.Split(page, "\n")
	above := "" // the last line with text
	for i := 0; i < len(lines); i++ {
		kind, fence := strings.CutPrefix(lines[i], "```")
		if !fence {
			if strings.TrimSpace(lines[i]) != "" {
				above = lines[i]
			}
			continue
		}
		begin := i
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the fence is never closed", begin+1)
		}
		block := lines[begin+1 : i]
		text := strings.Join(block, "\n") + "\n"
		name := named.FindStringSubmatch(above)
		switch {
		case name != nil:
			steps = append(steps, step{line: begin + 1, file: name[1], text: text})
		case kind == "sh", kind == "sh again":
			steps = append(steps, step{line: begin + 1, text: text, again: kind == "sh again"})
		case kind == "text" && len(steps) > 0 && steps[len(steps)-1].file == "" && steps[len(steps)-1].want == nil:
			steps[len(steps)-1].want = block
		default:
			return nil, fmt.Errorf("line %d: a fence of %q that is neither a file, commands, nor their output", begin+1, kind)
		}
		above = ""
	}
	return steps, nil
}

// missing returns the first wanted line that output does not hold behind the ones
// before it, "" for none. White space counts as one space.
func missing(output string, want []string) string {
	rest := squeeze(output)
	for _, line := range want {
		_, after, found := strings.Cut(rest, squeeze(line))
		if !found {
			return line
		}
		rest = after
	}
	return ""
}

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }
