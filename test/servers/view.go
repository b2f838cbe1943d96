// SPDX-License-Identifier: Apache-2.0

package servers

import "testing"

// For returns the same Dovecot for another test, a subtest of the one that
// started it: what fails then fails there. It serves to look at mail and to
// deliver it; users, and starting and stopping, stay with the first.
func (d *Dovecot) For(t testing.TB) *Dovecot {
	view := *d
	view.t = t
	return &view
}
