// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// protect is what stands before every route: a principal, a body limit, answers
// that no cache keeps, problems for unknown paths, one log line per request
// (route and status, never path, query or body), and recovery.
func (a *api) protect(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := a.Now()
		out := &statusWriter{ResponseWriter: w}
		route := "unknown"
		by := &Principal{}
		defer func() {
			fault := recover()
			if fault != nil {
				a.Logger.Error("request failed", zap.String("route", route), zap.String("panic", fmt.Sprint(fault)), zap.Stack("stack"))
			}
			begun := out.status != 0
			if fault != nil && !begun {
				writeProblem(out, newProblem(http.StatusInternalServerError, broker.Internal, "internal error"))
			}
			a.Logger.Debug("request", zap.String("route", route), zap.Int("status", out.status),
				zap.String("actor", by.Actor.Name), zap.Duration("took", a.Now().Sub(started)))
			if fault != nil && begun {
				// Half an answer must not look like a whole one.
				panic(http.ErrAbortHandler)
			}
		}()
		out.Header().Set("Cache-Control", "no-store")
		out.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(out, r.Body, MaxBodyBytes)
		_, pattern := mux.Handler(r)
		p, err := a.identify(r, a.public[pattern])
		if err != nil {
			a.refuse(out, err)
			return
		}
		by = p
		r = r.WithContext(WithPrincipal(r.Context(), p))
		if pattern == "" {
			a.unknownRoute(out, r, mux)
			return
		}
		route = pattern
		if r.Method == http.MethodPost && r.Header.Get(repeatHeader) != "" {
			a.once(out, r, p, a.secret[pattern], mux)
			return
		}
		mux.ServeHTTP(out, r)
	})
}

// refuse answers whoever is not let in.
func (a *api) refuse(w http.ResponseWriter, err error) {
	code := broker.CodeOf(err)
	status := statusOf(code)
	if code == broker.Denied {
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750 §3
	}
	var wait *waitError
	if errors.As(err, &wait) {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.wait/time.Second)+1))
	}
	if code == broker.Internal || code == broker.Unavailable {
		a.Logger.Error("who makes a request cannot be told", zap.Error(err))
	}
	writeProblem(w, newProblem(status, code, broker.PublicText(err)))
}

// unknownRoute answers as the mux would, but with a problem.
func (a *api) unknownRoute(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	found := &discardWriter{header: http.Header{}}
	mux.ServeHTTP(found, r)
	if found.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", found.header.Get("Allow"))
		writeProblem(w, newProblem(found.status, broker.Invalid, "this path does not take that method"))
		return
	}
	writeProblem(w, newProblem(http.StatusNotFound, broker.NotFound, "no such path; "+openAPIPath+" lists them"))
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// discardWriter keeps the status and the header of an answer alone.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header         { return w.header }
func (w *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *discardWriter) WriteHeader(status int)      { w.status = status }
