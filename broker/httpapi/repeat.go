// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// repeatHeader names a request that its sender may repeat without its being
	// done twice (draft-ietf-httpapi-idempotency-key-header).
	repeatHeader = "Idempotency-Key"
	// repeatedHeader says that an answer is the first one's.
	repeatedHeader = "Idempotent-Replayed"
	// repeatTime bounds the notes about a request that is done.
	repeatTime = 10 * time.Second
)

// once serves a POST with an Idempotency-Key once, and repeats its answer. What
// fails because of its input can be sent again with the same key. What was cut
// off, or ended in a fault of the server's, is never done again under its key:
// it may have been done.
func (a *api) once(w http.ResponseWriter, r *http.Request, p *Principal, secret bool, next http.Handler) {
	caller := string(p.Actor.ID)
	if caller == "" {
		caller = p.Actor.Name // root's, on the Unix socket
	}
	if caller == "" {
		a.refuse(w, broker.Errorf(broker.Invalid, "%s needs somebody whose key it is", repeatHeader))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		writeProblem(w, newProblem(status, broker.Invalid, "the body cannot be read"))
		return
	}
	defer clear(body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	fingerprint := sha256.New()
	for _, part := range [][]byte{[]byte(r.Method), []byte(r.URL.RequestURI()), body} {
		sum := sha256.Sum256(part)
		fingerprint.Write(sum[:])
	}
	key := broker.RepeatKey{Caller: caller, Key: r.Header.Get(repeatHeader), Fingerprint: fingerprint.Sum(nil)}
	first, err := a.Repeats.BeginRequest(r.Context(), key)
	switch {
	case err != nil:
		a.refuse(w, err)
		return
	case first == nil:
	case !first.Done:
		a.refuse(w, broker.Errorf(broker.Conflict, "the first request with this key is under way, or its outcome is not known: look before you send another"))
		return
	case first.Body == nil:
		a.refuse(w, broker.Errorf(broker.Conflict, "this was done, and its answer was shown once: it held a secret"))
		return
	default:
		w.Header().Set(repeatedHeader, "true")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(first.Status)
		_, _ = w.Write(first.Body)
		return
	}
	kept := &keepingWriter{ResponseWriter: w}
	next.ServeHTTP(kept, r)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), repeatTime)
	defer cancel()
	switch status := kept.status; {
	case status >= 200 && status < 300:
		answer := broker.FirstAnswer{Done: true, Status: status, Body: kept.body.Bytes()}
		if secret {
			answer.Body = nil
		}
		err = a.Repeats.EndRequest(ctx, key, answer)
	case status >= 400 && status < 500:
		err = a.Repeats.ForgetRequest(ctx, key)
	}
	if err != nil {
		a.Logger.Error("what a request came to was not noted", zap.Error(err))
	}
}

// keepingWriter keeps what passes.
type keepingWriter struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *keepingWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *keepingWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (w *keepingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
