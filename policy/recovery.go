// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// RecoveryMail says whether mail for account recovery and one-time codes is
// visible. Who can read what the mailbox's own provider sends of it can take the
// mailbox over.
//
// It hides by search, as a slice does, so a session in which it hides anything
// is shown a view. The values are in this order, each hiding what those before it
// do: shown, default, hidden.
type RecoveryMail string

const (
	// RecoveryDefault hides what comes from Input.RecoverySenders: what providers
	// of a built-in list, and the mailbox itself, name.
	RecoveryDefault RecoveryMail = ""
	// RecoveryHidden hides besides, from whomever it comes, what looks like it by
	// its subject.
	RecoveryHidden RecoveryMail = "hidden"
	// RecoveryShown hides nothing.
	RecoveryShown RecoveryMail = "shown"
)

// recoverySubjects is what looks like mail for account recovery and one-time
// codes, in English: the provider's own is found by its sender in any language.
const recoverySubjects Slice = `NOT SUBJECT "verification code" NOT SUBJECT "security code" NOT SUBJECT "login code" ` +
	`NOT SUBJECT "sign-in code" NOT SUBJECT "confirmation code" NOT SUBJECT "authentication code" ` +
	`NOT SUBJECT "one-time pass" NOT SUBJECT "one time pass" NOT SUBJECT "one-time code" NOT SUBJECT "passcode" ` +
	`NOT SUBJECT "OTP " NOT SUBJECT " OTP" NOT SUBJECT "password reset" NOT SUBJECT "reset password" NOT SUBJECT "reset your" ` +
	`NOT SUBJECT "recover your" NOT SUBJECT "account recovery"`

// RecoverySenders returns whom a provider's mail for account recovery and
// one-time codes comes from, as domains and addresses, by the name of its IMAP
// server; none: the provider is not known.
func RecoverySenders(host string) []string {
	in := func(domains ...string) bool {
		host := strings.ToLower(strings.TrimSuffix(host, "."))
		for _, d := range domains {
			if host == d || strings.HasSuffix(host, "."+d) {
				return true
			}
		}
		return false
	}
	switch {
	case in("gmail.com", "googlemail.com", "google.com"):
		return []string{"accounts.google.com", "accounts-noreply@google.com"}
	case in("office365.com", "office365.us", "office.com", "outlook.com", "outlook.de", "hotmail.com", "live.com"):
		return []string{"accountprotection.microsoft.com", "account.microsoft.com", "microsoftonline.com", "microsoftonline.us"}
	}
	return nil
}

// rank orders the values by what they hide; an unknown one hides the most.
func (r RecoveryMail) rank() int {
	switch r {
	case RecoveryShown:
		return 0
	case RecoveryDefault:
		return 1
	}
	return 2
}

// within reports that inner hides whatever r does.
func (r RecoveryMail) within(inner RecoveryMail) bool { return inner.rank() >= r.rank() }

// narrow returns the one of both that hides more.
func (r RecoveryMail) narrow(inner RecoveryMail) RecoveryMail {
	if r.within(inner) {
		return inner
	}
	return r
}

// slices hide it: one for each sender, so that decisions can be compared.
func (r RecoveryMail) slices(senders []string) (all []Slice) {
	if r == RecoveryShown {
		return nil
	}
	for _, s := range senders {
		all = append(all, Slice(appendQuoted([]byte("NOT FROM "), s)))
	}
	if r.rank() > RecoveryDefault.rank() {
		all = append(all, recoverySubjects)
	}
	return all
}

func (r RecoveryMail) validate() string {
	switch r {
	case RecoveryDefault, RecoveryHidden, RecoveryShown:
		return ""
	}
	return "use hidden or shown; without it, what is known to come from the mailbox's provider is hidden"
}
