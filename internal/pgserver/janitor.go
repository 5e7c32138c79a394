package pgserver

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// janitorScript outlives the process that started it. It is told process ids
// line by line; the end of input means that the process has ended or is done,
// and then the last one named is shut down and the directory $1 removed.
//
//   - Signals are ignored: an interrupt on the terminal must not stop it before
//     it has cleaned up.
//   - SIGQUIT is PostgreSQL's immediate shutdown; SIGCONT because a test may have
//     frozen the server; SIGKILL where that did not help within about 10 s. A
//     zombie has ended: in many containers process 1 never reaps what it inherits.
//   - A killed server leaves a System V segment behind, the interlock of its
//     data directory; line 7 of postmaster.pid names it.
//   - The second rm is for files that a dying process wrote during the first.
const janitorScript = `
trap '' HUP INT QUIT TERM
pid=0
while read -r line; do pid=$line; done
if [ "$pid" != 0 ]; then
	kill -QUIT "$pid"
	kill -CONT "$pid"
	tries=0
	while kill -0 "$pid" && ! grep -q ') Z ' "/proc/$pid/stat" && [ "$tries" -lt 500 ]; do
		sleep 0.02
		tries=$((tries + 1))
	done
	kill -KILL "$pid"
fi
if segment=$(sed -n '7s/.* //p' "$1/data/postmaster.pid") && [ -n "$segment" ]; then
	ipcrm -m "$segment"
fi
rm -rf -- "$1" || { sleep 1; rm -rf -- "$1"; }
`

// janitor is the shell process that cleans up behind this one.
type janitor struct {
	command *exec.Cmd
	// pipe is the only writing end of the janitor's input. The runtime opens
	// it close-on-exec, so that no other child of this process keeps it open.
	pipe *os.File
}

// hireJanitor starts the janitor of dir.
func hireJanitor(dir string) (*janitor, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer reader.Close()
	command := exec.Command("/bin/sh", "-c", janitorScript, "pgserver-janitor", dir)
	command.Stdin = reader
	// Not ours: whoever reads our output would wait for the janitor's end.
	command.Stdout, command.Stderr = nil, nil
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		writer.Close()
		return nil, fmt.Errorf("start janitor: %w", err)
	}
	return &janitor{command: command, pipe: writer}, nil
}

// forget tells the janitor that the process it was told of has ended, so that
// it never signals another one that was given the same number.
func (j *janitor) forget() {
	// A janitor that somebody killed cannot be told and has nothing to forget.
	_, _ = j.pipe.WriteString("0\n")
}

// dismiss makes the janitor clean up now.
func (j *janitor) dismiss() { _ = j.pipe.Close() }

// wait returns when the janitor has cleaned up.
func (j *janitor) wait() error {
	if err := j.command.Wait(); err != nil {
		return fmt.Errorf("remove server directory: %w", err)
	}
	return nil
}
