//go:build !linux

package pgserver

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// liveChildren lists the children of a process that have not ended.
func liveChildren(ctx context.Context, parent int) ([]int, error) {
	out, err := exec.CommandContext(ctx, "ps", "-axo", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var children []int
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[1] == strconv.Itoa(parent) && !strings.HasPrefix(fields[2], "Z") {
			pid, err := strconv.Atoi(fields[0])
			if err != nil {
				return nil, fmt.Errorf("read process list: %w", err)
			}
			children = append(children, pid)
		}
	}
	return children, nil
}
