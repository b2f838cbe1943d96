// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // so that it decodes as clients do

	"github.com/postern-mail/postern/policy"
)

// FuzzInspector: it says the same whatever pieces a message comes in, and what
// it lets pass a lenient reader, which shares nothing with it, sees no file and
// no blocked text in.
func FuzzInspector(f *testing.F) {
	for _, s := range []string{
		"Subject: x\r\n\r\nneedle\r\n", mixed("\nneedle", "Content-Type: text/html\n\nx"), mixed("Content-Type: message/rfc822\n\nSubject: needle\n\nx"),
		"Content-Transfer-Encoding: base64\r\n\r\nbmVlZGxl\r\n", "Content-Transfer-Encoding: quoted-printable\r\n\r\nnee=64le\r\n",
		mixed("Content-Type: multipart/alternative; boundary=\"i n\"\n\n--i n\n\nx\n--i n--"), mixed("Content-Type: text/plain; name*0*=utf-8''a; name*1=b\n\nx"),
		"Content-Type: text/html; charset=utf-8\r\n\r\nn<b>ee</b>dle&#110;\r\n", "Content-Type: multipart/digest; boundary=B\r\n\r\n--B\r\n\r\nSubject: x\r\n\r\nx\r\n--B--\r\n",
		"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\nnee \r\ndle\r\n", "Subject: =?utf-8?b?bmVlZGxl?=\r\n\r\nbegin 644 x\r\n", mixed("\nx") + "--B\r\n\r\nneedle\r\n",
	} {
		f.Add([]byte(s), uint8(7))
	}
	rules := policy.Sending{NoAttachments: true, Content: []policy.ContentRule{{Name: "needle", Pattern: "needle", Block: true}}}
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		// The wire passes whole lines, and a header before.
		text := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(string(in), "\x00", ""), "\r", ""), "\n", "\r\n")
		_, whole := inspectWhole(t, rules, text, 1<<20)
		_, pieces := inspectWhole(t, rules, text, int(piece)+1)
		if (whole == nil) != (pieces == nil) || errors.Is(whole, errBlocked) != errors.Is(pieces, errBlocked) {
			t.Fatalf("whole: %v, in pieces of %d: %v", whole, piece+1, pieces)
		}
		if whole != nil {
			return
		}
		entity, err := gomessage.Read(strings.NewReader(text))
		if entity == nil || err != nil {
			return // another reader cannot read it
		}
		_ = entity.Walk(func(path []int, e *gomessage.Entity, err error) error {
			if err != nil {
				return err
			}
			kind, params, _ := e.Header.ContentType()
			disposition, named, _ := e.Header.ContentDisposition()
			if params["name"] != "" || named["filename"] != "" || disposition == "attachment" {
				t.Fatalf("a file passed: %q", text)
			}
			if e.MultipartReader() != nil {
				return nil
			}
			if kind != "text/plain" && kind != "text/html" {
				t.Fatalf("a part of type %s passed: %q", kind, text)
			}
			body, err := io.ReadAll(e.Body)
			if err == nil && bytes.Contains(body, []byte("needle")) {
				t.Fatalf("a needle passed in part %v: %q", path, text)
			}
			return nil
		})
	})
}
