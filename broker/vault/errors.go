// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// Reasons of an Unavailable error, for records and metrics.
const (
	ReasonPermission  = "vault-permission"  // Vault refuses Postern's own identity this
	ReasonLogin       = "vault-login"       // Postern could not log in
	ReasonSealed      = "vault-sealed"      // Vault is sealed or not initialised
	ReasonTimeout     = "vault-timeout"     // no answer in time
	ReasonUnreachable = "vault-unreachable" // no connection, or it broke
	ReasonTLS         = "vault-tls"         // its certificate does not verify
	ReasonBreaker     = "vault-breaker"     // it failed often a moment ago and was not asked
	ReasonLimit       = "vault-limit"       // a rate limit of Vault's
	ReasonMount       = "vault-mount"       // no KV version 2 engine at the mount
	ReasonAnswer      = "vault-answer"      // an answer that is not Vault's, or an error of its own
	ReasonRefused     = "vault-refused"     // the PKI engine does not sign
)

// What follows is for the agent, who can do no more than wait or tell.
const publicUnavailable = "the credential storage cannot be used at the moment; try again later"

func unavailable(reason string, cause error) *broker.Error {
	e := broker.Errorf(broker.Unavailable, publicUnavailable).WithCause(cause)
	e.Reason = reason
	return e
}

func notFound() *broker.Error {
	return broker.Errorf(broker.NotFound, "no credential is stored for this mailbox")
}

func conflict() *broker.Error {
	return broker.Errorf(broker.Conflict, "the credential was changed meanwhile: read its version again")
}

// failure is how one try ended.
type failure struct {
	err *broker.Error
	// retry says that a second try may help.
	retry bool
	// token says that the token is dead; suspect, that it may be.
	token, suspect bool
	// outage counts for the breaker.
	outage bool
}

// Error and Unwrap make a failure an error; the caller gets the one inside.
func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func outage(reason string, cause error, retry bool) *failure {
	return &failure{err: unavailable(reason, cause), retry: retry, outage: true}
}

// phrases are what Vault's answers are known by; nothing else of an answer on
// a credential's path goes into an error.
var phrases = [...]string{
	"check-and-set parameter did not match",
	"no handler for route",
	"Vault is sealed",
	"invalid token",
	"permission denied",
	"Upgrading from non-versioned",
	"rate limit quota",
	"not initialized",
}

// failureOf classifies what the library returned.
func failureOf(err error) *failure {
	var answered *api.ResponseError
	if errors.As(err, &answered) {
		return failureOfAnswer(answered)
	}
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var domain *broker.Error
	if errors.As(err, &domain) {
		return &failure{err: domain}
	}
	var untrusted *tls.CertificateVerificationError
	var network net.Error
	switch {
	case errors.As(err, &untrusted):
		return outage(ReasonTLS, err, false)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &network) && network.Timeout(): // of the dialler, or of the handshake
		return outage(ReasonTimeout, err, false)
	}
	return outage(ReasonUnreachable, err, true)
}

func failureOfAnswer(answered *api.ResponseError) *failure {
	said := make(map[string]bool)
	var known []string
	for _, phrase := range phrases {
		for _, text := range answered.Errors {
			if !said[phrase] && strings.Contains(text, phrase) {
				said[phrase] = true
				known = append(known, phrase)
			}
		}
	}
	cause := fmt.Errorf("vault answered %d %s", answered.StatusCode, strings.Join(known, ", "))
	switch code := answered.StatusCode; {
	case code == http.StatusForbidden:
		dead := said["invalid token"]
		return &failure{err: unavailable(ReasonPermission, cause), token: dead, suspect: !dead}
	case code == http.StatusNotFound && len(answered.Errors) == 0:
		return &failure{err: notFound()}
	case code == http.StatusNotFound:
		return &failure{err: unavailable(ReasonMount, cause)}
	case code == http.StatusTooManyRequests:
		return &failure{err: unavailable(ReasonLimit, cause)}
	case said["check-and-set parameter did not match"]:
		return &failure{err: conflict().WithCause(cause)}
	case said["Upgrading from non-versioned"]:
		return outage(ReasonMount, cause, true)
	case said["Vault is sealed"], said["not initialized"]:
		return outage(ReasonSealed, cause, false)
	case code >= 500 || code == http.StatusPreconditionFailed:
		return outage(ReasonAnswer, cause, true)
	case code >= 300 && code < 400:
		return &failure{err: unavailable(ReasonAnswer, fmt.Errorf("%w: redirects are not followed; use the address of the active node or of a balancer", cause))}
	}
	return &failure{err: broker.Errorf(broker.Internal, "the credential storage did not understand Postern").WithCause(cause)}
}
