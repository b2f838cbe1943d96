// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const problemType = "application/problem+json"

// Problem is an error as RFC 9457 writes it. Its type is always about:blank,
// so the member is left out; Code is what programs look at.
type Problem struct {
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Detail string         `json:"detail" doc:"What is wrong, for people."`
	Code   broker.Code    `json:"code" doc:"What kind of failure it is, for programs." enum:"invalid,not-found,conflict,denied,refused,limit,unavailable,credential-refused,internal"`
	Errors []ProblemField `json:"errors,omitempty" nullable:"false" doc:"The inputs that are wrong."`
	// Current is set with status 412.
	Current any `json:"current,omitempty" doc:"With status 412: what the thing is now, as a GET shows it."`
	// Undone tells an outage before the change from one in the middle of it.
	Undone bool `json:"undone,omitempty" doc:"With status 503: nothing was changed, for certain."`
}

// undoneError is an outage before anything was changed.
type undoneError struct{ error }

// Unwrap returns the outage.
func (e *undoneError) Unwrap() error { return e.error }

// ProblemField is one input that is wrong.
type ProblemField struct {
	Detail string `json:"detail"`
	// Pointer and Parameter say where; one is set.
	Pointer   string `json:"pointer,omitempty" doc:"A JSON Pointer into the body, as a URI fragment (RFC 6901 §6)." example:"#/imap/port"`
	Parameter string `json:"parameter,omitempty" doc:"A parameter of the path or the query."`
}

// Error returns the detail and the fields, for people.
func (p *Problem) Error() string {
	if len(p.Errors) == 1 && p.Errors[0].Detail == p.Detail {
		return p.Errors[0].where() + p.Detail
	}
	var b strings.Builder
	b.WriteString(p.Detail)
	for _, f := range p.Errors {
		if where := f.where(); where != "" || f.Detail != p.Detail {
			b.WriteString("\n  " + where + f.Detail)
		}
	}
	return b.String()
}

// where is "imap.port: " for #/imap/port.
func (f *ProblemField) where() string {
	name := strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(f.Pointer, "#"), "/"), "/", ".") + f.Parameter
	if name == "" {
		return ""
	}
	return name + ": "
}

// GetStatus returns the HTTP status (huma.StatusError).
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes JSON problem+json (huma.ContentTypeFilter).
func (p *Problem) ContentType(string) string { return problemType }

// statusOf is the one mapping from codes to HTTP.
func statusOf(code broker.Code) int {
	switch code {
	case broker.Invalid, broker.CredentialRefused:
		return http.StatusUnprocessableEntity
	case broker.NotFound:
		return http.StatusNotFound
	case broker.Conflict:
		return http.StatusConflict
	case broker.Denied, broker.Refused:
		return http.StatusForbidden
	case broker.Limit:
		return http.StatusTooManyRequests
	case broker.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// codeOf is its inverse, for failures that huma and net/http find.
func codeOf(status int) broker.Code {
	switch status {
	case http.StatusNotFound:
		return broker.NotFound
	case http.StatusForbidden:
		return broker.Refused
	case http.StatusInternalServerError:
		return broker.Internal
	case http.StatusServiceUnavailable, http.StatusRequestTimeout:
		return broker.Unavailable
	}
	return broker.Invalid
}

func newProblem(status int, code broker.Code, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// problem turns a handler's error into an answer, and logs what the answer
// does not say.
func (a *api) problem(ctx context.Context, op *huma.Operation, err error) *Problem {
	if ctx.Err() != nil && broker.CodeOf(err) == broker.Internal {
		err = broker.Errorf(broker.Unavailable, "the request was given up before it was done").WithCause(err)
	}
	code := broker.CodeOf(err)
	p := newProblem(statusOf(code), code, broker.PublicText(err))
	var e *broker.Error
	if errors.As(err, &e) && e.Field != "" {
		f := ProblemField{Detail: e.Public}
		if op.Method == http.MethodGet {
			f.Parameter = e.Field
		} else {
			f.Pointer = pointer(e.Field)
		}
		p.Errors = []ProblemField{f}
	}
	var rows *rowsError
	if errors.As(err, &rows) {
		p.Errors = rows.faults
	}
	var stale *staleError
	if errors.As(err, &stale) {
		p.Status, p.Title, p.Current = http.StatusPreconditionFailed, http.StatusText(http.StatusPreconditionFailed), stale.current
	}
	var undone *undoneError
	p.Undone = errors.As(err, &undone)
	fields := []zap.Field{zap.String("operation", op.OperationID), zap.String("code", string(code)), zap.Error(err)}
	if code == broker.Internal {
		a.Logger.Error("request failed", fields...)
	} else {
		a.Logger.Info("request refused", fields...)
	}
	return p
}

// pointer makes a JSON Pointer of a field's name such as "networks[0]" or
// "imap.port".
func pointer(field string) string {
	steps := strings.FieldsFunc(field, func(r rune) bool { return strings.ContainsRune(".[]", r) })
	for i, s := range steps {
		steps[i] = strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
	}
	return "#/" + strings.Join(steps, "/")
}

// problemTransformer replaces huma's own errors, which echo values of the
// input (the whole body, when it is not JSON).
func problemTransformer(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(model.Status, codeOf(model.Status), model.Detail)
	switch {
	case model.Status == http.StatusInternalServerError:
		p.Detail = "internal error"
		return p, nil
	case model.Status == http.StatusRequestEntityTooLarge:
		p.Detail = "the request's body is too large"
	case model.Detail == "validation failed":
		p.Detail = "the request is not valid"
	}
	for _, d := range model.Errors {
		if d != nil {
			p.Errors = append(p.Errors, fieldOf(d))
		}
	}
	return p, nil
}

// fieldOf keeps what huma says of an input, and leaves out its value.
func fieldOf(d *huma.ErrorDetail) ProblemField {
	if d.Message == "expected length >= 1" {
		d = &huma.ErrorDetail{Message: "is empty", Location: d.Location}
	}
	where, rest, _ := strings.Cut(d.Location, ".")
	if where != "body" {
		return ProblemField{Detail: d.Message, Parameter: rest}
	}
	// A property that is missing is reported at the object that should have it.
	if name, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		name = strings.TrimSuffix(name, " to be present")
		return ProblemField{Detail: "is missing", Pointer: pointer(rest + "." + name)}
	}
	if rest != "" {
		return ProblemField{Detail: d.Message, Pointer: pointer(rest)}
	}
	// Of the body as a whole, what validation says may pass; what a decoder
	// says may not, since decoders quote.
	switch {
	case strings.HasPrefix(d.Message, "expected "):
		return ProblemField{Detail: "the body: " + d.Message, Pointer: "#"}
	case strings.HasPrefix(d.Message, "unknown content type"):
		return ProblemField{Detail: "the body's Content-Type must be application/json", Pointer: "#"}
	}
	return ProblemField{Detail: "the body is not the JSON that is wanted", Pointer: "#"}
}

// problemResponse documents Problem as the answer to whatever fails.
func problemResponse(h huma.API) *huma.Response {
	schema := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	return &huma.Response{
		Description: "Error",
		Content:     map[string]*huma.MediaType{problemType: {Schema: schema}},
	}
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
