// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"errors"
	"slices"
	"strings"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// errFolders says that an upstream does not list its folders.
var errFolders = errors.New("the upstream does not list its folders")

// What the view says of a name that it does not hold: whether a folder is
// hidden or nobody has one is all the same.
const (
	noSuchFolder = "[NONEXISTENT] there is no such folder"
	tryCreate    = "[TRYCREATE] there is no such folder"
	cannotBe     = "[CANNOT] there can be no folder of this name"
	folderRefuse = "[CANNOT] the mail server refuses"
	noDelete     = "[NOPERM] a folder may hold messages that you do not see"
	existsThere  = "[ALREADYEXISTS] there is such a folder"
)

// maxListPatterns is how many octets of patterns a LIST may have in a view:
// each is compared with each folder.
const maxListPatterns = 2048

// viewCommand does what a view does otherwise than a session that is shown
// everything, with a command that was judged and is allowed. false: the command
// goes upstream as usual, its names being the upstream's own now.
func (s *clientSide) viewCommand(entry *command, skip int) (done bool, err error) {
	cmd := s.lexer.Command()
	if s.r.view.sliced() {
		if done, err := s.slicedCommand(entry, skip); done || err != nil {
			return true, err
		}
	}
	at := skip
	missing := noSuchFolder
	switch strings.TrimPrefix(entry.name, "UID ") {
	case "LIST", "LSUB":
		return true, s.viewList(cmd, entry.name == "LSUB")
	case "CREATE", "DELETE", "RENAME", "SUBSCRIBE", "UNSUBSCRIBE":
		return true, s.viewFolderChange(entry.name)
	case "SELECT", "EXAMINE", "STATUS":
	case "COPY", "MOVE":
		at, missing = skip+1, tryCreate
	default:
		return false, nil
	}
	f, err := s.find(cmd.Value(cmd.Args()[at]), !entry.numbers)
	if err != nil {
		return true, err
	}
	if f == nil || !f.selectable() {
		s.r.view.stale = s.r.view.stale || entry.numbers // somebody may have made it
		if entry.name == "SELECT" || entry.name == "EXAMINE" {
			if err := s.unselect(); err != nil {
				return true, err
			}
		}
		return true, s.answer("NO", missing)
	}
	cmd.SetArg(at, cmd.NewQuoted(f.raw, true))
	return false, nil
}

// unselect leaves the selected folder, as a SELECT that fails does (RFC 9051
// §6.3.2).
func (s *clientSide) unselect() error {
	if !s.r.upstream.has(offersUnselect | offersRev2) {
		return nil
	}
	_, err := s.ask("UNSELECT", nil)
	return err
}

// viewAppend is viewCommand for APPEND, up to its first message.
func (s *clientSide) viewAppend() (text string, err error) {
	cmd := s.lexer.Command()
	f, err := s.find(cmd.Value(cmd.Args()[0]), true)
	if err != nil || f == nil || !f.selectable() {
		return tryCreate, err
	}
	cmd.SetArg(0, cmd.NewQuoted(f.raw, true))
	return "", nil
}

// withheld returns the extension or command that the view does not model and
// the command uses; "": none.
func (v *view) withheld(entry *command, j *judgement) string {
	switch {
	case v == nil:
		return ""
	case viewCommands[entry.name]:
		return entry.name
	case j.uses&(usesCatenate|usesUTF8) != 0:
		return "this kind of APPEND"
	case string(j.set) == "$":
		return "SEARCHRES"
	case v.sliced() && j.beyondSlice != "":
		return j.beyondSlice
	case v.sliced() && strings.HasSuffix(entry.name, "THREAD"):
		return "THREAD"
	}
	return j.beyondView
}

// viewList answers LIST and LSUB from the visible folders.
func (s *clientSide) viewList(cmd *imapwire.Command, lsub bool) error {
	o := readListOptions(cmd, lsub)
	n := 0
	for _, p := range o.patterns {
		n += len(o.reference) + len(p)
	}
	if n > maxListPatterns {
		return s.answer("BAD", "patterns that are too long")
	}
	list, err := s.folders(true)
	if err != nil {
		return err
	}
	s.r.say("%s", list.appendList(nil, &o))
	return s.answer("OK", "done")
}

