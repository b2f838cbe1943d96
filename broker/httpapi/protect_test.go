// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// TestPanicsAreAnswered: a fault before the answer is a problem that tells
// nothing, one within it cuts the connection.
func TestPanicsAreAnswered(t *testing.T) {
	a := &api{Config: Config{Logger: zap.NewNop(), Now: time.Now}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /before", func(http.ResponseWriter, *http.Request) { panic("a secret cause") })
	mux.HandleFunc("GET /within", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"half":`))
		panic("a secret cause")
	})
	handler := a.protect(mux)
	request := func(path string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		return r.WithContext(WithPrincipal(r.Context(), &Principal{Actor: broker.Actor{Kind: "admin"}, Role: broker.RoleAdmin}))
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request("/before"))
	if answer.Code != http.StatusInternalServerError || strings.Contains(answer.Body.String(), "secret") {
		t.Errorf("before: %d %s", answer.Code, answer.Body)
	}
	defer func() {
		if fault := recover(); fault != http.ErrAbortHandler {
			t.Errorf("within: %v", fault)
		}
	}()
	handler.ServeHTTP(httptest.NewRecorder(), request("/within"))
}
