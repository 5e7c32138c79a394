package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// poll is how often a state is looked up that nobody reports: the server's
// status file and the end of a process.
const poll = 2 * time.Millisecond

// reportAndRun is what every child starts as: it names itself to the janitor
// and then becomes the program. So there is no moment in which a process runs
// that the janitor does not know, even if we are killed in between.
const reportAndRun = `echo $$ >&3; exec "$@" 3>&-`

// run starts a program of the installation as the server's user. Its output goes
// to the log.
func (s *Server) run(program string, args ...string) error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	shell := []string{"-c", reportAndRun, "sh", filepath.Join(s.binaries.Dir, program)}
	command := exec.Command("/bin/sh", append(shell, args...)...)
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{s.janitor.pipe}
	command.Dir = "/"                              // the server's user may not be allowed to enter ours
	command.Env = append(os.Environ(), "LC_ALL=C") // its log in one language
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.owner.credential()}
	if err := command.Start(); err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	s.pid = command.Process.Pid
	// We wait by process id: a Wait in the background would be a goroutine that
	// every leak check of a test binary finds.
	return command.Process.Release()
}

// launch starts the server and returns when it takes connections.
func (s *Server) launch(ctx context.Context) error {
	if err := s.run("postgres", s.options.arguments(s.dir)...); err != nil {
		return err
	}
	err := await(ctx, func() (bool, error) {
		if _, ended := s.reap(); ended {
			return false, fmt.Errorf("the server ended at once, its log says:\n%s", s.Log())
		}
		return s.ready(), nil
	})
	if err != nil {
		return fmt.Errorf("wait until the server is ready: %w", err)
	}
	return nil
}

// ready reads the server's status file as pg_ctl does: line 1 is the process
// id, which tells it from the file of a killed predecessor, line 8 the status.
func (s *Server) ready() bool {
	text, err := os.ReadFile(filepath.Join(dataDir(s.dir), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(s.pid) && strings.TrimSpace(lines[7]) == "ready"
}

// awaitExit returns when the process that runs has ended.
func (s *Server) awaitExit(ctx context.Context) (status syscall.WaitStatus, err error) {
	err = await(ctx, func() (ended bool, _ error) {
		status, ended = s.reap()
		return ended, nil
	})
	if err != nil {
		err = fmt.Errorf("wait for the end of process %d: %w", s.pid, err)
	}
	return status, err
}

// reap says whether our child has ended, and takes note of it if so. Unreaped it
// would stay as a zombie, and PostgreSQL takes a zombie for a running server.
func (s *Server) reap() (status syscall.WaitStatus, ended bool) {
	if s.pid == 0 {
		return 0, true
	}
	reaped, err := syscall.Wait4(s.pid, &status, syscall.WNOHANG, nil)
	if errors.Is(err, syscall.EINTR) || err == nil && reaped == 0 {
		return 0, false
	}
	// Any other error says that there is no such child any more.
	s.pid = 0
	s.janitor.forget()
	return status, true
}

// await calls done until it says yes, fails, or ctx ends.
func await(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// killTree sends SIGKILL to the server and all its children. The main process
// is frozen first: it can start no more children, and never sees them die.
func killTree(ctx context.Context, pid int) error {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	err := await(ctx, func() (bool, error) {
		// By parent, not by process group: each PostgreSQL process leads a
		// session of its own.
		children, err := liveChildren(ctx, pid)
		for _, child := range children {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		return len(children) == 0, err
	})
	return errors.Join(err, ignoreGone(syscall.Kill(pid, syscall.SIGKILL)))
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// tail returns the last max bytes of a file, or nothing if it cannot be read.
func tail(name string, max int64) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > max {
		_, _ = file.Seek(-max, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(file, max))
	return strings.TrimSpace(string(text))
}
