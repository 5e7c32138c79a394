package pgserver_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

// victimEnv makes the test binary start a server, name it and wait for its end.
const victimEnv = "PGSERVER_TEST_VICTIM"

// victim is the other process: "pid directory" on standard output once the server
// runs, then it waits for the end of its input.
func victim(mode string) int {
	s, err := pgserver.Start(context.Background(), pgserver.Options{CachedInit: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	pid := s.PID()
	if mode == "crashed" {
		if err := s.Kill9(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println(pid, s.Dir())
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

func TestServerVanishesWithItsProcess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode string
		end  func(*exec.Cmd) error
	}{
		"killed":           {"running", func(c *exec.Cmd) error { return c.Process.Kill() }},
		"killed, crashed":  {"crashed", func(c *exec.Cmd) error { return c.Process.Kill() }},
		"interrupted":      {"running", func(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) }},
		"exited by itself": {"running", func(c *exec.Cmd) error { return c.Stdin.(*os.File).Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reader, writer, err := os.Pipe()
			require.NoError(t, err)
			defer writer.Close()
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), victimEnv+"="+c.mode)
			command.Stdin = reader
			// A group of its own, as a shell gives the programs it starts.
			command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := command.StdoutPipe()
			require.NoError(t, err)
			command.Stderr = command.Stdout
			require.NoError(t, command.Start())
			require.NoError(t, reader.Close())
			command.Stdin = writer // for the case that closes it

			output := bufio.NewScanner(out)
			require.True(t, output.Scan())
			first, dir, _ := strings.Cut(output.Text(), " ")
			pid, err := strconv.Atoi(first)
			require.NoError(t, err, output.Text())
			require.NoError(t, c.end(command))

			// The end of output comes only when nobody holds it any more, and
			// "go test" waits for it.
			require.False(t, output.Scan(), output.Text())
			_ = command.Wait() // its status is the signal's
			requireGone(t, pid, dir)
		})
	}
}
