// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/servers"
)

// TestContainerfile: what it copies is enough to build from, what it builds
// needs nothing else in the image, and it does not run as root.
func TestContainerfile(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	source := servers.TempDir(t)
	out := filepath.Join(source, "out")
	made := map[string]string{} // in the first stage, by path
	user, built := "", false
	for _, line := range strings.Split(read(t, deployed("container", "Containerfile")), "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "USER":
			user = words[1]
		case words[0] == "COPY" && !strings.HasPrefix(words[1], "--"):
			for _, name := range words[1 : len(words)-1] {
				if msg, err := exec.Command("cp", "-a", filepath.Join(root, name), source).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", line, err, msg)
				}
			}
		case words[0] == "COPY":
			from := words[len(words)-2]
			if strings.HasPrefix(from, "/out/") && made[from] == "" {
				t.Errorf("%s: nothing makes it", line)
			}
		case words[0] == "RUN" && strings.HasPrefix(words[1], "mkdir"):
			made[words[len(words)-1]] = line
		case words[0] == "RUN" && strings.Contains(line, "go build"):
			built = true
			made["/out/postern"] = line
			cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(strings.TrimPrefix(line, "RUN "), "/out/", out+"/"))
			cmd.Dir = source
			cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
			if msg, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, msg)
			}
		}
	}
	if uid, gid, ok := strings.Cut(user, ":"); !ok || uid == "0" || gid == "0" || strings.Trim(uid+gid, "0123456789") != "" {
		t.Errorf("USER %q: want numbers, not root's: scratch has no /etc/passwd", user)
	}
	if !built {
		t.Fatal("nothing is built")
	}
	binary, err := elf.Open(filepath.Join(out, "postern"))
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, program := range binary.Progs {
		if program.Type == elf.PT_INTERP {
			t.Error("the binary is not static: scratch has no loader")
		}
	}
}
