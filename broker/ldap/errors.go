// SPDX-License-Identifier: Apache-2.0

package ldap

import (
	"errors"
	"regexp"

	client "github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/broker"
)

func denied(reason string, cause error) *broker.Error {
	err := broker.Errorf(broker.Denied, "the directory did not accept this").WithCause(cause)
	err.Reason = reason
	return err
}

func unavailable(cause error) *broker.Error {
	err := broker.Errorf(broker.Unavailable, "the directory cannot be asked at the moment").WithCause(cause)
	err.Reason = "directory"
	return err
}

// reasonOf are the result codes (RFC 4511 §4.1.9, appendix A) by which a server
// says no to a bind as somebody; every other one says that it cannot tell.
func reasonOf(code uint16) (reason string, no bool) {
	switch code {
	case client.LDAPResultInvalidCredentials:
		return broker.ReasonPassword, true
	case client.LDAPResultNoSuchObject, client.LDAPResultInvalidDNSyntax,
		// An entry without a password.
		client.LDAPResultInappropriateAuthentication:
		return broker.ReasonNoAccount, true
	case client.LDAPResultConstraintViolation, client.LDAPResultUnwillingToPerform, client.LDAPResultInsufficientAccessRights:
		// How servers refuse accounts that are locked or inactive.
		return broker.ReasonDisabled, true
	}
	return "", false
}

// directoryData is what Active Directory says beside invalidCredentials: a
// Win32 error in hex (MS-ADTS §5.1.1.3 has none; they are in [MS-ERREF]).
var directoryData = regexp.MustCompile(`, data ([0-9a-f]{1,8}),`)

// accountStates are those of Active Directory's errors that are about the
// account and not about its password.
func isAccountState(data string) bool {
	switch data {
	case "530", "531", // not at this hour, not from here
		"532", "773", // the password has expired, must be changed
		"533", "701", "775": // disabled, expired, locked
		return true
	}
	return false
}

// verdict turns a bind's error into a no or an outage.
func verdict(err error) *broker.Error {
	var e *client.Error
	if !errors.As(err, &e) {
		return unavailable(err)
	}
	reason, no := reasonOf(e.ResultCode)
	if !no {
		return unavailable(err)
	}
	if m := directoryData.FindStringSubmatch(e.Error()); m != nil {
		switch {
		case m[1] == "525":
			reason = broker.ReasonNoAccount
		case isAccountState(m[1]):
			reason = broker.ReasonDisabled
		}
	}
	return denied(reason, err)
}
