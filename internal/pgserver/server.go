package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// socketPort only names the socket file; nothing listens on TCP.
	socketPort = "5432"
	// startTimeout bounds a start whose context has no end of its own. Crash
	// recovery of a test's database takes a fraction of a second.
	startTimeout = time.Minute
)

// errStopped answers every use after [Server.Stop].
var errStopped = errors.New("the server was stopped and its directory removed")

// started keeps each server reachable until Stop. The garbage collector closes the
// files of what nobody refers to any more, and the janitor's pipe is one: without
// this, a server whose URL alone was kept would vanish in the middle of its use.
var started sync.Map // of *Server to nothing

// Server is a running PostgreSQL server with a directory of its own.
// Its methods are safe for concurrent use.
type Server struct {
	binaries Binaries
	options  Options
	owner    owner
	dir      string

	mu      sync.Mutex // guards all below
	janitor *janitor   // nil after Stop
	pid     int        // of our child (the postmaster, once started), or 0
}

// Start finds the binaries, makes a data directory and returns when the server
// takes connections. The end of ctx ends the start only, not the server; a
// start takes a minute at most. Errors wrap [ErrNotInstalled] when there is no
// PostgreSQL on the machine.
func Start(ctx context.Context, options Options) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	binaries, err := Find(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{binaries: binaries, options: options, owner: currentOwner()}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("pgserver: start: %w", err)
	}
	started.Store(s, nil)
	if err := s.boot(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("pgserver: start %s: %w", binaries.Dir, err), s.Stop())
	}
	return s, nil
}

// open makes the server's directory and sets the janitor over it.
func (s *Server) open() error {
	dir, err := s.owner.mkdir(s.options.parent())
	if err != nil {
		return err
	}
	s.dir = dir
	s.janitor, err = hireJanitor(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// boot fills the data directory and starts the server for the first time.
func (s *Server) boot(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cached, err := s.fill(ctx)
	if err != nil {
		return err
	}
	err = s.launch(ctx)
	if err == nil || !cached || ctx.Err() != nil {
		return err
	}
	return s.bootFresh(ctx)
}

// bootFresh tries again with a new cluster after the server did not start on the
// cached one. If it helps, the cached one is spoiled, by a full disk at the time
// it was kept for example, and goes; if not, the cause is another, such as a
// wrong setting.
func (s *Server) bootFresh(ctx context.Context) error {
	if err := os.RemoveAll(dataDir(s.dir)); err != nil {
		return fmt.Errorf("remove data directory: %w", err)
	}
	if err := s.initdb(ctx); err != nil {
		return err
	}
	if err := s.launch(ctx); err != nil {
		return err
	}
	if kept, err := s.cache(); err == nil {
		_ = kept.discard() // another process may have been faster
	}
	return nil
}

// URL is the address of a database on this server for pgx and libpq. The user
// is the superuser postgres, without a password.
func (s *Server) URL(database string) string {
	query := url.Values{"host": {s.dir}, "port": {socketPort}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: query.Encode()}
	return u.String()
}

// Major is the major version of the server, 15 for 15.18.
func (s *Server) Major() int { return s.binaries.Major }

// PID is the process id of the postmaster, or 0 while the server does not run.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap() // it may have ended by itself
	return s.pid
}

// Log is the end of the server's log, at most 4 KiB, for the output of a failed
// test. It is empty after Stop.
func (s *Server) Log() string { return tail(s.logFile(), 4<<10) }

// Restart shuts the server down in an orderly way where it runs, and starts it
// again on the same data directory and address. After [Server.Kill9] the start
// is a crash recovery. After an error only Stop is left.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.janitor == nil {
		return fmt.Errorf("pgserver: restart: %w", errStopped)
	}
	if s.pid != 0 {
		// SIGINT is PostgreSQL's fast shutdown: clients are cut off, commits kept.
		// The answer ESRCH means that it is dead already.
		_ = syscall.Kill(s.pid, syscall.SIGINT)
		if _, err := s.awaitExit(ctx); err != nil {
			return fmt.Errorf("pgserver: restart: %w", err)
		}
	}
	if err := s.launch(ctx); err != nil {
		return fmt.Errorf("pgserver: restart: %w", err)
	}
	return nil
}

// Kill9 kills all processes of the server at once with SIGKILL, as a crash of
// the machine or of its container does, and returns when they are gone. The
// data directory stays for [Server.Restart]. It does nothing while the server
// does not run.
func (s *Server) Kill9() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := killTree(ctx, s.pid); err != nil {
		return fmt.Errorf("pgserver: kill server %d: %w", s.pid, err)
	}
	_, err := s.awaitExit(ctx)
	return err
}

// Stop ends the server without waiting for its clients and removes its
// directory. A second Stop does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.janitor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	// The janitor does here what it does when this process dies, so that the
	// path nobody sees is the one that every test takes.
	s.janitor.dismiss()
	_, err := s.awaitExit(ctx)
	err = errors.Join(err, s.janitor.wait())
	s.janitor = nil
	started.Delete(s)
	if err != nil {
		return fmt.Errorf("pgserver: stop: %w", err)
	}
	return nil
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

func dataDir(dir string) string { return filepath.Join(dir, "data") }
