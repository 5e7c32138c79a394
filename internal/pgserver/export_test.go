package pgserver

// ParseMajor is tested against the version texts of distributions.
var ParseMajor = parseMajor

// Dir is the server's own directory.
func (s *Server) Dir() string { return s.dir }

// CacheDir is where the kept data directory for this server lies.
func (s *Server) CacheDir() (string, error) {
	kept, err := s.cache()
	return kept.dir, err
}

// JanitorPID is the process that cleans up behind us.
func (s *Server) JanitorPID() int { return s.janitor.command.Process.Pid }
