// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file is how a view learns which messages of the selected folder are visible.

// slicedClose: CLOSE expunges what is visible, silently, where it may.
func (s *clientSide) slicedClose(name string) error {
	v := s.r.view
	if !v.mail.isOpen() {
		return s.answer("BAD", noneSelected)
	}
	if name == "CLOSE" && !v.examined {
		if refusal, err := s.expungeVisible(0); err != nil {
			return err
		} else if refusal != nil {
			return s.answerAs(refusal)
		}
	}
	v.mail.reset()
	if !s.r.upstream.has(offersUnselect | offersRev2) {
		return s.answer("NO", "[CANNOT] the mail server cannot leave a folder; select another instead")
	}
	if _, err := s.askFlight([]byte("UNSELECT"), inFlight{kind: closing}); err != nil {
		return err
	}
	return s.answer("OK", "done")
}

// slicedSelect selects a folder and asks which of its messages are visible.
func (s *clientSide) slicedSelect(name string) error {
	v := s.r.view
	f, err := s.find(s.judged.folder, true)
	if err != nil {
		return err
	}
	v.mail.reset()
	v.opened, v.headed = nil, nil
	if f == nil || !f.selectable() {
		if err := s.unselect(); err != nil {
			return err
		}
		return s.answer("NO", noSuchFolder)
	}
	answer, err := s.askFlight(appendQuotedString([]byte(name+" "), f.raw), inFlight{kind: selecting, change: s.changeFor(name, &s.judged)})
	if err != nil {
		return err
	}
	if !answer.good {
		return s.answerAs(answer)
	}
	v.examined, v.folder = name == "EXAMINE", f.name
	text := "done"
	if strings.EqualFold(answer.code, "READ-ONLY") || strings.EqualFold(answer.code, "READ-WRITE") {
		text = "[" + strings.ToUpper(answer.code) + "] done"
	}
	if refusal, err := s.askVisible("ALL", ""); err != nil {
		return err
	} else if refusal != "" {
		v.mail.reset()
		if err := s.unselect(); err != nil {
			return err
		}
		return s.answer("NO", refusal)
	}
	v.mail.mu.Lock()
	n := len(v.mail.client)
	v.mail.mu.Unlock()
	if n == 0 {
		s.r.say("* 0 EXISTS\r\n")
	}
	s.r.sayChanges(false, "* 0 RECENT\r\n")
	return s.answer("OK", text)
}

// askVisible asks which messages there are within a range, and which of them
// are visible.
func (s *clientSide) askVisible(all, within string) (refusal string, err error) {
	v := s.r.view
	for range maxAsked {
		v.mail.ask()
		there, err := s.ask("UID SEARCH "+all, nil)
		if err != nil {
			return "", err
		}
		v.day = today()
		chosen, err := s.ask("UID SEARCH "+within+v.keys(v.day), nil)
		if err != nil {
			return "", err
		}
		if !there.good || !chosen.good {
			return "[UNAVAILABLE] the mail server does not tell what may be shown", nil
		}
		slices.Sort(there.numbers)
		slices.Sort(chosen.numbers)
		switch v.mail.learn(slices.Compact(there.numbers), chosen.numbers) {
		case learnedAll:
			return "", nil
		case learnedTooMany:
			return "[LIMIT] there are more messages than can be shown in part", nil
		}
	}
	return "[UNAVAILABLE] messages go while the mail server is asked which may be shown", nil
}

// keys are the slices' search keys on a day.
func (v *view) keys(day time.Time) string {
	if len(v.programs) == 0 {
		return "ALL"
	}
	all := make([]string, len(v.programs))
	for i, p := range v.programs {
		all[i] = "(" + p.Keys(day) + ")"
	}
	return strings.Join(all, " ")
}

// today is the day that relative dates count from: one zone for all.
func today() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

// errNotShown says that the upstream does not tell any more what is visible.
var errNotShown = fmt.Errorf("%w any more", errFolders)

// catchUp asks whether what came since is visible, and, where that may have
// changed, whether what was visible still is; fresh: in any case. What was
// hidden comes into view when the folder is selected again.
func (s *clientSide) catchUp(fresh bool) error {
	v := s.r.view
	if again := v.relative && !v.day.Equal(today()) || len(v.flags) > 0 && (fresh || v.touched.Swap(false)); again {
		v.day = today()
		chosen, err := s.ask("UID SEARCH "+v.keys(v.day), nil)
		if err != nil {
			return err
		}
		if !chosen.good {
			return errNotShown
		}
		slices.Sort(chosen.numbers)
		v.mail.keep(chosen.numbers)
	}
	if v.mail.hasArrived() || fresh {
		v.mail.mu.Lock()
		from := v.mail.last() + 1
		v.mail.mu.Unlock()
		within := fmt.Sprintf("UID %d:*", from)
		if refusal, err := s.askVisible(within, within+" "); err != nil {
			return err
		} else if refusal != "" {
			return errNotShown
		}
	}
	return nil
}

// freshened ends a command that asks for news.
func (s *clientSide) freshened(text string) error {
	if s.r.view.mail.isOpen() {
		if err := s.catchUp(true); err != nil {
			return err
		}
	}
	return s.settled("OK", text, true)
}

// settled tells the client what has changed, where its numbers may change, and
// answers.
func (s *clientSide) settled(status, text string, expunge bool) error {
	s.r.sayChanges(expunge, "")
	return s.answer(status, text)
}

func (m *mailMap) isOpen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

func (m *mailMap) hasArrived() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.arrived
}
