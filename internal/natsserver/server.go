package natsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	loopback = "127.0.0.1"
	// readyTimeout bounds a start; it takes milliseconds.
	readyTimeout = 10 * time.Second
	// storeLimit is what streams may reserve together, far above any disk.
	storeLimit = 1 << 50
	// inProcessURL stands for the in-memory pipe. The name cannot be resolved,
	// so that a client that lacks the option fails instead of finding some
	// other server on the usual port.
	inProcessURL = "nats://in-process.invalid:4222"
)

// errDown answers clients that dial while the server is stopped.
var errDown = errors.New("natsserver: server is stopped")

// Options say what kind of server [Start] runs. The zero value is a server that
// only this process can reach.
type Options struct {
	// TCP makes the server listen on a free port of 127.0.0.1 too.
	// Default: false.
	TCP bool

	// Name is the server's name.
	// Default: nats-server makes one.
	Name string

	// Configure changes the server's options before each start, last of all.
	// Default: none.
	Configure func(*server.Options)
}

// Server is one embedded server. Its methods are safe for concurrent use.
type Server struct {
	storeDir string
	options  Options

	mu      sync.Mutex
	port    int            // 0 until the first start on TCP chose one
	running *server.Server // nil while stopped
}

// Start runs a server that keeps its streams in storeDir and returns when it
// takes connections. The end of ctx ends the start only.
func Start(ctx context.Context, storeDir string, options Options) (*Server, error) {
	s := &Server{storeDir: storeDir, options: options}
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Restart stops the server where it runs and starts it again with the same
// streams, port and address. Clients that are set to reconnect do so.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("natsserver: start: %w", err)
	}
	if s.options.TCP && s.port == 0 {
		ports, err := FreePorts(1)
		if err != nil {
			return err
		}
		s.port = ports[0]
	}
	started, err := server.NewServer(s.configuration())
	if err != nil {
		return fmt.Errorf("natsserver: configure: %w", err)
	}
	started.Start()
	if !started.ReadyForConnections(readyTimeout) {
		started.Shutdown()
		started.WaitForShutdown()
		return fmt.Errorf("natsserver: start: not ready for connections after %s", readyTimeout)
	}
	if address, ok := started.Addr().(*net.TCPAddr); ok {
		s.port = address.Port
	}
	s.running = started
	return nil
}

// configuration is made anew for each start, because a server writes into the
// options it is given.
func (s *Server) configuration() *server.Options {
	options := &server.Options{
		ServerName:        s.options.Name,
		Host:              loopback,
		Port:              server.RANDOM_PORT,
		DontListen:        !s.options.TCP,
		JetStream:         true,
		StoreDir:          s.storeDir,
		JetStreamMaxStore: storeLimit,
		NoLog:             true,
		NoSigs:            true, // signals belong to the program around us
	}
	if s.port != 0 {
		options.Port = s.port
	}
	if s.options.Configure != nil {
		s.options.Configure(options)
	}
	return options
}

// Stop shuts the server down and returns when it is gone. Its streams stay for
// [Server.Restart]. A second Stop does nothing.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// Wipe removes all that the server has stored, as a new machine in the place of a
// lost one has it. The server must be stopped; [Server.Restart] starts it empty.
func (s *Server) Wipe() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return errors.New("natsserver: wipe: the server runs; stop it first")
	}
	if err := os.RemoveAll(s.storeDir); err != nil {
		return fmt.Errorf("natsserver: wipe: %w", err)
	}
	return nil
}

func (s *Server) stop() {
	if s.running == nil {
		return
	}
	s.running.Shutdown()
	s.running.WaitForShutdown()
	s.running = nil
}

// StoreDir is where the streams are kept; while the server is stopped a caller
// may copy and change what is in it.
func (s *Server) StoreDir() string { return s.storeDir }

// URL is the address for clients. That of a server without TCP works together
// with [Server.Option] only.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port == 0 {
		return inProcessURL
	}
	return fmt.Sprintf("nats://%s:%d", loopback, s.port)
}

// Option makes a client connect over an in-memory pipe, to whichever server
// runs at the time: it goes on after a Restart.
func (s *Server) Option() nats.Option { return nats.InProcessServer(s) }

// InProcessConn opens one end of an in-memory pipe to the server; it is what
// nats.go calls for [Server.Option].
func (s *Server) InProcessConn() (net.Conn, error) {
	running := s.Native()
	if running == nil {
		return nil, errDown
	}
	return running.InProcessConn()
}

// Native is the nats-server itself, for its monitoring calls, or nil while it is
// stopped. Each Restart makes another one.
func (s *Server) Native() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}