// viewFolderChange carries out CREATE, DELETE, RENAME, SUBSCRIBE and
// UNSUBSCRIBE. The upstream's own words could tell of what is hidden: below a
// folder, or in its place.
func (s *clientSide) viewFolderChange(name string) error {
	if name == "DELETE" && len(s.r.view.programs) > 0 {
		return s.answer("NO", noDelete)
	}
	list, err := s.folders(true)
	if err != nil {
		return err
	}
	j := &s.judged
	var args []string
	var refusal string
	switch name {
	case "CREATE":
		args, refusal = s.viewCreate(list)
	case "RENAME":
		args, refusal = s.viewRename(list)
	default:
		f, err := s.find(j.folder, true)
		switch {
		case err != nil:
			return err
		case f == nil || (name != "UNSUBSCRIBE" && !f.exists) || f.made:
			refusal = noSuchFolder
		default:
			args = []string{f.raw}
		}
	}
	if refusal != "" {
		return s.answer("NO", refusal)
	}
	line := []byte(name)
	for _, a := range args {
		line = appendQuotedString(append(line, ' '), a)
	}
	answer, err := s.ask(string(line), s.changeFor(name, j))
	if err != nil {
		return err
	}
	// Now, and not later: a command that comes behind the answer may hold
	// message numbers, which an own command must not come before.
	if _, err := s.folders(true); err != nil {
		return err
	}
	if !answer.good {
		return s.answer("NO", folderRefuse)
	}
	return s.answer("OK", "done")
}

// viewCreate returns the argument for CREATE, or why there is none. A special
// use is the upstream's to hand out: it could be that of a hidden folder.
func (s *clientSide) viewCreate(list *folderList) ([]string, string) {
	raw := s.judged.folder
	if n := len(raw); n > 1 && list.delimiter != 0 && raw[n-1] == list.delimiter {
		raw = raw[:n-1] // it says that folders will be made below (RFC 9051 §6.3.4)
	}
	name, ok := folderName(raw, list.delimiter)
	switch {
	case len(s.lexer.Command().Args()) > 1, !ok, !s.r.view.creatable(list, name):
		return nil, cannotBe
	case list.byName[name] == nil:
		return []string{string(raw)}, ""
	case !list.byName[name].visible:
		return nil, folderRefuse
	case list.byName[name].selectable():
		return nil, existsThere
	}
	return []string{list.byName[name].raw}, ""
}

// viewRename returns RENAME's arguments. What lies below the folder goes with
// it: none of that may be shown that was hidden, nor hidden that was shown.
func (s *clientSide) viewRename(list *folderList) ([]string, string) {
	v := s.r.view
	from, ok := folderName(s.judged.folder, list.delimiter)
	f := list.byName[from]
	if !ok || f == nil || !f.visible || !f.exists {
		return nil, noSuchFolder
	}
	to, ok := folderName(s.judged.target, list.delimiter)
	if !ok || !v.creatable(list, to) {
		return nil, cannotBe
	}
	if other := list.byName[to]; other != nil {
		if other.visible {
			return nil, existsThere
		}
		return nil, folderRefuse
	}
	for _, x := range list.all {
		below, ok := strings.CutPrefix(x.name, from+string(rune(x.delimiter)))
		if !ok || x.delimiter == 0 || from == "INBOX" { // whose messages move alone (RFC 9051 §6.3.6)
			continue
		}
		if after := to + string(rune(x.delimiter)) + below; v.decision.Visible(after, x.delimiter) != x.visible {
			return nil, folderRefuse
		}
	}
	return []string{f.raw, string(s.judged.target)}, ""
}

// creatable reports whether a folder may be made under a decoded name. It must
// be visible whichever delimiter takes it apart, and nothing that a server could
// take for another path.
func (v *view) creatable(list *folderList, name string) bool {
	if strings.ContainsAny(name, "%*\\") || strings.ContainsAny(name[:1], "~#/. ") || strings.HasSuffix(name, " ") {
		return false
	}
	delimiters := list.delimiters
	if len(delimiters) == 0 {
		delimiters = []byte{0}
	}
	for _, d := range delimiters {
		if !v.decision.Creatable(name, d) {
			return false
		}
		if d != 0 && slices.ContainsFunc(strings.Split(name, string(rune(d))), badLevel) {
			return false
		}
	}
	return true
}

func badLevel(level string) bool { return level == "" || level == "." || level == ".." }

// ask sends a command of Postern's own and returns what the upstream answers.
// Nothing of the client's is under way then.
func (s *clientSide) ask(command string, c *change) (*ownAnswer, error) {
	return s.askFlight([]byte(command), inFlight{change: c})
}
