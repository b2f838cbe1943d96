// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// SocketMode is the mode of the API's socket: its owner's and root's alone.
const SocketMode fs.FileMode = 0o600

// ListenUnix listens on a Unix socket at path, with that mode. The directory
// is made with mode 0700 when it is missing, and must not be writable by
// others when it is there, since they could put a socket of their own in this
// one's place. A socket that a server left behind is removed, but only when
// nobody answers on it.
func ListenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if err := checkSocketDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// Until here the umask and the directory stood guard, and the server asks
	// each peer who it is in any case.
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

func checkSocketDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("socket's directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("socket's directory: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("socket's directory %s may be written by others (mode %#o): use one of mode 0700", dir, info.Mode().Perm())
	}
	if uid, ok := owner(info); ok && uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("socket's directory %s belongs to uid %d: use one of this user's or root's", dir, uid)
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: there is something else of that name", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("socket %s: another server answers there", path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket %s is there, and whether a server is behind it cannot be told: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket %s, left by another server: %w", path, err)
	}
	return nil
}

// peerActor returns the actor behind a Unix connection; ok is false when it
// is neither root nor uid own.
func peerActor(c *net.UnixConn, own uint32) (actor broker.Actor, ok bool, err error) {
	uid, err := peerUID(c)
	if err != nil {
		return broker.Actor{}, false, err
	}
	name := fmt.Sprintf("unix:uid=%d", uid)
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil && u.Username != "" {
		name += "(" + u.Username + ")"
	}
	return broker.Actor{Kind: "admin", Name: name}, mayManage(uid, own), nil
}

// mayManage lets root and the server's own user in.
func mayManage(uid, own uint32) bool { return uid == 0 || uid == own }

// origin puts where a connection comes from into its context.
func (s *Server) origin(ctx context.Context, c net.Conn) context.Context {
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return context.WithValue(ctx, originKey{}, origin{address: addressOf(c.RemoteAddr())})
	}
	from := origin{shut: true}
	actor, ok, err := peerActor(u, s.uid)
	switch {
	case err != nil:
		s.logger.Warn("a client of the management socket cannot be told", zap.Error(err))
	case !ok:
		s.logger.Warn("a client of the management socket was refused", zap.String("actor", actor.Name))
	default:
		from = origin{peer: &Principal{Actor: actor, Role: broker.RoleAdmin}}
	}
	return context.WithValue(ctx, originKey{}, from)
}
