package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stopPatience is how long a service may drain before it is killed.
const stopPatience = 10 * time.Second

// spawner starts all child processes on one operating-system thread. The kernel
// ties a child to the thread that made it, and Go ends threads as it likes: a
// child made elsewhere could be killed in the middle of its work.
type spawner struct{ orders chan func() }

func newSpawner() *spawner {
	s := &spawner{make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for order := range s.orders {
			order()
		}
	}()
	return s
}

// start runs cmd.Start on the thread.
func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error)
	s.orders <- func() { result <- cmd.Start() }
	return <-result
}

// end gives the thread up, and with it whatever child might still live.
func (s *spawner) end() { close(s.orders) }

// process is a running service.
type process struct {
	role string
	cmd  *exec.Cmd
	log  string    // file with what it says
	life io.Closer // its standard input, which ends when we do
	done chan struct{}
	err  error // of its end, once done is closed

	expected atomic.Bool // its end is wanted
}

// startProcess starts this program again as a service, in a process group of its
// own, so that ctrl-C on the terminal reaches only us and we stop it in order.
func startProcess(s *spawner, dir, role string, cfg settings) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{role: role, log: filepath.Join(dir, role+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(self, "--role", role)
	p.cmd.Env = append(os.Environ(), cfg.environ()...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttributes()
	if p.life, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// signal sends sig to the process and whatever it may have started.
func (p *process) signal(sig syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, sig) }

// freeze stops the process between two instructions, and thaw lets it go on.
func (p *process) freeze() { p.signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.signal(syscall.SIGCONT) }

// kill ends it at once, as a crash does, and returns when it is gone.
func (p *process) kill() {
	p.expected.Store(true)
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop asks it to drain and waits, but not for ever.
func (p *process) stop() {
	p.expected.Store(true)
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopPatience):
		p.kill()
	}
}

// watch returns an error when the process ends although nobody wants it to.
func (p *process) watch(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.done:
	}
	if p.expected.Load() {
		return nil
	}
	return fmt.Errorf("%s ended (%w); its log ends with:\n%s", p.role, errors.Join(p.err, errEnded), p.logTail())
}

var errEnded = errors.New("nobody asked it to")

// logTail returns the last lines of the log.
func (p *process) logTail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}
