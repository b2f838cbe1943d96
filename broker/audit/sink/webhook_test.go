// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// hook is a web service that takes CloudEvents as their specification and that of
// the signature have them, with a parser of its own.
type hook struct {
	t      testing.TB
	server *httptest.Server
	secret []byte

	mu sync.Mutex
	// answer, where set, is asked of each request before its events count.
	answer func(n int, w http.ResponseWriter) (taken bool)
	asked  int
	took   []broker.ID
	wrong  []string
}

var hookSecret = []byte("0123456789abcdef0123456789abcdef")

func newHook(t testing.TB) *hook {
	h := &hook{t: t, secret: hookSecret}
	h.server = httptest.NewTLSServer(h)
	h.server.Config.ErrorLog = nil
	t.Cleanup(h.server.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	ids, err := h.read(r, body)
	if err != nil {
		h.wrong = append(h.wrong, err.Error())
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	h.asked++
	if h.answer != nil && !h.answer(h.asked, w) {
		return
	}
	h.took = append(h.took, ids...)
	w.WriteHeader(http.StatusAccepted)
}

// read checks a request and returns the ids of its events.
func (h *hook) read(r *http.Request, body []byte) (ids []broker.ID, err error) {
	id, stamp := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return nil, fmt.Errorf("the timestamp %q", stamp)
	}
	mac := hmac.New(sha256.New, h.secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	good := false
	for _, s := range strings.Split(r.Header.Get("webhook-signature"), " ") {
		version, signature, _ := strings.Cut(s, ",")
		sum, err := base64.StdEncoding.DecodeString(signature)
		good = good || err == nil && version == "v1" && hmac.Equal(sum, mac.Sum(nil))
	}
	if !good || id == "" || r.Method != http.MethodPost {
		return nil, errors.New("the signature is not good")
	}
	var events []map[string]any
	switch r.Header.Get("content-type") {
	case "application/cloudevents+json; charset=utf-8":
		var one map[string]any
		err = json.Unmarshal(body, &one)
		events = append(events, one)
	case "application/cloudevents-batch+json; charset=utf-8":
		err = json.Unmarshal(body, &events)
	default:
		err = errors.New("the content type")
	}
	for _, e := range events {
		if err := errors.Join(err, cloudEventFault(e)); err != nil {
			return nil, err
		}
		ids = append(ids, broker.ID(e["id"].(string)))
	}
	return ids, err
}

// cloudEventFault checks the context attributes by CloudEvents 1.0 §3.
func cloudEventFault(e map[string]any) error {
	for name, value := range e {
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return fmt.Errorf("the attribute %s", name)
		}
		if text, ok := value.(string); name != "data" && (!ok || text == "") {
			return fmt.Errorf("the attribute %s is %v", name, value)
		}
	}
	data, ok := e["data"].(map[string]any)
	source, _ := e["source"].(string)
	if e["specversion"] != "1.0" || !strings.HasPrefix(source, "//mail.postern.example/logs/") || e["type"] != "postern."+fmt.Sprint(data["type"]) ||
		e["datacontenttype"] != "application/json" || !ok || data["id"] != e["id"] {
		return fmt.Errorf("the event %v", e)
	}
	_, err := time.Parse(time.RFC3339Nano, e["time"].(string))
	return err
}

func (h *hook) all() []broker.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		h.t.Errorf("the service refused what it was sent: %v", h.wrong)
		h.wrong = nil
	}
	return slices.Clone(h.took)
}

// webhook makes a receiver for it.
func (h *hook) webhook(batched bool, timeout time.Duration) *Webhook {
	h.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(h.server.Certificate())
	w, err := NewWebhook(WebhookConfig{
		URL: h.server.URL + "/events?token=known", Batched: batched, Source: "//mail.postern.example/logs/", Format: JSON, Timeout: timeout,
		Secret: func() (broker.Secret, error) {
			other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("o"), 32))
			return broker.NewSecret([]byte("whsec_" + other + "\nwhsec_" + base64.StdEncoding.EncodeToString(hookSecret) + "\n")), nil
		},
		TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, w.Close()) })
	return w
}

// TestWebhook: a service that answers 500, hangs, cuts its answers off and goes
// gets all events of all logs, signed, in each log's order.
func TestWebhook(t *testing.T) {
	for name, batched := range map[string]bool{"structured": false, "batched": true} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t)
			h.answer = func(n int, w http.ResponseWriter) bool {
				switch n % 7 {
				case 1:
					http.Error(w, "not now", http.StatusInternalServerError)
				case 2:
					w.Header().Set("Location", "https://elsewhere.example/")
					w.WriteHeader(http.StatusFound)
				case 3: // it hangs up without an answer
					conn, _, err := w.(http.Hijacker).Hijack()
					if err == nil {
						_ = conn.Close()
					}
				case 4: // an answer that is cut off
					w.Header().Set("Content-Length", "1000")
					_, _ = io.WriteString(w, "half")
					return true
				case 5:
					http.Error(w, "slower", http.StatusTooManyRequests)
				default:
					return true
				}
				return false
			}
			h.server.TLS.NextProtos = nil
			w := newWorld(t, 3)
			for _, log := range w.firms {
				w.append(log, numbered("x", 15)...)
			}
			w.start("a", quick(), Sink{Name: "hook", Receiver: h.webhook(batched, patience), FromStart: true})
			for _, log := range w.firms {
				w.append(log, numbered("y", 5)...)
			}
			soon(t, "all was delivered", func() bool { return unique(h.all()) == 60 })
			for _, log := range w.firms {
				want := w.ids(log)
				var got []broker.ID
				for _, id := range h.all() {
					if slices.Contains(want, id) && !slices.Contains(got, id) {
						got = append(got, id)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("the order of a log: %v, not %v", got, want)
				}
			}
		})
	}
}

