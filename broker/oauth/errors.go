// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Reasons of this package's errors, for records and metrics, beside
// broker.ReasonConsent and broker.ReasonConsentKnown.
const (
	ReasonEndpoint = "token-endpoint" // no answer, or none of OAuth's
	ReasonAddress  = "token-address"  // an address where no issuer may be
	ReasonBusy     = "token-busy"     // "try again later"
	ReasonRequest  = "token-request"  // the issuer does not take the request
	ReasonClient   = "client-refused" // it does not know the client, or its proof
	ReasonChanged  = "changed"        // another credential was stored meanwhile
	ReasonStore    = "token-store"    // the storage cannot take what would come
)

// Public texts. Agents are told in words of the session's own.
const (
	publicEndpoint = "the issuer of access tokens cannot be reached"
	publicAddress  = "the issuer of access tokens has an address that is not allowed"
	publicBusy     = "the issuer of access tokens asks to try again later"
	publicRequest  = "the issuer of access tokens does not take the request"
	publicConsent  = "the issuer of access tokens says that the consent was withdrawn or has ended: the firm must consent again"
	publicClient   = "the issuer of access tokens refused the application, its secret or its key"
	publicChanged  = "the credential was changed meanwhile"
	publicStore    = "the credential storage cannot be used at the moment"
	publicStopping = "Postern is being stopped"
)

func unavailable(reason string, cause error) *broker.Error {
	public := map[string]string{
		ReasonAddress: publicAddress, ReasonBusy: publicBusy, ReasonRequest: publicRequest,
		ReasonChanged: publicChanged, ReasonStore: publicStore,
	}[reason]
	if public == "" {
		public = publicEndpoint
	}
	return &broker.Error{Code: broker.Unavailable, Reason: reason, Public: public, Cause: cause}
}

// failed is for requests that got no answer. What a *url.Error says of the URL
// is left out: it is the firm's own, and may hold anything.
func failed(err error) error {
	var about *url.Error
	if errors.As(err, &about) {
		err = about.Err
	}
	if errors.Is(err, errAddress) {
		return unavailable(ReasonAddress, err)
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return unavailable(ReasonEndpoint, errors.New("the issuer did not answer in time"))
	}
	return unavailable(ReasonEndpoint, err)
}

// refusal is what an issuer answered in place of a token. It unwraps to the
// *broker.Error that it means.
type refusal struct {
	err *broker.Error
	// wait is what it asks for before it is asked again; 0: nothing.
	wait time.Duration
}

// Error is the error's.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the error proper.
func (r *refusal) Unwrap() error { return r.err }

// meanings are what the errors of RFC 6749 §5.2, of its extensions and of
// large issuers say of the credential. Those of consent are for the firm to
// mend, by whatever it granted; those of the client are about its proof. What
// is not here is a matter of the request, or passes.
var meanings = map[string]string{
	"invalid_grant":        broker.ReasonConsent,
	"unauthorized_client":  broker.ReasonConsent, // Google: no domain-wide delegation; Microsoft: no such application there
	"access_denied":        broker.ReasonConsent,
	"consent_required":     broker.ReasonConsent,
	"interaction_required": broker.ReasonConsent,
	"login_required":       broker.ReasonConsent,

	"invalid_client":  ReasonClient,
	"disabled_client": ReasonClient,
	"deleted_client":  ReasonClient,

	"invalid_request":         ReasonRequest,
	"invalid_scope":           ReasonRequest,
	"invalid_target":          ReasonRequest,
	"unsupported_grant_type":  ReasonRequest,
	"temporarily_unavailable": ReasonBusy,
	"server_error":            ReasonBusy,
	"slow_down":               ReasonBusy,
	"rate_limit_exceeded":     ReasonBusy,
}

// number is Microsoft's name for the error proper: of a description nothing
// else is kept.
var number = regexp.MustCompile(`\bAADSTS[0-9]{4,9}\b`)

// refused reads RFC 6749 §5.2. Nobody is refused by what is no answer of
// OAuth's: a gateway's page, a redirect, a status of 5xx.
func (i *issuers) refused(resp *http.Response, answer []byte) error {
	var a struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	r := &refusal{wait: retryAfter(resp.Header, i.now())}
	said := json.Unmarshal(answer, &a) == nil && a.Error != ""
	reason, known := meanings[a.Error]
	cause := fmt.Sprintf("the issuer answered %d", resp.StatusCode)
	if said && known {
		cause += " " + a.Error
	}
	if found := number.FindString(a.Description); said && found != "" {
		cause += " (" + found + ")"
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		reason = ReasonBusy
	case !said || resp.StatusCode < 400:
		reason = ReasonEndpoint
	case !known:
		reason = ReasonRequest
	}
	switch reason {
	case broker.ReasonConsent:
		r.err = &broker.Error{Code: broker.CredentialRefused, Reason: reason, Public: publicConsent, Cause: errors.New(cause)}
	case ReasonClient:
		r.err = &broker.Error{Code: broker.CredentialRefused, Reason: reason, Public: publicClient, Cause: errors.New(cause)}
	default:
		r.err = unavailable(reason, errors.New(cause))
	}
	return r
}
