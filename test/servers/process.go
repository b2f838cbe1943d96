// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// How long a server may take to start, to end by itself, and to vanish once
// killed.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	killTimeout  = 30 * time.Second
)

// process is a server in the foreground, leader of a process group that its
// own children stay in.
type process struct {
	pid  int
	done chan struct{} // closed once it was waited for
	err  error         // how it ended; valid after done
}

// startProcess starts a program whose output goes to the file logPath.
func startProcess(logPath string, path string, args ...string) (*process, error) {
	return startProcessIn(logPath, surroundings{}, path, args...)
}

// surroundings are what a program finds when it starts: variables added to the
// environment, and whom it runs as, if not as the test does.
type surroundings struct {
	env  []string
	user *syscall.Credential
}

// startProcessIn is startProcess with other surroundings. The kernel ends it
// should the test process die: that signal is tied to the thread that forked,
// so that thread is kept until the program has ended. A program that changes
// its user itself is not ended so: the kernel then forgets the signal.
func startProcessIn(logPath string, in surroundings, path string, args ...string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer log.Close()
		cmd := exec.Command(path, args...)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(os.Environ(), in.env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: in.user}
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// ended reports whether the program is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// suspend stops the program where it is, and returns when all of its threads
// stand still.
func (p *process) suspend() error {
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(time.Millisecond) { // the kernel has no event for this
		running, err := p.threadsRunning()
		if err != nil || running == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d threads still run", running)
		}
	}
}

// threadsRunning counts those that are not stopped (proc_pid_stat(5)).
func (p *process) threadsRunning() (n int, err error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid))
	if err != nil || len(stats) == 0 {
		return 0, errors.Join(err, errors.New("the process is gone"))
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		// The state follows the name, which is in parentheses and may hold any.
		if _, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):], []byte(" ")); !ok || state[0] != 'T' {
			n++
		}
	}
	return n, nil
}

// stop asks the program to end, and kills it when it does not.
func (p *process) stop() error {
	if !p.ended() {
		_ = syscall.Kill(p.pid, syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	return p.kill()
}

// kill ends the program and all of its children at once. Children can outlive
// their master, so the group is killed even when the master is gone.
func (p *process) kill() error {
	if err := syscall.Kill(-p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(killTimeout):
		return errors.New("the process did not die")
	}
}
