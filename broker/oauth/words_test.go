// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestNever1AnOldTokenIsNotQuoted: a mail server refuses a new token, and
// repeats the one that it was shown before.
func TestNever1AnOldTokenIsNotQuoted(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.mustOpen()
	old := w.mail.shown[0]
	sasl := base64.StdEncoding.EncodeToString([]byte("user=" + address + "\x01auth=Bearer " + old + "\x01\x01"))
	for _, quoted := range []string{old, old[:20], old[len(old)-16:], sasl, sasl[7:60], hex.EncodeToString([]byte(old)), strings.ToUpper(old)} {
		w.mail.refuse(&broker.Error{
			Code: broker.CredentialRefused, Reason: "refused", Public: "no",
			Cause: errors.New(`the server said "535 5.7.3 Authentication unsuccessful: ` + quoted + ` (SmtpClientAuthentication)"`),
		})
		err := w.open()
		wantError(t, err, broker.CredentialRefused, "refused")
		if strings.Contains(err.Error(), quoted) {
			t.Errorf("%q is told", quoted)
		}
		if !strings.Contains(err.Error(), "535 5.7.3 Authentication unsuccessful: [withheld] (SmtpClientAuthentication)") {
			t.Errorf("the rest of the words is lost: %v", err)
		}
		w.pass(renewPause)
	}
}

// What the network says of itself is no server's word.
func TestNetworkErrorsStay(t *testing.T) {
	err := &broker.Error{Code: broker.Unavailable, Cause: &net.DNSError{Err: "no such host", Name: "imap.provider-with-a-long-name.example"}}
	if got := withoutTokens(err); got != error(err) {
		t.Errorf("it became %v", got)
	}
	if withoutTokens(nil) != nil {
		t.Error("nothing became an error")
	}
}
