// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// maxTokenFile bounds a token file, in octets: identity providers' tokens are
// long.
const maxTokenFile = 64 << 10

// tokenFile is a new file for a token: made before the token is, so that none
// is made that cannot be kept. Nil: the token is shown instead.
type tokenFile struct{ f *os.File }

func newTokenFile(path string) (*tokenFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, usagef("%s is there already: name another file for the token", path)
	}
	if err != nil {
		return nil, usagef("the token's file: %v", err)
	}
	return &tokenFile{f}, nil
}

// write writes the token, so that a power cut does not lose it.
func (t *tokenFile) write(token string) error {
	_, err := t.f.WriteString(token + "\n")
	return errors.Join(err, t.f.Sync(), t.f.Close())
}

// save writes the secret of an answer, and returns the answer without it: what
// goes into a file of mode 0600 is not to be in a script's output as well.
func (t *tokenFile) save(raw []byte, answer any, secret *string) ([]byte, error) {
	if t == nil {
		return raw, nil
	}
	if err := t.write(*secret); err != nil {
		return nil, err
	}
	*secret = ""
	return json.Marshal(answer)
}

// discard removes the file again, since err kept the token from being made.
func (t *tokenFile) discard(err error) error {
	if t == nil {
		return err
	}
	if left := errors.Join(t.f.Close(), os.Remove(t.f.Name())); left != nil {
		return errors.Join(err, left)
	}
	return err
}

// readTokenFile reads a token from a file that nobody else can read.
func readTokenFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", usagef("--token-file: %v", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", usagef("--token-file: %s has mode %04o: others could read the token; chmod 0600 it", path, info.Mode().Perm())
	}
	if info.Size() > maxTokenFile {
		return "", usagef("--token-file: %s is no token", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", usagef("--token-file: %v", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", usagef("--token-file: %s holds no token, or more than one", path)
	}
	return token, nil
}

// token is what the command shows the server; empty: nothing.
func (a *app) token() (string, error) {
	if a.anonymous {
		return "", nil
	}
	if a.tokenFile != "" {
		return readTokenFile(a.tokenFile)
	}
	token := os.Getenv("POSTERN_TOKEN")
	if strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("POSTERN_TOKEN is no token")
	}
	return token, nil
}