func unique(ids []broker.ID) int {
	slices.Sort(ids)
	return len(slices.Compact(ids))
}

// TestWebhookIDOfAnotherBatch: a service that passes over requests whose webhook-id
// it knows loses nothing when its answer is lost, and there is more to send the next
// time.
func TestWebhookIDOfAnotherBatch(t *testing.T) {
	h, w := newHook(t), newWorld(t, 2)
	known := make(map[string]bool)
	var mu sync.Mutex
	h.server.Config.Handler = http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if id := r.Header.Get("webhook-id"); !known[id] {
			h.ServeHTTP(httptest.NewRecorder(), r)
			known[id] = true
		}
		if len(known) == 1 {
			w.append(w.firms[0], numbered("more", 10)...)
			http.Error(to, "what is behind was too slow", http.StatusGatewayTimeout)
		}
	})
	for _, log := range w.firms {
		w.append(log, numbered("x", 300)...)
	}
	w.start("a", quick(), Sink{Name: "hook", Receiver: h.webhook(true, patience), FromStart: true})
	soon(t, "both logs were delivered", func() bool { return slices.Contains(h.all(), w.ids(w.firms[1])[299]) })
	if n := unique(h.all()); n != 610 {
		t.Errorf("%d events", n)
	}
}

// TestWebhookBehindAFilter: an event that a filter before the service takes for an
// attack, such as one with a stranger's Message-ID, keeps up no others for ever.
func TestWebhookBehindAFilter(t *testing.T) {
	h, w := newHook(t), newWorld(t, 1)
	h.server.Config.Handler = http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || bytes.Contains(body, []byte("/etc/passwd")) {
			http.Error(to, "blocked", http.StatusForbidden)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(to, r)
	})
	w.append(w.firms[0], append(numbered("x", 20), append(numbered("../../etc/passwd", 1), numbered("y", 20)...)...)...)
	w.start("a", quick(), Sink{Name: "hook", Receiver: h.webhook(true, patience), FromStart: true, Filter: Filter{Firm: &w.firms[0]}})
	soon(t, "the others were delivered", func() bool { return unique(h.all()) == 40 })
}

// TestWebhookThatHangs: a request ends by itself, as an outage.
func TestWebhookThatHangs(t *testing.T) {
	h := newHook(t)
	release := make(chan struct{})
	h.answer = func(int, http.ResponseWriter) bool { <-release; return true }
	w := h.webhook(true, 50*time.Millisecond)
	n, err := w.Deliver(ctx, some(t, 3))
	close(release)
	var timeout net.Error
	if n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() || strings.Contains(err.Error(), "token=known") {
		t.Errorf("%d, %v", n, err)
	}
}

// TestWebhookRefusals: which answers are about the events, and which an outage.
func TestWebhookRefusals(t *testing.T) {
	for status, refuses := range map[int]bool{
		400: true, 413: true, 415: true, 422: true, 403: true, 406: true, 401: false, 404: false, 408: false, 410: false, 429: false, 500: false, 503: false, 301: false, 307: false,
	} {
		h := newHook(t)
		h.answer = func(_ int, w http.ResponseWriter) bool { w.WriteHeader(status); return false }
		for _, batched := range []bool{false, true} {
			n, err := h.webhook(batched, patience).Deliver(ctx, some(t, 3))
			var refused *RefusedError
			if n != 0 || err == nil || errors.As(err, &refused) != refuses || refuses && batched != (refused.Events == 3) {
				t.Errorf("%d, batched %v: %d, %v", status, batched, n, err)
			}
			if h.asked > 2 {
				t.Errorf("%d was followed or tried again", status)
			}
		}
	}
}

// TestWebhookChecksItsService: another's certificate, and a secret that is none.
func TestWebhookChecksItsService(t *testing.T) {
	h := newHook(t)
	w := h.webhook(true, patience)
	w.cfg.TLS = nil
	other, err := NewWebhook(w.cfg)
	must(t, err)
	var untrusted *tls.CertificateVerificationError
	if n, err := other.Deliver(ctx, some(t, 1)); n != 0 || !errors.As(err, &untrusted) {
		t.Errorf("a certificate of an unknown CA: %d, %v", n, err)
	}
	for _, secret := range []string{"", "\n", "whsec_", "hunter2", "whsec_c2hvcnQ=", base64.StdEncoding.EncodeToString(hookSecret), "whsec_!" + base64.StdEncoding.EncodeToString(hookSecret)} {
		w.cfg.Secret = func() (broker.Secret, error) { return broker.NewSecret([]byte(secret)), nil }
		if err := w.Check(); err == nil {
			t.Errorf("the secret %q", secret)
		}
		if n, err := w.Deliver(context.Background(), some(t, 1)); n != 0 || err == nil {
			t.Errorf("the secret %q: %d, %v", secret, n, err)
		}
	}
	if got := h.all(); len(got) != 0 {
		t.Errorf("it was sent %v", got)
	}
}
