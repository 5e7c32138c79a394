package pgserver

import (
	"context"
	"fmt"
)

// initdbArguments make a cluster that behaves the same on every machine: the
// locale decides how text sorts.
func initdbArguments(dir string) []string {
	return []string{
		"--pgdata=" + dir, "--username=" + superuser, "--auth=trust",
		"--encoding=UTF8", "--no-locale", "--no-sync",
	}
}

// fill makes the data directory and says whether it is a copy.
func (s *Server) fill(ctx context.Context) (cached bool, err error) {
	if !s.options.CachedInit {
		return false, s.initdb(ctx)
	}
	cache, err := s.cache()
	if err != nil {
		return false, s.initdb(ctx) // no home directory: no cache
	}
	if err := cache.copyTo(dataDir(s.dir), s.owner); err == nil {
		return true, nil
	}
	if err := s.initdb(ctx); err != nil {
		return false, err
	}
	// The cache only saves time: what cannot be kept is made anew next time.
	_ = cache.keep(dataDir(s.dir))
	return false, nil
}

// initdb makes a new cluster.
func (s *Server) initdb(ctx context.Context) error {
	if err := s.run("initdb", initdbArguments(dataDir(s.dir))...); err != nil {
		return err
	}
	status, err := s.awaitExit(ctx)
	if err != nil {
		return err
	}
	if status.ExitStatus() != 0 {
		return fmt.Errorf("initdb failed, it says:\n%s", s.Log())
	}
	return nil
}
