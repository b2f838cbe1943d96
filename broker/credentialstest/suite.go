// SPDX-License-Identifier: Apache-2.0

package credentialstest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// Run checks what open returns against the contract. open is called once for
// each test, and may return the same storage each time: the tests use ids of
// their own.
func Run(t *testing.T, open func(t *testing.T) broker.Credentials) {
	tests := map[string]func(*testing.T, broker.Credentials){
		"set and get":              setAndGet,
		"nothing stored":           nothingStored,
		"check and set":            checkAndSet,
		"delete":                   deletes,
		"kept apart":               keptApart,
		"copies are independent":   copies,
		"octets":                   octets,
		"kinds":                    kinds,
		"ids never become paths":   ids,
		"unfit credentials":        unfit,
		"one writer wins":          oneWriterWins,
		"readers see whole writes": wholeWrites,
		"a cancelled call ends":    cancelled,
		"errors hold no secret":    noSecretInErrors,
		"ready":                    ready,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Password makes a password to store over version.
func Password(secret string, version int) *broker.Credential {
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(secret)), Version: version}
}

func wantCode(t *testing.T, err error, want broker.Code) {
	t.Helper()
	if got := broker.CodeOf(err); got != want {
		t.Errorf("error %v: its code is %q, want %q", err, got, want)
	}
	if err != nil && !errors.As(err, new(*broker.Error)) {
		t.Errorf("error %v is no *broker.Error", err)
	}
}

func mustSet(t *testing.T, s broker.Credentials, firm, mailbox broker.ID, c *broker.Credential) int {
	t.Helper()
	v, err := s.SetCredential(t.Context(), firm, mailbox, c)
	if err != nil {
		t.Fatalf("set: %v", err)
	}
	return v
}

func wantSecret(t *testing.T, s broker.Credentials, firm, mailbox broker.ID, want string, version int) {
	t.Helper()
	c, err := s.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if !bytes.Equal(c.Secret.Reveal(), []byte(want)) || c.Version != version {
		t.Errorf("got %q of version %d, want %q of version %d", c.Secret.Reveal(), c.Version, want, version)
	}
	if v, err := s.CredentialVersion(t.Context(), firm, mailbox); err != nil || v != version {
		t.Errorf("the version is %d (%v), want %d", v, err, version)
	}
}

func setAndGet(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	c := &broker.Credential{Kind: broker.KindAccessToken, Username: "jürgen+\"\\<&>@firm.example", Secret: broker.NewSecret([]byte("first"))}
	version := mustSet(t, s, firm, mailbox, c)
	if version <= 0 {
		t.Errorf("the version is %d", version)
	}
	if c.Version != 0 || string(c.Secret.Reveal()) != "first" {
		t.Errorf("the caller's credential was changed: version %d, %q", c.Version, c.Secret.Reveal())
	}
	got, err := s.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != c.Kind || got.Username != c.Username || string(got.Secret.Reveal()) != "first" || got.Version != version {
		t.Errorf("got %+v %q", got, got.Secret.Reveal())
	}
}

func nothingStored(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	_, err := s.Credential(t.Context(), firm, mailbox)
	wantCode(t, err, broker.NotFound)
	if v, err := s.CredentialVersion(t.Context(), firm, mailbox); v != 0 || err != nil {
		t.Errorf("the version is %d, %v; want 0", v, err)
	}
	_, err = s.SetCredential(t.Context(), firm, mailbox, Password("x", 1))
	wantCode(t, err, broker.Conflict)
	if err := s.DeleteCredential(t.Context(), firm, mailbox); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
}

func checkAndSet(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	v1 := mustSet(t, s, firm, mailbox, Password("one", 0))
	v2 := mustSet(t, s, firm, mailbox, Password("two", v1))
	if v2 <= v1 {
		t.Errorf("versions %d, then %d: want them to grow", v1, v2)
	}
	for _, stale := range []int{0, v1, v2 + 1} {
		_, err := s.SetCredential(t.Context(), firm, mailbox, Password("stale", stale))
		wantCode(t, err, broker.Conflict)
	}
	wantSecret(t, s, firm, mailbox, "two", v2)
}

