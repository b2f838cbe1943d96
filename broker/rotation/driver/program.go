// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/broker"
)

// Program is one that the exec driver may run. It is the operator's word: whoever
// writes a provider's settings chooses among programs and passes no argument.
type Program struct {
	// Path is absolute. The file, and each folder above it, belongs to root or to
	// the server's user, and nobody else may write to it.
	Path string
	// Args are given to it. They stand in the list of processes: no secrets.
	Args []string
	// Actions are what it can do beside setting: "kick", "inspect".
	Actions []string
	// Firms are whose providers may use it; empty: all.
	Firms []broker.ID
}

// check reports why the program must not be run.
func (p *Program) check() error {
	if !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path {
		return errors.New("the program's path must be absolute and clean")
	}
	for _, action := range p.Actions {
		if action != actionKick && action != actionInspect {
			return fmt.Errorf("there is no action %q: use %s or %s", action, actionKick, actionInspect)
		}
	}
	info, err := os.Lstat(p.Path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is no program", p.Path)
	}
	if err := onlyOurs(p.Path, info); err != nil {
		return err
	}
	for dir := filepath.Dir(p.Path); ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if err := onlyOurs(dir, info); err != nil {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// onlyOurs wants a file or folder that nobody else can change. In a folder with
// the sticky bit others can make files, and not take ours away.
func onlyOurs(path string, info os.FileInfo) error {
	sticky := info.IsDir() && info.Mode()&os.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Errorf("%s can be written by others", path)
	}
	if !ownerIsTrusted(info) {
		return fmt.Errorf("%s belongs to somebody else", path)
	}
	return nil
}
