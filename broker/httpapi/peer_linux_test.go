// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMayManage(t *testing.T) {
	for _, test := range []struct {
		uid, own uint32
		want     bool
	}{{0, 0, true}, {0, 990, true}, {990, 990, true}, {1000, 990, false}, {65534, 0, false}} {
		if got := mayManage(test.uid, test.own); got != test.want {
			t.Errorf("uid %d at a server of uid %d: %v", test.uid, test.own, got)
		}
	}
}

// TestPeerIsTheKernelsWord connects as the test's own user and, where the test
// may, as another, over a socket that lets anybody connect.
func TestPeerIsTheKernelsWord(t *testing.T) {
	own := uint32(os.Geteuid())
	uids := []uint32{own}
	if own == 0 {
		uids = append(uids, 65534)
	}
	dir, err := os.MkdirTemp("/tmp", "peer") // t.TempDir's parents may shut others out
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(filepath.Join(dir, "s"), 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, uid := range uids {
		dialled := make(chan error, 1)
		go func() {
			// The thread keeps the uid, and ends with this goroutine.
			runtime.LockOSThread()
			if uid != own {
				if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
					dialled <- errno
					return
				}
			}
			c, err := net.Dial("unix", l.Addr().String())
			if err == nil {
				err = c.Close()
			}
			dialled <- err
		}()
		if err := <-dialled; err != nil {
			t.Fatalf("uid %d: %v", uid, err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		actor, ok, err := peerActor(c.(*net.UnixConn), own)
		if err != nil || ok != (uid == own) {
			t.Errorf("uid %d: %+v, %v, %v", uid, actor, ok, err)
		}
		_ = c.Close()
	}
}
