package pgserver

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// superuser is the database role that every cluster is made with.
const superuser = "postgres"

// maxDir is the longest directory whose socket path fits everywhere: 107 bytes
// on Linux, 103 on macOS, less the socket's name.
const maxDir = 103 - len("/.s.PGSQL."+socketPort)

// nobody owns the server where root has no user postgres to hand it to.
const nobody = 65534

// owner is the user that the server runs as; the zero value is ourselves.
type owner struct {
	switched bool
	uid, gid uint32
}

// currentOwner is ourselves, or for root the unprivileged user that PostgreSQL
// insists on.
func currentOwner() owner {
	if os.Geteuid() != 0 {
		return owner{}
	}
	if found, err := user.Lookup("postgres"); err == nil {
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if errors.Join(uidErr, gidErr) == nil {
			return owner{switched: true, uid: uint32(uid), gid: uint32(gid)}
		}
	}
	return owner{switched: true, uid: nobody, gid: nobody}
}

// credential is for the process attributes of a child; nil means our own user.
func (o owner) credential() *syscall.Credential {
	if !o.switched {
		return nil
	}
	return &syscall.Credential{Uid: o.uid, Gid: o.gid}
}

// give hands a file to the owner.
func (o owner) give(name string) error {
	if !o.switched {
		return nil
	}
	return os.Lchown(name, int(o.uid), int(o.gid))
}

// mkdir makes the server's directory below parent, for the owner alone.
func (o owner) mkdir(parent string) (string, error) {
	dir, err := os.MkdirTemp(o.usable(parent), "dvpg-")
	if err != nil {
		return "", fmt.Errorf("make server directory: %w", err)
	}
	if len(dir) > maxDir {
		return "", errors.Join(fmt.Errorf("server directory %s is longer than the %d bytes a socket path allows", dir, maxDir), os.Remove(dir))
	}
	if err := o.give(dir); err != nil {
		return "", errors.Join(fmt.Errorf("hand over server directory: %w", err), os.Remove(dir))
	}
	return dir, nil
}

// usable returns parent, or /tmp where parent would make the socket path too
// long or the owner could not enter it.
func (o owner) usable(parent string) string {
	absolute, err := filepath.Abs(parent)
	if err != nil || len(absolute)+len("/dvpg-4294967295") > maxDir || !o.mayEnter(absolute) {
		return "/tmp"
	}
	return absolute
}

// mayEnter says whether the owner, when it is not ourselves, may pass through
// dir and everything above it: for example nothing below /root is.
func (o owner) mayEnter(dir string) bool {
	if !o.switched {
		return true
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
