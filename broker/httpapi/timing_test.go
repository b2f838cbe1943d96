// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// timingTolerance is how far the medians may be apart, beyond what two halves of
// the same requests are: the machine's noise.
const timingTolerance = 0.05

// TestNever5AnotherFirmTakesAsLong compares how long it takes to be told that
// another firm's thing, and one that nobody has, are not there. It needs a calm
// machine: POSTERN_TIMING says how many tries it makes (CONTRIBUTING.md).
func TestNever5AnotherFirmTakesAsLong(t *testing.T) {
	tries, err := strconv.Atoi(os.Getenv("POSTERN_TIMING"))
	if err != nil || tries < 100 {
		t.Skip("POSTERN_TIMING is not set to a number of tries")
	}
	c := start(t)
	firms := c.twoFirms()
	for kind, path := range map[string]string{
		"mailbox": "/v1/mailboxes/%s", "mailbox-name": "/v1/mailboxes/%s", "delegation": "/v1/delegations/%s",
		"assignment": "/v1/assignments/%s", "agent": "/v1/agents/%s", "firm": "/v1/firms/%s", "session": "/v1/events?session=%s",
	} {
		t.Run(kind, func(t *testing.T) {
			// As long, octet by octet: the ids of each kind are, and names are made
			// so.
			unknown := firms.unknown[kind]
			if len(unknown) != len(firms.theirs[kind]) {
				unknown = firms.theirs[kind][:len(firms.theirs[kind])-1] + "0"
			}
			ask := func(ref string) time.Duration {
				req := httptest.NewRequest("GET", fmt.Sprintf(path, ref), nil)
				req.Header.Set("Authorization", "Bearer "+firms.tokens["firm-admin"])
				answer := httptest.NewRecorder()
				started := time.Now()
				c.world.Handler.ServeHTTP(answer, req)
				took := time.Since(started)
				if answer.Code != http.StatusNotFound && kind != "session" {
					t.Fatalf("%d %s", answer.Code, answer.Body)
				}
				return took
			}
			var theirs, nobodys []time.Duration
			for i := range tries {
				// Each new, so that nothing can remember it, and in turns.
				if kind != "mailbox-name" {
					unknown = string(broker.NewID())
				}
				if i%2 == 0 {
					theirs, nobodys = append(theirs, ask(firms.theirs[kind])), append(nobodys, ask(unknown))
				} else {
					nobodys, theirs = append(nobodys, ask(unknown)), append(theirs, ask(firms.theirs[kind]))
				}
			}
			noise := apart(median(theirs[:tries/2]), median(theirs[tries/2:]))
			a, b := median(theirs), median(nobodys)
			t.Logf("another firm's %v, nobody's %v: %.2f %% apart; halves of the same: %.2f %%", a, b, 100*apart(a, b), 100*noise)
			if apart(a, b) > timingTolerance+noise {
				t.Errorf("the medians of %d tries are %.2f %% apart", tries, 100*apart(a, b))
			}
		})
	}
}

func median(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func apart(a, b time.Duration) float64 {
	return float64(max(a, b)-min(a, b)) / float64(min(a, b))
}
