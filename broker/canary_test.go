// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/json"
	"testing"
)

// TestCanariesIn: which records tell that a canary was opened, from their structs
// and from their JSON.
func TestCanariesIn(t *testing.T) {
	placed := &Canary{ID: NewID(), Folder: "Board", UIDValidity: 7, UID: 17}
	named := &Canary{ID: NewID(), MessageID: "<Minutes@acme.example>"}
	both := &Canary{ID: NewID(), Folder: "Board", UIDValidity: 7, UID: 18, MessageID: "<both@acme.example>"}
	opened := func(folder string, validity uint32, all ...OpenedMessage) MessageOpen {
		return MessageOpen{Folder: folder, UIDValidity: validity, Messages: all}
	}
	change := func(set, copyUID string) MessageChange {
		return MessageChange{Folder: "Board", UIDValidity: 7, Set: set, UIDs: true, CopyUID: copyUID}
	}
	numbers := change("1:*", "")
	numbers.UIDs = false
	elsewhere := change("17", "")
	elsewhere.UIDValidity = 8
	refused := change("17", "")
	refused.Outcome = ChangeRefused
	for name, test := range map[string]struct {
		typ  EventType
		data any
		want map[*Canary]CanaryHow
		n    int
	}{
		"read":             {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 17}), map[*Canary]CanaryHow{placed: CanaryRead}, 1},
		"another folder":   {EventMessageOpen, opened("INBOX", 7, OpenedMessage{UID: 17}), nil, 1},
		"made anew":        {EventMessageOpen, opened("Board", 8, OpenedMessage{UID: 17}), nil, 1},
		"another message":  {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 16}), nil, 1},
		"a UID that came":  {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 17, Continues: true}), map[*Canary]CanaryHow{placed: CanaryRead}, 0},
		"no UID":           {EventMessageOpen, opened("Board", 7, OpenedMessage{Seq: 17}), nil, 1},
		"in parts":         {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 17, Section: "BODY[1]"}, OpenedMessage{UID: 17, Section: "BODY[2]"}), map[*Canary]CanaryHow{placed: CanaryRead}, 1},
		"by its name":      {EventMessageOpen, opened("INBOX", 3, OpenedMessage{UID: 1, MessageID: "<minutes@ACME.example>"}), map[*Canary]CanaryHow{named: CanaryRead}, 1},
		"another name":     {EventMessageOpen, opened("INBOX", 3, OpenedMessage{UID: 1, MessageID: "<minutes@acme.example.test>"}), nil, 1},
		"both, once":       {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 18, MessageID: "<both@acme.example>"}), map[*Canary]CanaryHow{both: CanaryRead}, 1},
		"several":          {EventMessageOpen, opened("Board", 7, OpenedMessage{UID: 17}, OpenedMessage{UID: 18}, OpenedMessage{UID: 19}), map[*Canary]CanaryHow{placed: CanaryRead, both: CanaryRead}, 3},
		"named afterwards": {EventMessageIdentify, MessageIdentify{Folder: "INBOX", UIDValidity: 3, UID: 1, MessageID: "<minutes@acme.example>"}, map[*Canary]CanaryHow{named: CanaryRead}, 0},
		"found before":     {EventMessageIdentify, MessageIdentify{Folder: "Board", UIDValidity: 7, UID: 18, MessageID: "<both@acme.example>"}, nil, 0},
		"moved since":      {EventMessageIdentify, MessageIdentify{Folder: "INBOX", UIDValidity: 3, UID: 9, MessageID: "<both@acme.example>"}, map[*Canary]CanaryHow{both: CanaryRead}, 0},

		"copied":                  {EventMessageCopy, change("1:17", ""), map[*Canary]CanaryHow{placed: CanaryCopied}, 0},
		"moved":                   {EventMessageMove, change("17,40", "9 17,40 1:2"), map[*Canary]CanaryHow{placed: CanaryMoved}, 0},
		"refused":                 {EventMessageMove, refused, map[*Canary]CanaryHow{placed: CanaryMoved}, 0},
		"up to the last":          {EventMessageCopy, change("18:*", ""), map[*Canary]CanaryHow{both: CanaryCopied}, 0},
		"from the last":           {EventMessageCopy, change("*:18", ""), map[*Canary]CanaryHow{both: CanaryCopied}, 0},
		"another set":             {EventMessageCopy, change("1:16,19:40", ""), nil, 0},
		"what was in fact copied": {EventMessageCopy, change("1:40", "9 16,19 1:2"), nil, 0},
		"the folder was remade":   {EventMessageCopy, elsewhere, nil, 0},
		"numbers":                 {EventMessageCopy, numbers, nil, 0},
		"a set that was cut":      {EventMessageCopy, change("1,3,5…", ""), map[*Canary]CanaryHow{placed: CanaryCopied, both: CanaryCopied}, 0},
		"an answer that was cut":  {EventMessageCopy, change("1:40", "9 1,3,5…"), map[*Canary]CanaryHow{placed: CanaryCopied, both: CanaryCopied}, 0},
		"a type of none":          {EventMessageFlag, change("17", ""), nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := json.Marshal(test.data)
			if err != nil {
				t.Fatal(err)
			}
			for _, data := range []any{test.data, json.RawMessage(raw)} {
				found, n, err := CanariesIn(&Event{Type: test.typ, Data: data}, []*Canary{placed, named, both})
				if err != nil || n != test.n || len(found) != len(test.want) {
					t.Fatalf("found %+v, %d messages, %v", found, n, err)
				}
				for _, f := range found {
					if how, ok := test.want[f.Canary]; !ok || how != f.How {
						t.Errorf("found %+v %s", f.Canary, f.How)
					}
				}
			}
		})
	}
	for _, typ := range []EventType{EventMessageOpen, EventMessageIdentify, EventMessageCopy, EventMessageMove} {
		if _, _, err := CanariesIn(&Event{Type: typ, Data: Drift{}}, []*Canary{placed}); err == nil {
			t.Errorf("%s with another's data", typ)
		}
		if !TellsOpenings(typ) {
			t.Errorf("%s tells of none", typ)
		}
	}
}
