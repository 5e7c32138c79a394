package pgserver

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// MinMajor is the oldest PostgreSQL major version that is accepted.
const MinMajor = 14

const (
	// EnvBin names the directory that holds initdb and postgres. Where it is
	// set nothing else is searched, and an unusable directory is an error.
	EnvBin = "DVMSG_POSTGRES_BIN"
	// EnvSearch replaces PATH and the usual places by patterns of its own,
	// separated by colons.
	EnvSearch = "DVMSG_POSTGRES_SEARCH"
)

// ErrNotInstalled is wrapped by [Find] and [Start] when no usable server
// binaries are on the machine. The whole text names the command to run.
var ErrNotInstalled = errors.New("no PostgreSQL 14 or newer server binaries found")

//go:embed places.txt
var places string

// Binaries are the server binaries of one PostgreSQL installation.
type Binaries struct {
	// Dir is the directory that holds initdb and postgres.
	Dir string
	// Major is the major version, 15 for 15.18.
	Major int
	// Version is what "postgres --version" prints, for example
	// "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
	Version string
}

// Find returns the newest installed PostgreSQL server of version [MinMajor] or
// newer. It looks at [EnvBin] alone where that is set, else on PATH and in the
// usual places of Linux distributions and macOS. An installation whose
// binaries cannot be run is passed over.
func Find(ctx context.Context) (Binaries, error) {
	found, err := find(ctx)
	if ctx.Err() != nil {
		// Nothing that failed meanwhile says anything about the machine.
		return Binaries{}, fmt.Errorf("pgserver: find server: %w", context.Cause(ctx))
	}
	return found, err
}

func find(ctx context.Context) (Binaries, error) {
	if dir := os.Getenv(EnvBin); dir != "" {
		found, err := inspect(ctx, dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("pgserver: use %s=%s: %w: point it at the directory that holds initdb and postgres", EnvBin, dir, err)
		}
		return found, nil
	}
	var best Binaries
	for _, dir := range candidates() {
		// Not every directory is an installation, and a half removed one
		// must not hide a good one: what cannot be used is passed over.
		if found, err := inspect(ctx, dir); err == nil && found.Major > best.Major {
			best = found
		}
	}
	if best.Dir == "" {
		return Binaries{}, fmt.Errorf("pgserver: find server: %w: run %q, or set %s", ErrNotInstalled, installCommand(), EnvBin)
	}
	return best, nil
}

// candidates lists the directories to look into, PATH first: of two equal
// versions the first one wins, and PATH is what the user chose.
func candidates() []string {
	patterns := strings.FieldsFunc(places, func(r rune) bool { return r == '\n' })
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if search, set := os.LookupEnv(EnvSearch); set {
		patterns, dirs = filepath.SplitList(search), nil
	}
	for _, pattern := range patterns {
		if strings.HasPrefix(pattern, "#") {
			continue
		}
		// The only error is a malformed pattern, which then matches nothing.
		matches, _ := filepath.Glob(pattern)
		dirs = append(dirs, matches...)
	}
	return dirs
}

// inspect checks that dir holds a usable installation. The files are looked at
// before one is run, because most directories of a PATH hold neither.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Binaries{}, err
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("run postgres --version: %w", err)
	}
	version := strings.TrimSpace(string(out))
	major, err := parseMajor(version)
	if err != nil {
		return Binaries{}, err
	}
	if major < MinMajor {
		return Binaries{}, fmt.Errorf("version %d is older than %d", major, MinMajor)
	}
	return Binaries{Dir: dir, Major: major, Version: version}, nil
}

// parseMajor reads the major version from "postgres (PostgreSQL) 15.18 …",
// "… 18beta1" and "… 19devel".
func parseMajor(version string) (int, error) {
	digits := regexp.MustCompile(`\) (\d{1,4})`).FindStringSubmatch(version)
	if digits == nil {
		return 0, fmt.Errorf("read version %.80q: no number after the product name", version)
	}
	return strconv.Atoi(digits[1])
}

// installCommand is the one command that installs the server on this machine,
// chosen by the package manager that is there.
func installCommand() string {
	for _, manager := range []struct{ name, command string }{
		{"apt-get", "sudo apt-get install -y postgresql"},
		{"dnf", "sudo dnf install -y postgresql-server"},
		{"apk", "sudo apk add postgresql"},
		{"pacman", "sudo pacman -S postgresql"},
		{"brew", "brew install postgresql@17"},
	} {
		if _, err := exec.LookPath(manager.name); err == nil {
			return manager.command
		}
	}
	return "install the postgresql server package"
}
