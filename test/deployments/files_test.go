// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// deployed is the path of a file of deployments/.
func deployed(parts ...string) string {
	return filepath.Join(append([]string{"..", "..", "deployments"}, parts...)...)
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
