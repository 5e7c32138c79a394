package pgserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// abandoned is the age from which an unfinished copy in the cache belongs to a
// process that was killed.
const abandoned = time.Hour

// cache is the place of one kept data directory. It appears in one rename and is
// never written afterwards, so that any number of processes may copy from it.
type cache struct{ dir string }

// cache names the copy for this server: another version or another way of
// making it has another name.
func (s *Server) cache() (cache, error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return cache{}, fmt.Errorf("find cache directory: %w", err)
	}
	key := sha256.Sum256([]byte(s.binaries.Version + "\x00" + strings.Join(initdbArguments(""), " ")))
	name := fmt.Sprintf("%d-%s", s.binaries.Major, hex.EncodeToString(key[:8]))
	return cache{dir: filepath.Join(home, "dataverket-messaging", "postgres", name)}, nil
}

// copyTo fills the directory to, which must not exist, from the cache. After an
// error nothing is left of it.
func (c cache) copyTo(to string, o owner) error {
	if _, err := os.Stat(c.dir); err != nil {
		return fmt.Errorf("look for cached data directory: %w", err)
	}
	if err := copyTree(c.dir, to, o.give); err != nil {
		return errors.Join(fmt.Errorf("copy cached data directory: %w", err), os.RemoveAll(to))
	}
	return nil
}

// keep puts a copy of the directory from into the cache. Of several processes
// that try at once the first wins, and the others' copies go.
func (c cache) keep(from string) error {
	parent := filepath.Dir(c.dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("make cache directory: %w", err)
	}
	removeAbandoned(parent)
	temporary, err := os.MkdirTemp(parent, "tmp-")
	if err != nil {
		return fmt.Errorf("make cache directory: %w", err)
	}
	defer os.RemoveAll(temporary)
	whole := filepath.Join(temporary, "data")
	if err := copyTree(from, whole, func(string) error { return nil }); err != nil {
		return fmt.Errorf("keep data directory: %w", err)
	}
	return os.Rename(whole, c.dir)
}

// discard removes the kept copy. The rename comes first, so that nobody copies
// from a half removed one.
func (c cache) discard() error {
	temporary, err := os.MkdirTemp(filepath.Dir(c.dir), "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	return os.Rename(c.dir, filepath.Join(temporary, "data"))
}

// removeAbandoned takes away what killed processes left unfinished.
func removeAbandoned(parent string) {
	names, _ := filepath.Glob(filepath.Join(parent, "tmp-*"))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > abandoned {
			_ = os.RemoveAll(name)
		}
	}
}

// copyTree copies directories and regular files, of which alone a new cluster
// consists, with their permissions, and hands each to its owner.
func copyTree(from, to string, give func(string) error) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			err = os.Mkdir(target, 0o700)
		} else {
			err = copyFile(path, target)
		}
		if err != nil {
			return err
		}
		return give(target)
	})
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}
