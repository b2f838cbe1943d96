// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// postern runs the command line and returns its exit code and output.
func postern(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// initialised makes a data directory, with listeners on free ports.
func initialised(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "postern")
	code, _, stderr := postern(t, "init", "--dir", dir, "--hostname", "mail.postern.example", "--hostname", "127.0.0.1",
		"--imaps", "127.0.0.1:0", "--submissions", "127.0.0.1:0", "--api", "127.0.0.1:0")
	if code != exitOK {
		t.Fatalf("init: exit code %d: %s", code, stderr)
	}
	return dir
}

func TestInitMakesWhatServeNeeds(t *testing.T) {
	dir := initialised(t)
	secret := map[string]bool{
		"app-password.key": true, "credentials.key": true, "credentials.age": true,
		"workstation-ca/workstation-ca.key": true, "tls/server.key": true, "admin.token": true,
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch mode := info.Mode().Perm(); {
		case d.IsDir() && mode != 0o700:
			t.Errorf("%s has mode %04o", name, mode)
		case secret[name] && mode != 0o600:
			t.Errorf("%s has mode %04o", name, mode)
		}
		delete(secret, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(secret) > 0 {
		t.Errorf("not made: %v", secret)
	}
	key, err := os.ReadFile(filepath.Join(dir, "app-password.key"))
	if err != nil {
		t.Fatal(err)
	}
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Errorf("the app passwords' key has %d octets, or none of them is random", len(key))
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls/server.pem"), filepath.Join(dir, "tls/server.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mail.postern.example", "127.0.0.1"} {
		if err := pair.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	code, stdout, stderr := postern(t, "serve", "--config", filepath.Join(dir, "postern.yaml"), "--check")
	if code != exitOK || !strings.Contains(stdout, "is good") {
		t.Errorf("serve --check: exit code %d: %s", code, stderr)
	}
}

// Each command that init prints must be one, with flags that exist.
func TestInitPrintsCommandsThatExist(t *testing.T) {
	o := initOptions{program: "postern", dir: "/srv/a b", hostnames: []string{"mail.postern.example"}, imaps: ":993", submissions: ":465"}
	var out bytes.Buffer
	o.tell(&out)
	text := strings.ReplaceAll(out.String(), "\\\n", "")
	if !strings.Contains(text, "postern serve --config '/srv/a b/postern.yaml'") {
		t.Errorf("the path is not quoted in:\n%s", text)
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, `"Acme Pumps"`, "acme"), "'/srv/a b/postern.yaml'", "x")
	n := 0
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "  postern ")
		if !ok {
			continue
		}
		n++
		cmd, args, err := newCommand().Find(strings.Fields(rest))
		if err != nil || !cmd.HasParent() {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if cmd.Args != nil {
			if err := cmd.Args(cmd, cmd.Flags().Args()); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if n < 9 {
		t.Errorf("only %d commands in:\n%s", n, text)
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	for _, f := range (&initOptions{}).files() {
		t.Run(f.path, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			there := filepath.Join(dir, f.path)
			if err := os.MkdirAll(filepath.Dir(there), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := postern(t, "init", "--dir", dir, "--hostname", "mail.postern.example")
			if code != exitUsage || !strings.Contains(stderr, "is there already") {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			var files []string
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					files = append(files, path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(there)
			if err != nil || string(b) != "mine" || len(files) != 1 {
				t.Errorf("%q, %v; files: %v", b, err, files)
			}
		})
	}
}

// A failure half-way leaves nothing behind, so that init can be tried again.
func TestInitLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "postern")
	// Without a name there is no server certificate, and that comes late.
	o := initOptions{dir: dir, imaps: ":993", submissions: ":465"}
	if err := o.make(); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

func TestInitRefuses(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no directory":        {nil, "--dir is missing"},
		"a directory of all":  {[]string{"--dir", open, "--hostname", "mail.postern.example"}, "chmod 0700"},
		"a wrong host name":   {[]string{"--dir", "x", "--hostname", "mail postern: {}"}, "neither a host name nor"},
		"a wrong address":     {[]string{"--dir", "x", "--hostname", "a.example", "--imaps", "993"}, "--imaps: give an IP address"},
		"an argument too far": {[]string{"--dir", "x", "y"}, "one argument too many"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := postern(t, append([]string{"init"}, tc.args...)...)
			if code != exitUsage || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

// Who built it into the current directory is shown commands that work there.
func TestInitPrintsTheProgramAsItWasCalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for argument, want := range map[string]string{
		"./postern": "./postern", "/opt/my tools/postern": "'/opt/my tools/postern'", "/tmp/x/postern.test": "postern",
	} {
		if got := calledAs(argument); got != want {
			t.Errorf("%s: %s, want %s", argument, got, want)
		}
	}
	installed := t.TempDir()
	if err := os.WriteFile(filepath.Join(installed, "postern"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", installed)
	if got := calledAs("./postern"); got != "postern" {
		t.Errorf("installed: %s", got)
	}
	o := initOptions{program: "./postern", dir: "/srv", hostnames: []string{"mail.postern.example"}}
	var out bytes.Buffer
	o.tell(&out)
	if text := out.String(); strings.Contains(text, "\n  postern ") || strings.Count(text, "\n  ./postern ") < 8 {
		t.Errorf("not as it was called:\n%s", text)
	}
}
