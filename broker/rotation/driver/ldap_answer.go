// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"errors"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/broker"
)

// noAnswer is no result code: the server has not answered.
const noAnswer = -1

// ldapAnswer returns a server's result code and its words.
func ldapAnswer(err error) (code int, words string) {
	var answer *ldap.Error
	// From 200 on they are the library's own.
	if !errors.As(err, &answer) || answer.ResultCode >= ldap.ErrorNetwork {
		return noAnswer, ""
	}
	if answer.Err != nil {
		words = answer.Err.Error()
	}
	return int(answer.ResultCode), words
}

// What Active Directory puts in front of its words: Windows' error codes.
const (
	windowsInvalidPassword  = "00000056" // the old one, of whoever changes his own
	windowsPasswordRefused  = "0000052D" // length, complexity, history or age
	windowsAccountForbidden = "00000005" // access denied
)

// refusals tells by which answers the server certainly left the password as it
// was (RFC 4511 appendix A.2). busy, unavailable, operationsError and other are
// not among them: proxies answer so when they have lost the server behind.
func refusals(code int, words string) (broker.DriverReason, bool) {
	switch code {
	case ldap.LDAPResultConstraintViolation:
		if strings.HasPrefix(words, windowsInvalidPassword) {
			return broker.DriverAccountRefused, true
		}
		return broker.DriverPasswordPolicy, true
	case ldap.LDAPResultUnwillingToPerform:
		switch {
		case strings.HasPrefix(words, windowsPasswordRefused):
			return broker.DriverPasswordPolicy, true
		case strings.HasPrefix(words, windowsAccountForbidden):
			return broker.DriverAccountRefused, true
		}
		return broker.DriverMisconfigured, true
	case ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInappropriateAuthentication:
		return broker.DriverAccountRefused, true
	case ldap.LDAPResultNoSuchObject:
		return broker.DriverUnknownMailbox, true
	case ldap.LDAPResultProtocolError, ldap.LDAPResultAuthMethodNotSupported, ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultReferral,
		ldap.LDAPResultUnavailableCriticalExtension, ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultNoSuchAttribute,
		ldap.LDAPResultUndefinedAttributeType, ldap.LDAPResultInappropriateMatching, ldap.LDAPResultAttributeOrValueExists,
		ldap.LDAPResultInvalidAttributeSyntax, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultNamingViolation,
		ldap.LDAPResultObjectClassViolation, ldap.LDAPResultNotAllowedOnRDN, ldap.LDAPResultObjectClassModsProhibited:
		return broker.DriverMisconfigured, true
	}
	return "", false
}
