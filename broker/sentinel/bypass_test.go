// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"testing"
)

// TestAFolderThatHadOthersBelowIsMissed: of a folder that is deleted and has others
// below it servers leave the name, which nothing lies under any more.
func TestAFolderThatHadOthersBelowIsMissed(t *testing.T) {
	for _, left := range []string{`\Noselect`, `\NonExistent`} {
		server := &mailServer{folders: map[string]*mailFolder{
			"INBOX":     {validity: 1, modSeq: 1},
			"Clients":   {validity: 2, modSeq: 1, messages: []message{{1, "", "<a@b.example>"}}},
			"Clients/A": {validity: 3, modSeq: 1},
		}}
		w := newWatcher(t, server)
		server.folders["Clients"] = &mailFolder{attributes: left}
		w.look()
		w.wantFound("folder: Clients")
	}
}
