// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// renewing is a Renewer in a synctest bubble, whose clock stands still while
// anything happens.
type renewing struct {
	began   time.Time
	present atomic.Pointer[tls.Certificate]
	asked   []time.Duration // since began
	answer  func(n int) error
	log     *observer.ObservedLogs
}

const validity = 90 * 24 * time.Hour

func certificateUntil(raw string, from time.Time) *tls.Certificate {
	return &tls.Certificate{Leaf: &x509.Certificate{Raw: []byte(raw), NotBefore: from, NotAfter: from.Add(validity)}}
}

// runRenewer runs one for a time.
func runRenewer(t *testing.T, r *renewing, during func(), until time.Duration) {
	t.Helper()
	core, log := observer.New(zapcore.DebugLevel)
	r.log, r.began = log, time.Now()
	r.present.Store(certificateUntil("first", r.began))
	renewer := &Renewer{
		Identity: func() (*tls.Certificate, error) {
			present := r.present.Load()
			if !time.Now().Before(present.Leaf.NotAfter) {
				return nil, errors.New("it expired")
			}
			return present, nil
		},
		Renew: func(context.Context) error {
			r.asked = append(r.asked, time.Since(r.began))
			err := r.answer(len(r.asked))
			if err == nil {
				r.present.Store(certificateUntil(fmt.Sprint(len(r.asked)), time.Now()))
			}
			return err
		},
		Logger: zap.New(core),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- renewer.Run(ctx) }()
	if during != nil {
		during()
	}
	time.Sleep(time.Until(r.began.Add(until)))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRenewsWhenAThirdIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &renewing{answer: func(int) error { return nil }}
		runRenewer(t, r, nil, 3*validity)
		if len(r.asked) != 4 {
			t.Fatalf("renewed %d times", len(r.asked))
		}
		for i, at := range r.asked {
			// Each is due two thirds after the one before, and found within a look.
			due := time.Duration(i+1) * validity * 2 / 3
			if late := at - due; late < 0 || late > time.Duration(i+1)*renewalLook {
				t.Errorf("renewal %d came %s after it was due", i+1, late)
			}
		}
	})
}

func TestFailedRenewalsAreRepeatedWithBackOffAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failures = 12
		r := &renewing{answer: func(n int) error {
			if n <= failures {
				return errors.New("Postern is down")
			}
			return nil
		}}
		runRenewer(t, r, nil, validity*2/3+24*time.Hour)
		if len(r.asked) != failures+1 {
			t.Fatalf("asked %d times", len(r.asked))
		}
		for i := 1; i < len(r.asked); i++ {
			mean := min(renewalRetryMin<<(i-1), renewalRetryMax)
			if pause := r.asked[i] - r.asked[i-1]; pause < mean*4/5 || pause > mean*6/5 {
				t.Errorf("after failure %d it waits %s, want about %s", i, pause, mean)
			}
		}
		told := r.log.FilterMessageSnippet("was not renewed; it is tried again").All()
		if len(told) != failures || told[0].ContextMap()["good_until"] != r.began.Add(validity) {
			t.Errorf("%d failures are reported: %v", len(told), told)
		}
		if r.log.FilterMessageSnippet("was renewed").Len() != 1 {
			t.Error("the success is not reported")
		}
	})
}

// TestRenewalIsTriedToTheEnd: the pauses shrink as the certificate's end comes.
func TestRenewalIsTriedToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &renewing{answer: func(int) error { return errors.New("Postern is down") }}
		runRenewer(t, r, nil, validity+time.Hour)
		last := r.asked[len(r.asked)-1]
		if left := validity - last; left > 2*renewalRetryMin {
			t.Errorf("the last try is %s before the end", left)
		}
		if r.log.FilterMessageSnippet("cannot be used").Len() == 0 {
			t.Error("the end is not reported")
		}
	})
}

func TestARemovedWorkstationIsToldAndStopsRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &renewing{answer: func(n int) error {
			if n == 1 {
				return fmt.Errorf("%w: its workstation was removed", ErrRenewalRefused)
			}
			return nil
		}}
		runRenewer(t, r, func() {
			time.Sleep(validity - time.Hour)
			synctest.Wait()
			if len(r.asked) != 1 {
				t.Errorf("asked %d times after a final refusal", len(r.asked))
			}
			told := r.log.FilterMessageSnippet("not renewed any more: ask the administrator").All()
			if len(told) != 1 || !strings.Contains(fmt.Sprint(told[0].ContextMap()["error"]), "was removed") {
				t.Errorf("it is told %v", told)
			}
			// Somebody enrols the machine again.
			r.present.Store(certificateUntil("enrolled again", time.Now()))
		}, 2*validity)
		if len(r.asked) != 2 {
			t.Errorf("enrolled again, it was renewed %d times", len(r.asked)-1)
		}
	})
}

// TestANewCertificateIsUsedWithoutDroppingConnections: those that are open go
// on, those that come show the new one.
func TestANewCertificateIsUsedWithoutDroppingConnections(t *testing.T) {
	var current atomic.Pointer[tls.Certificate]
	next, _ := pair(t)
	r := newRig(t, func(r *rig) {
		current.Store(r.client)
		r.identify = func() (*tls.Certificate, error) { return current.Load(), nil }
		r.serverCAs.AddCert(next.Leaf)
	})
	talk := func(server *tls.Conn, in *bufio.Reader, text string) {
		t.Helper()
		write(t, server, text)
		if line, err := in.ReadString('\n'); err != nil || line != text {
			t.Fatalf("%q, %v", line, err)
		}
	}
	old := bufio.NewReader(r.dial())
	oldServer := r.accept()
	talk(oldServer, old, "* OK before\r\n")
	current.Store(next)
	fresh := bufio.NewReader(r.dial())
	freshServer := r.accept()
	talk(freshServer, fresh, "* OK after\r\n")
	if shown := freshServer.ConnectionState().PeerCertificates[0]; !shown.Equal(next.Leaf) {
		t.Error("the new certificate is not shown")
	}
	talk(oldServer, old, "* 1 EXISTS\r\n")
	if shown := oldServer.ConnectionState().PeerCertificates[0]; !shown.Equal(r.client.Leaf) {
		t.Error("the connection that was open is another")
	}
}
