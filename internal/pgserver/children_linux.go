package pgserver

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// liveChildren lists the children of a process that have not ended, from /proc:
// slim containers have no ps.
func liveChildren(_ context.Context, parent int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var children []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		state, ppid := processState(pid)
		if ppid == parent && state != "Z" {
			children = append(children, pid)
		}
	}
	return children, nil
}

// processState reads state and parent. The fields follow the command's name,
// which stands in parentheses and may itself hold spaces and parentheses.
func processState(pid int) (state string, parent int) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", 0 // ended since it was listed
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(fields[1])
	return fields[0], parent
}
