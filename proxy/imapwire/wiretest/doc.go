// SPDX-License-Identifier: Apache-2.0

// Package wiretest is what tests of Postern's IMAP compare with: readers of the
// protocol that share nothing with package imapwire and are as simple as can
// be, and what mail clients and mail servers say, for fuzzing to begin from:
// one file for each, written in its manner of speaking. Only tests import it;
// those of package imapwire see to it that each entry of a client lexes and
// each answer of a server is framed.
//
// Entries are separated by lines of "%%". An entry of a client is a command
// with its literals, one of a server is a response or a few. Lines end in CRLF
// once loaded, and the sizes of literals count them so.
package wiretest

import (
	"embed"
	"path"
	"strings"
)

//go:embed clients/*.txt servers/*.txt
var files embed.FS

// Entry is one piece of a file.
type Entry struct {
	// From is the file it stands in, without its ending.
	From string
	// Octets are as they stand on the wire.
	Octets []byte
}

// Clients returns the commands of all clients, each client's in their order.
func Clients() []Entry { return load("clients") }

// Servers returns the answers of all servers.
func Servers() []Entry { return load("servers") }

// load panics where a file that was embedded cannot be read.
func load(folder string) []Entry {
	list, err := files.ReadDir(folder)
	if err != nil {
		panic(err)
	}
	var all []Entry
	for _, f := range list {
		b, err := files.ReadFile(path.Join(folder, f.Name()))
		if err != nil {
			panic(err)
		}
		for entry := range strings.SplitSeq(string(b), "%%\n") {
			all = append(all, Entry{
				From:   strings.TrimSuffix(f.Name(), ".txt"),
				Octets: []byte(strings.ReplaceAll(entry, "\n", "\r\n")),
			})
		}
	}
	return all
}

// Sessions returns what each client says, in one piece.
func Sessions() map[string][]byte {
	all := make(map[string][]byte)
	for _, e := range Clients() {
		all[e.From] = append(all[e.From], e.Octets...)
	}
	return all
}
