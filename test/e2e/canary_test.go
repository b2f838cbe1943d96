// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// person runs postern as a firm's person.
type person struct {
	w     *World
	token string
}

// claimFirm has a firm's first admin redeem its claim.
func (w *World) claimFirm(firm, name string) *person {
	w.t.Helper()
	p := &person{w, filepath.Join(servers.TempDir(w.t), name+".token")}
	claim := decodeCLI[httpapi.ClaimCreated](w.Postern, "firm", "claim", firm).Claim
	if _, stderr, code := w.Postern.Remote("", claim, "claim", "--name", name, "--save", p.token); code != 0 {
		w.t.Fatalf("claim: exit code %d: %s", code, stderr)
	}
	return p
}

func (p *person) run(args ...string) string {
	p.w.t.Helper()
	return p.runInput("", args...)
}

func (p *person) runInput(stdin string, args ...string) string {
	p.w.t.Helper()
	stdout, stderr, code := p.w.Postern.Remote(p.token, stdin, args...)
	if code != 0 {
		p.w.t.Fatalf("postern %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// canaryAlerts are what he sees of canaries, oldest first.
func (p *person) canaryAlerts() []*httpapi.Alert {
	p.w.t.Helper()
	var list httpapi.List[*httpapi.Alert]
	if err := json.Unmarshal([]byte(p.run("--json", "alert", "list", "--kind", string(broker.AlertCanary))), &list); err != nil {
		p.w.t.Fatal(err)
	}
	slices.Reverse(list.Items)
	return list.Items
}

// TestCanary: whoever opens a marked message is alerted on, with his workstation,
// by whatever it was marked; the opening of others raises none. The BPO sees who it
// was, and not which message; another firm sees nothing. A client that synchronises
// the folder opens it as well, and the alert says so.
func TestCanary(t *testing.T) {
	servers.NeedPrograms(t, map[string]string{"mbsync": "isync"})
	const address, messages = "sales@acme.example", 30
	w := NewWorld(t, WorldOptions{
		Sealed: true, Mailboxes: []string{address},
		Postern: Options{Config: "sentinel:\n  interval: 24h\n"}, // it looks when it is asked
	})
	for _, folder := range []string{"INBOX", "Archive"} {
		w.Dovecot.Fill(address, folder, messages, func(i int) []byte {
			return letter(fmt.Sprintf("m%d-%s@outside.example", i+1, strings.ToLower(folder)), "m")
		})
	}
	reader, syncer := w.Seat(address), w.Seat(address)
	w.look(t, address)
	w.Postern.CLI("firm", "create", "Rival", "--contact", "it@rival.example")
	firm, rival := w.claimFirm(FirmName, "priya"), w.claimFirm("Rival", "rohan")

	firm.run("canary", "add", address, "--folder", "INBOX", "--uid", "3")
	firm.run("canary", "add", address, "--message-id", "<m25-inbox@outside.example>", "--note", "bait")
	firm.run("canary", "add", address, "--folder", "Archive", "--uid", "7", "--message-id", "<m7-archive@outside.example>")
	if _, stderr, code := w.Postern.TryCLI("", "canary", "list", address); code != 3 || !strings.Contains(stderr, "not for your role") {
		t.Errorf("the BPO lists canaries: exit code %d: %s", code, stderr)
	}
	if _, stderr, code := w.Postern.TryCLI("", "canary", "add", address, "--folder", "INBOX", "--uid", "9"); code != 3 {
		t.Errorf("the BPO marks one: exit code %d: %s", code, stderr)
	}
	if text := firm.run("canary", "list", address); !strings.Contains(text, "INBOX, UID 3") || !strings.Contains(text, "bait") {
		t.Errorf("listed:\n%s", text)
	}

	agent := reader.IMAP(t)
	agent.OK("SELECT INBOX")
	agent.OK("UID FETCH 2,4 (BODY[])")
	agent.OK("UID FETCH 3 (FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER])") // shows it in a list, and opens nothing
	reader.AwaitEvents(1, broker.EventMessageOpen)
	if got := firm.canaryAlerts(); len(got) > 0 {
		t.Fatalf("before it was opened: %+v", got[0])
	}
	agent.OK("UID FETCH 3 (BODY.PEEK[])")
	reader.AwaitEvents(1, broker.EventCanaryOpened)
	all := firm.canaryAlerts()
	if len(all) != 1 {
		t.Fatalf("%d alerts", len(all))
	}
	x := all[0]
	if x.Agent != reader.Agent || x.Workstation != reader.Workstation || x.Mailbox != address || x.Severity != broker.SeverityCritical ||
		x.State != broker.AlertOpen || x.Count != 1 || x.Canary == nil || x.Canary.Folder != "INBOX" || x.Canary.UID != 3 || x.Detail != "read" {
		t.Errorf("the alert: %+v, of %+v", x, x.Canary)
	}
	if text := firm.run("alert", "show", string(x.ID)); !strings.Contains(text, "INBOX, UID 3") || !strings.Contains(text, reader.Workstation) {
		t.Errorf("shown:\n%s", text)
	}

	// Again, in another session, and carried away: counted.
	again := reader.IMAP(t)
	again.OK("SELECT INBOX")
	again.OK("UID FETCH 3 (BODY[TEXT])")
	again.OK("COPY 3 Drafts") // by its number; COPYUID tells
	reader.AwaitEvents(3, broker.EventCanaryOpened)
	if all = firm.canaryAlerts(); len(all) != 1 || all[0].Count != 3 || all[0].Detail != "copied" || all[0].ID != x.ID {
		t.Errorf("after three openings: %+v", all)
	}
	// Without its header it is known by its Message-ID all the same.
	again.OK("UID FETCH 25 (BODY.PEEK[TEXT])")
	again.OK("NOOP")
	reader.AwaitEvents(4, broker.EventCanaryOpened)
	if all = firm.canaryAlerts(); len(all) != 2 || all[1].Canary == nil || all[1].Canary.Note != "bait" {
		t.Errorf("by its Message-ID: %+v", all)
	}

	seen := decodeCLI[httpapi.Alert](w.Postern, "alert", "show", string(x.ID))
	if seen.Agent != reader.Agent || seen.Workstation != reader.Workstation || seen.Canary != nil {
		t.Errorf("the BPO sees %+v", seen)
	}
	if got := rival.canaryAlerts(); len(got) > 0 {
		t.Errorf("another firm sees %+v", got[0])
	}
	if _, stderr, code := w.Postern.Remote(rival.token, "", "canary", "remove", string(all[1].Canary.ID)); code != 4 || !strings.Contains(stderr, "no such canary") {
		t.Errorf("another firm removes it: exit code %d: %s", code, stderr)
	}

	m := newMaildir(t, w, syncer)
	m.sync()
	syncer.AwaitEvents(3, broker.EventCanaryOpened)
	var details []string
	for _, a := range firm.canaryAlerts() {
		if a.Agent == syncer.Agent {
			details = append(details, fmt.Sprintf("%s %d: %s", a.Canary.Folder, a.Canary.UID, a.Detail))
			if a.Count != 1 || !strings.Contains(a.Detail, "in a bulk download") {
				t.Errorf("of a whole folder's synchronisation: %d times, %s", a.Count, a.Detail)
			}
		}
	}
	if len(details) != 3 {
		t.Errorf("of a whole folder's synchronisation: %q", details)
	}
	if all = firm.canaryAlerts(); all[0].Count != 3 || all[0].Agent != reader.Agent {
		t.Errorf("the first agent's, after it: %+v", all[0])
	}

	// What is no canary any more raises none.
	before := len(reader.Events(broker.EventCanaryOpened))
	firm.run("canary", "remove", string(x.Canary.ID))
	agent.OK("UID FETCH 3 (BODY[])")
	agent.OK("UID FETCH 25 (BODY[])") // which follows it in the record
	reader.AwaitEvents(before+1, broker.EventCanaryOpened)
	if got := reader.Events(broker.EventCanaryOpened); len(got) != before+1 {
		t.Errorf("%d openings, want %d", len(got), before+1)
	}
	w.CheckNothingLeaked()
}