func deletes(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	v := mustSet(t, s, firm, mailbox, Password("one", 0))
	mustSet(t, s, firm, mailbox, Password("two", v))
	for range 2 {
		if err := s.DeleteCredential(t.Context(), firm, mailbox); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	_, err := s.Credential(t.Context(), firm, mailbox)
	wantCode(t, err, broker.NotFound)
	if v, err := s.CredentialVersion(t.Context(), firm, mailbox); v != 0 || err != nil {
		t.Errorf("the version is %d, %v; want 0", v, err)
	}
	v = mustSet(t, s, firm, mailbox, Password("three", 0))
	wantSecret(t, s, firm, mailbox, "three", v)
}

func keptApart(t *testing.T, s broker.Credentials) {
	a, b, x, y := broker.NewID(), broker.NewID(), broker.NewID(), broker.NewID()
	va := mustSet(t, s, a, x, Password("of a, x", 0))
	vb := mustSet(t, s, b, y, Password("of b, y", 0))
	for _, pair := range [][2]broker.ID{{a, y}, {b, x}, {x, a}, {y, b}} {
		_, err := s.Credential(t.Context(), pair[0], pair[1])
		wantCode(t, err, broker.NotFound)
	}
	if err := s.DeleteCredential(t.Context(), a, x); err != nil || va == 0 {
		t.Fatal(err)
	}
	wantSecret(t, s, b, y, "of b, y", vb)
}

func copies(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	own := Password("kept", 0)
	v := mustSet(t, s, firm, mailbox, own)
	own.Secret.Wipe()
	first, err := s.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	first.Secret.Wipe()
	if got := second.Secret.Reveal(); string(got) != "kept" {
		t.Errorf("wiping one copy changed another: %q", got)
	}
	wantSecret(t, s, firm, mailbox, "kept", v)
}

// octets: what is stored comes back bit for bit, whatever a password may hold.
func octets(t *testing.T, s broker.Credentials) {
	all := make([]byte, 255)
	for i := range all {
		all[i] = byte(i + 1) // a NUL is unfit
	}
	for name, secret := range map[string]string{
		"one octet":     "x",
		"line ends":     "a\r\nb\nc\r",
		"JSON":          `"}},"options":{"cas":0},"data":{"secret":"y\`,
		"HTML":          "<&>\u2028\u2029",
		"UTF-8":         "pässwörd 密码 😀",
		"invalid UTF-8": "\xff\xfe\xc3\x28\xed\xa0\x80",
		"spaces":        "  \t ",
		"every octet":   string(all),
		"10 KB":         strings.Repeat("0123456789", 1024),
		"the longest":   strings.Repeat("\x01", broker.MaxSecret),
	} {
		t.Run(name, func(t *testing.T) {
			firm, mailbox := broker.NewID(), broker.NewID()
			v := mustSet(t, s, firm, mailbox, Password(secret, 0))
			wantSecret(t, s, firm, mailbox, secret, v)
		})
	}
}

// kinds: each is stored, and comes back bit for bit.
func kinds(t *testing.T, s broker.Credentials) {
	const document = `{ "version":1,"private_key":"-----BEGIN\n\u00e4\/" ,"a":"\ud83d\ude00"}`
	for kind, secret := range map[broker.CredentialKind]string{
		broker.KindPassword: "p", broker.KindAccessToken: "t", broker.KindOAuth2Client: document,
		broker.KindOAuth2Refresh: document, broker.KindGoogleServiceAccount: document,
	} {
		firm, mailbox := broker.NewID(), broker.NewID()
		v := mustSet(t, s, firm, mailbox, &broker.Credential{Kind: kind, Secret: broker.NewSecret([]byte(secret))})
		wantSecret(t, s, firm, mailbox, secret, v)
		if c, err := s.Credential(t.Context(), firm, mailbox); err != nil || c.Kind != kind {
			t.Errorf("%s came back as %+v, %v", kind, c, err)
		}
	}
}

// ids: what is not an id is Invalid for every method, in either place.
func ids(t *testing.T, s broker.Credentials) {
	good := broker.NewID()
	v := mustSet(t, s, good, good, Password("kept", 0))
	upper := broker.ID(strings.ToUpper(string(broker.NewID())))
	for _, bad := range []broker.ID{
		"", ".", "..", "a/../b", "../../../sys/seal", "../" + good, good + "/", good + "/../" + good, good + "\x00", good + "\n",
		"%2e%2e", "*", "+", good + "?version=1", good + "#", "{" + good + "}", "urn:uuid:" + good, upper, broker.ID(strings.Repeat("a", 36)),
	} {
		for _, pair := range [][2]broker.ID{{bad, good}, {good, bad}} {
			_, err := s.Credential(t.Context(), pair[0], pair[1])
			wantCode(t, err, broker.Invalid)
			_, err = s.SetCredential(t.Context(), pair[0], pair[1], Password("x", 0))
			wantCode(t, err, broker.Invalid)
			_, err = s.CredentialVersion(t.Context(), pair[0], pair[1])
			wantCode(t, err, broker.Invalid)
			wantCode(t, s.DeleteCredential(t.Context(), pair[0], pair[1]), broker.Invalid)
		}
	}
	wantSecret(t, s, good, good, "kept", v)
}

func unfit(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	secret := func(n int) broker.Secret { return broker.NewSecret(bytes.Repeat([]byte("s"), n)) }
	for name, c := range map[string]*broker.Credential{
		"no kind":            {Secret: secret(1)},
		"unknown kind":       {Kind: "psychic", Secret: secret(1)},
		"no secret":          {Kind: broker.KindPassword},
		"secret too long":    {Kind: broker.KindPassword, Secret: secret(broker.MaxSecret + 1)},
		"login too long":     {Kind: broker.KindPassword, Secret: secret(1), Username: strings.Repeat("u", broker.MaxUsername+1)},
		"line end in login":  {Kind: broker.KindPassword, Secret: secret(1), Username: "a\r\nb"},
		"login is not UTF-8": {Kind: broker.KindPassword, Secret: secret(1), Username: "\xff"},
		"NUL in password":    {Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("a\x00b"))},
		"space in token":     {Kind: broker.KindAccessToken, Secret: broker.NewSecret([]byte("a b"))},
		"control in token":   {Kind: broker.KindAccessToken, Secret: broker.NewSecret([]byte("a\x01auth=b"))},
		"line end in token":  {Kind: broker.KindAccessToken, Secret: broker.NewSecret([]byte("a\r\n"))},
		"token is not ASCII": {Kind: broker.KindAccessToken, Secret: broker.NewSecret([]byte("ä"))},
		"no JSON object":     {Kind: broker.KindOAuth2Client, Secret: broker.NewSecret([]byte("secret"))},
		"half an object":     {Kind: broker.KindOAuth2Refresh, Secret: broker.NewSecret([]byte(`{"a":`))},
		"negative version":   {Kind: broker.KindPassword, Secret: secret(1), Version: -1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.SetCredential(t.Context(), firm, mailbox, c)
			wantCode(t, err, broker.Invalid)
		})
	}
	_, err := s.Credential(t.Context(), firm, mailbox)
	wantCode(t, err, broker.NotFound)
}

func oneWriterWins(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	v := mustSet(t, s, firm, mailbox, Password("start", 0))
	var wins atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			secret := fmt.Sprintf("writer %d", i)
			switch _, err := s.SetCredential(t.Context(), firm, mailbox, Password(secret, v)); broker.CodeOf(err) {
			case "":
				wins.Add(1)
				winner.Store(secret)
			case broker.Conflict:
			default:
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d of 8 writers of one version succeeded, want 1", wins.Load())
	}
	now, err := s.CredentialVersion(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	wantSecret(t, s, firm, mailbox, winner.Load().(string), now)
}

func wholeWrites(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	secret := func(i int) string { return strings.Repeat(string(rune('a'+i)), 100+i) }
	v := mustSet(t, s, firm, mailbox, Password(secret(0), 0))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := 0; ; {
				c, err := s.Credential(t.Context(), firm, mailbox)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				got := c.Secret.Reveal()
				if string(got) != secret(int(got[0]-'a')) || c.Version < last {
					t.Errorf("got %q of version %d after version %d", got, c.Version, last)
					return
				}
				last = c.Version
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := 1; i < 10; i++ {
		v = mustSet(t, s, firm, mailbox, Password(secret(i), v))
	}
	close(done)
	wg.Wait()
}

func cancelled(t *testing.T, s broker.Credentials) {
	firm, mailbox := broker.NewID(), broker.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Credential(ctx, firm, mailbox)
	wantCode(t, err, broker.Unavailable)
	_, err = s.SetCredential(ctx, firm, mailbox, Password("x", 0))
	wantCode(t, err, broker.Unavailable)
	_, err = s.CredentialVersion(ctx, firm, mailbox)
	wantCode(t, err, broker.Unavailable)
	wantCode(t, s.DeleteCredential(ctx, firm, mailbox), broker.Unavailable)
	wantCode(t, s.Ready(ctx), broker.Unavailable)
	_, err = s.Credential(t.Context(), firm, mailbox)
	wantCode(t, err, broker.NotFound)
}

func noSecretInErrors(t *testing.T, s broker.Credentials) {
	const marked = "marked-5ecret\x01"
	firm, mailbox := broker.NewID(), broker.NewID()
	v := mustSet(t, s, firm, mailbox, Password(marked, 0))
	_, conflict := s.SetCredential(t.Context(), firm, mailbox, Password(marked, 0))
	_, invalid := s.SetCredential(t.Context(), firm, mailbox, &broker.Credential{Kind: "psychic", Secret: broker.NewSecret([]byte(marked)), Version: v})
	_, badID := s.SetCredential(t.Context(), "..", mailbox, Password(marked, v))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, gone := s.SetCredential(ctx, firm, mailbox, Password(marked, v))
	for _, err := range []error{conflict, invalid, badID, gone} {
		if err == nil {
			t.Error("there is no error")
		}
		NoSecret(t, err, marked)
	}
	c, err := s.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	NoSecret(t, c, marked)
}

// NoSecret fails when a value, printed or encoded in any usual way, holds the
// secret, plain or in base64.
func NoSecret(t testing.TB, value any, secret string) {
	t.Helper()
	encoded, err := json.Marshal(value)
	forms := []string{fmt.Sprintf("%v %+v %#v %s %q", value, value, value, value, value), string(encoded), fmt.Sprint(err)}
	for e, ok := value.(error); ok && e != nil; e = errors.Unwrap(e) {
		forms = append(forms, fmt.Sprintf("%v %+v %#v", e, e, e))
	}
	for _, form := range forms {
		for _, hidden := range []string{
			secret, strings.TrimRight(secret, "\x01"), fmt.Sprintf("%v", []byte(secret)), fmt.Sprintf("%x", secret),
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(form, hidden) {
				t.Errorf("a secret shows in %T: %s", value, form)
			}
		}
	}
}

func ready(t *testing.T, s broker.Credentials) {
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}
