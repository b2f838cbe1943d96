// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

type actorKey struct{}

// WithActor says on whose behalf a request is made. Only what has
// authenticated the caller may call it.
func WithActor(ctx context.Context, actor broker.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf returns whom WithActor named.
func ActorOf(ctx context.Context) (broker.Actor, bool) {
	actor, ok := ctx.Value(actorKey{}).(broker.Actor)
	return actor, ok
}

// actor is ActorOf inside of protect, where there always is one.
func actor(ctx context.Context) broker.Actor {
	by, ok := ActorOf(ctx)
	if !ok {
		panic("httpapi: a handler runs without an actor")
	}
	return by
}

// protect is what stands before every route: an actor, a body limit, answers
// that no cache keeps, problems for unknown paths, one log line per request
// (route and status, never path, query or body), and recovery.
func (a *api) protect(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := a.Now()
		out := &statusWriter{ResponseWriter: w}
		route := "unknown"
		defer func() {
			fault := recover()
			if fault != nil {
				a.Logger.Error("request failed", zap.String("route", route), zap.String("panic", fmt.Sprint(fault)), zap.Stack("stack"))
			}
			begun := out.status != 0
			if fault != nil && !begun {
				writeProblem(out, newProblem(http.StatusInternalServerError, broker.Internal, "internal error"))
			}
			by, _ := ActorOf(r.Context())
			a.Logger.Debug("request", zap.String("route", route), zap.Int("status", out.status),
				zap.String("actor", by.Name), zap.Duration("took", a.Now().Sub(started)))
			if fault != nil && begun {
				// Half an answer must not look like a whole one.
				panic(http.ErrAbortHandler)
			}
		}()
		out.Header().Set("Cache-Control", "no-store")
		out.Header().Set("X-Content-Type-Options", "nosniff")
		if _, ok := ActorOf(r.Context()); !ok {
			writeProblem(out, newProblem(http.StatusForbidden, broker.Refused, "this user may not manage Postern: be root or the server's own user"))
			return
		}
		r.Body = http.MaxBytesReader(out, r.Body, MaxBodyBytes)
		_, pattern := mux.Handler(r)
		if pattern == "" {
			a.unknownRoute(out, r, mux)
			return
		}
		route = pattern
		mux.ServeHTTP(out, r)
	})
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
