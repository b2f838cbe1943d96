// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write openapi.json anew")

func TestOpenAPIDocumentIsCurrent(t *testing.T) {
	c := start(t)
	status, _, served := c.do(http.MethodGet, "/v1/openapi.json", "")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if *update {
		if err := os.WriteFile("openapi.json", served, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, served) {
		t.Fatal("openapi.json is not what the server serves: go test ./broker/httpapi -run OpenAPI -update")
	}
}

// TestNoRouteReadsACredential holds the document against the promise: nothing
// is read under /credential, and no answer's schema has a member for secrets.
func TestNoRouteReadsACredential(t *testing.T) {
	c := start(t)
	_, _, served := c.do(http.MethodGet, "/v1/openapi.json", "")
	var document struct {
		OpenAPI    string                                `json:"openapi"`
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					WriteOnly bool `json:"writeOnly"`
				} `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(served, &document); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(document.OpenAPI, "3.1") || len(document.Paths) < 20 {
		t.Fatalf("OpenAPI %s with %d paths", document.OpenAPI, len(document.Paths))
	}
	for path, methods := range document.Paths {
		if _, reads := methods["get"]; reads && strings.Contains(path, "credential") {
			t.Errorf("GET %s", path)
		}
	}
	for name, schema := range document.Components.Schemas {
		if p, ok := schema.Properties["secret"]; ok && !p.WriteOnly {
			t.Errorf("%s has a secret that can be read", name)
		}
		if _, ok := schema.Properties["hash"]; ok {
			t.Errorf("%s has a hash", name)
		}
	}
}
