// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

// secretRule blocks the word that the tests hide.
var secretRule = []policy.ContentRule{{Name: "secret", Pattern: `(?i)confidential plan`, Block: true}}

// inspectWhole runs an inspector over a message in pieces of a size.
func inspectWhole(t testing.TB, rules policy.Sending, message string, piece int) (*inspector, error) {
	t.Helper()
	compiled, err := newContentRules(&rules)
	if err != nil {
		t.Fatal(err)
	}
	i := newInspector(compiled)
	defer i.abandon()
	for rest := message; len(rest) > 0; {
		n := min(piece, len(rest))
		if err := i.write([]byte(rest[:n])); err != nil {
			return i, err
		}
		rest = rest[n:]
	}
	return i, i.end()
}

// lines is a message written with LF.
func lines(s string) string { return strings.ReplaceAll(strings.TrimPrefix(s, "\n"), "\n", "\r\n") }

func mixed(parts ...string) string {
	s := "From: a@own.example\nContent-Type: multipart/mixed; boundary=B\n\n"
	for _, p := range parts {
		s += "--B\n" + p + "\n"
	}
	return lines(s + "--B--\n")
}

const b64secret = "VGhpcyBpcyBhIGNvbmZpZGVudGlhbCBwbGFuLg==" // This is a confidential plan.

// TestNever8ContentIsFoundWhereverAReaderSeesIt: the rule blocks each of these.
func TestNever8ContentIsFoundWhereverAReaderSeesIt(t *testing.T) {
	html := func(body string) string { return lines("Content-Type: text/html\n\n" + body + "\n") }
	for name, message := range map[string]string{
		"plain":                 lines("From: a@b\n\nthe Confidential Plan\n"),
		"over a line's end":     lines("From: a@b\n\nthe confidential\nplan\n"),
		"many spaces":           lines("From: a@b\n\nconfidential    plan\n"),
		"zero width":            lines("Content-Type: text/plain; charset=utf-8\n\ncon\u200bfid\u00adential plan\n"),
		"no-break space":        lines("Content-Type: text/plain; charset=utf-8\n\nconfidential\u00a0plan\n"),
		"delsp":                 lines("Content-Type: text/plain; format=flowed; delsp=yes\n\nconfiden \ntial plan\n"),
		"quoted-printable":      lines("Content-Transfer-Encoding: quoted-printable\n\ncon=66id=\nential pla=6e\n"),
		"base64":                lines("Content-Transfer-Encoding: base64\n\n" + b64secret + "\n"),
		"base64 over lines":     lines("Content-Transfer-Encoding: BASE64\n\n" + b64secret[:10] + "\n" + b64secret[10:13] + " \n" + b64secret[13:] + "\n"),
		"iso-2022-jp":           lines("Content-Type: text/plain; charset=iso-2022-jp\n\nconfi\x1b(Jdential\x1b(B plan\n"),
		"windows-1252":          lines("Content-Type: text/plain; charset=windows-1252\n\nconfidential\xa0plan\n"),
		"subject":               lines("Subject: the confidential plan\n\nx\n"),
		"folded subject":        lines("Subject: the confidential\n  plan\n\nx\n"),
		"encoded word":          lines("Subject: =?utf-8?q?confi?= =?utf-8?b?ZGVudGlhbA==?= plan\n\nx\n"),
		"encoded word in quote": lines("To: \"=?iso-8859-1?q?confidential_plan?=\" <x@y.example>\n\nx\n"),
		"any field":             lines("X-Note: confidential plan\n\nx\n"),
		"a part":                mixed("Content-Type: text/plain\n\nx", "Content-Type: text/csv\n\nconfidential plan"),
		"no header":             mixed("\nconfidential plan"),
		"preamble":              strings.Replace(mixed("\nx"), "--B\r\n", "confidential plan\r\n--B\r\n", 1),
		"epilogue":              mixed("\nx") + "confidential plan\r\n",
		"a part's header":       mixed("Content-Description: confidential plan\nContent-Type: image/png\n\nx"),
		"file name":             mixed("Content-Type: image/png; name=\"confidential plan.png\"\n\nx"),
		"file name, encoded":    mixed("Content-Type: image/png; name=\"=?utf-8?b?Y29uZmlkZW50aWFsIHBsYW4=?=\"\n\nx"),
		"file name, RFC 2231":   mixed("Content-Type: image/png\nContent-Disposition: attachment; filename*=utf-8''confidential%20plan\n\nx"),
		"file name, in pieces":  mixed("Content-Type: image/png\nContent-Disposition: attachment; filename*1=\"ential plan\"; filename*0=\"confid\"\n\nx"),
		"file name, both ways":  mixed("Content-Type: image/png\nContent-Disposition: attachment; filename=x; filename*0*=iso-8859-1'en'confiden; filename*1*=tial%20plan\n\nx"),
		"a message in it":       mixed("Content-Type: message/rfc822\n\nSubject: confidential plan\n\nx"),
		"a digest":              lines("Content-Type: multipart/digest; boundary=D\n\n--D\n\nSubject: confidential plan\n\nx\n--D--\n"),
		"nested": mixed("Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=inner\n\n--inner\n" +
			"Content-Transfer-Encoding: base64\n\n" + b64secret + "\n--inner--"),
		"delivery status":  mixed("Content-Type: message/delivery-status\n\nDiagnostic-Code: confidential plan"),
		"html":             html("<p>confidential <b>plan</b></p>"),
		"html in a word":   html("confi<b></b>den<!-- x -->tial<br>plan"),
		"html entities":    html("c&#111;nfidential&nbsp;pl&#x61;n"),
		"html unknown tag": html("con<x-y title='a>b'>fidential plan"),
		"html attribute":   html("<img alt='c&#111;nfidential plan'>"),
		"html style trick": html("<style>a<b='</style>con<i>fidential</i> plan"),
		"html for Outlook": html("<!--[if mso]><p>con<b>fidential</b> plan</p><![endif]-->"),
		"html comment":     html("<!-- confidential plan -->"),
		"far behind":       lines("From: a@b\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\n", 5000) + "confidential plan\n" + strings.Repeat("y\n", 100000)),
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1 << 20, 7, 1} {
				if piece < 7 && len(message) > 10000 {
					continue
				}
				i, err := inspectWhole(t, policy.Sending{Content: secretRule}, message, piece)
				if !errors.Is(err, errBlocked) {
					t.Fatalf("in pieces of %d: %v", piece, err)
				}
				if i.found.blocked.Name != "secret" || i.found.where[0] == "" {
					t.Errorf("blocked by %+v at %q", i.found.blocked, i.found.where)
				}
			}
		})
	}
}

// TestNever8AttachmentsAreFound in whatever way a reader would offer them.
func TestNever8AttachmentsAreFound(t *testing.T) {
	for name, message := range map[string]string{
		"an image":         mixed("\nx", "Content-Type: image/png\nContent-ID: <x@y>\nContent-Disposition: inline\n\nx"),
		"the whole":        lines("Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nAAAA\n"),
		"octets":           mixed("Content-Type: application/octet-stream\n\nx"),
		"named text":       mixed("Content-Type: text/plain; name=x.txt\n\nx"),
		"named by 2231":    mixed("Content-Type: text/plain; name*0*=utf-8''x.txt\n\nx"),
		"a file name":      mixed("Content-Type: text/plain\nContent-Disposition: inline; filename=x.txt\n\nx"),
		"disposition":      mixed("Content-Type: text/plain\nContent-Disposition: ATTACHMENT\n\nx"),
		"another word":     mixed("Content-Type: text/html\nContent-Disposition: download\n\nx"),
		"a message":        mixed("Content-Type: message/rfc822\n\nSubject: x\n\nx"),
		"in a digest":      lines("Content-Type: multipart/digest; boundary=D\n\n--D\n\nSubject: x\n\nx\n--D--\n"),
		"another text":     mixed("Content-Type: text/calendar\n\nx"),
		"external":         mixed("Content-Type: message/external-body; access-type=url\n\nx"),
		"winmail.dat":      mixed("Content-Type: application/ms-tnef\n\nx"),
		"uuencode":         lines("From: a@b\n\nhello\nbegin 644 x.exe\n#0V%T\n`\nend\n"),
		"uuencode in QP":   lines("Content-Transfer-Encoding: quoted-printable\n\nhello\nbeg=69n 755 x.exe\n"),
		"uuencode in HTML": lines("Content-Type: text/html\n\nbegin 644 x.exe\n"),
		"uuencode before":  strings.Replace(mixed("\nx"), "--B\r\n", "begin 644 x\r\n--B\r\n", 1),
		"uuencode after":   mixed("\nx") + "begin 644 x\r\n",
		"begin-base64":     lines("From: a@b\n\nBegin-Base64 644 x\n"),
		"yEnc":             lines("From: a@b\n\n=ybegin line=128 size=1 name=x\n"),
		"BinHex":           lines("From: a@b\n\n(This file must be converted with BinHex 4.0)\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspectWhole(t, policy.Sending{NoAttachments: true}, message, 5)
			if attachment := (errAttachment{}); !errors.As(err, &attachment) {
				t.Errorf("%v", err)
			}
			if _, err := inspectWhole(t, policy.Sending{NoAttachments: true, Content: secretRule}, message, 5); err == nil {
				t.Error("it passes with a content rule")
			}
		})
	}
}

// TestNever8WhatCannotBeInspectedIsRefused: what readers could see otherwise
// than the inspector, by either rule.
func TestNever8WhatCannotBeInspectedIsRefused(t *testing.T) {
	header := func(s string) string { return lines(s + "\n\nx\n") }
	deep := "From: a@b\n"
	for n := range maxDepth + 1 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=%c-\n\n--%[1]c-\n", 'a'+n)
	}
	tests := map[string]string{
		"two types":               header("Content-Type: text/plain\nContent-Type: text/html"),
		"two encodings":           header("Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64"),
		"two types in a part":     mixed("Content-Type: text/plain\ncontent-type: text/html\n\nx"),
		"unknown encoding":        header("Content-Transfer-Encoding: x-uuencode"),
		"empty encoding":          header("Content-Transfer-Encoding:"),
		"encoding with a comment": header("Content-Transfer-Encoding: base64 (x)"),
		"unknown charset":         header("Content-Type: text/plain; charset=x-none"),
		"UTF-7":                   header("Content-Type: text/plain; charset=utf-7"),
		"UTF-16":                  header("Content-Type: text/plain; charset=utf-16le"),
		"iso-2022-kr":             header("Content-Type: text/plain; charset=iso-2022-kr"),
		"two charsets":            header("Content-Type: text/plain; charset=utf-8; charset=us-ascii"),
		"charset in pieces":       header("Content-Type: text/plain; charset*0=utf-; charset*1=8"),
		"not of its charset":      lines("Content-Type: text/plain; charset=utf-8\n\n\xff\n"),
		"cut off":                 lines("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nw4M=\n") + "\r\n",
		"8 bits of ASCII":         lines("From: a@b\n\n\xc3\xa9\n"),
		"shift_jis":               lines("Content-Type: text/plain; charset=shift_jis\n\n\xff\xff\n"),
		"bad base64":              lines("Content-Transfer-Encoding: base64\n\nAA!A\n"),
		"base64 cut off":          lines("Content-Transfer-Encoding: base64\n\nAAA\n"),
		"base64 goes on":          lines("Content-Transfer-Encoding: base64\n\nAA==\n" + b64secret + "\n"),
		"base64 pads inside":      lines("Content-Transfer-Encoding: base64\n\nAA==" + b64secret + "\n"),
		"bad quoted-printable":    lines("Content-Transfer-Encoding: quoted-printable\n\n=zz\n"),
		"quoted-printable end":    lines("Content-Transfer-Encoding: quoted-printable\n\nx=4\n"),
		"no subtype":              header("Content-Type: text"),
		"a comment":               header("Content-Type: text/plain (x)"),
		"no value":                header("Content-Type: text/plain; charset"),
		"blank before =":          header("Content-Type: text/plain; charset =utf-8"),
		"an open quote":           header("Content-Type: text/plain; charset=\"utf-8"),
		"something behind":        header("Content-Type: text/plain; charset=\"utf-8\"x"),
		"no boundary":             header("Content-Type: multipart/mixed"),
		"empty boundary":          header("Content-Type: multipart/mixed; boundary=\"\""),
		"boundary with backslash": header("Content-Type: multipart/mixed; boundary=\"a\\b\""),
		"boundary ends in blank":  header("Content-Type: multipart/mixed; boundary=\"a \""),
		"boundary in pieces":      header("Content-Type: multipart/mixed; boundary*0=a; boundary*1=b"),
		"long boundary":           header("Content-Type: multipart/mixed; boundary=" + strings.Repeat("a", 71)),
		"encoded multipart":       lines("Content-Type: multipart/mixed; boundary=B\nContent-Transfer-Encoding: base64\n\n--B\n\nx\n--B--\n"),
		"no part":                 lines("Content-Type: multipart/mixed; boundary=B\n\nx\n"),
		"closed at once":          lines("Content-Type: multipart/mixed; boundary=B\n\n--B--\n"),
		"not closed":              lines("Content-Type: multipart/mixed; boundary=B\n\n--B\n\nx\n"),
		"inner not closed":        mixed("Content-Type: multipart/mixed; boundary=inner\n\n--inner\n\nx"),
		"almost a delimiter":      mixed("\nx\n--Bx\nContent-Type: image/png\n\nx"),
		"delimiter and more":      mixed("\nx\n--B x\n"),
		"a delimiter again":       mixed("\nx") + "--B\r\nContent-Type: image/png\r\n\r\nx\r\n",
		"closed again":            mixed("\nx") + "--B--\r\n",
		"boundaries alike":        mixed("Content-Type: multipart/mixed; boundary=BB\n\n--BB\n\nx\n--BB--"),
		"the same boundary":       mixed("Content-Type: multipart/mixed; boundary=B\n\n--B\n\nx\n--B--"),
		"a boundary that is over": mixed("Content-Type: multipart/mixed; boundary=inner\n\n--inner\n\nx\n--inner--", "\nx\n--inner\n"),
		"inner in the outer":      mixed("Content-Type: multipart/mixed; boundary=inner\n\n--inner\n\nx\n--inner--\n--inner\n\nx"),
		"no end of a header":      mixed("Content-Type: text/plain"),
		"no field":                mixed("hello\n\nx"),
		"blank before the colon":  mixed("Content-Type : image/png\n\nx"),
		"a blank line of blanks":  mixed("Content-Type: text/plain\n \nContent-Disposition: attachment\n\nx"),
		"a bad encoded word":      header("Subject: =?utf-8?b?!!!?="),
		"an open encoded word":    header("Subject: =?utf-8?q?x"),
		"an encoded word in UTF7": header("Subject: =?utf-7?q?x?="),
		"8 bits in a header":      header("Subject: \xff"),
		"a file name's charset":   mixed("Content-Type: text/plain\nX-A: b\nContent-Disposition: inline; filename*=x-none''a\n\nx"),
		"a piece is missing":      mixed("Content-Type: image/png; name*0=a; name*2=b\n\nx"),
		"a piece twice":           mixed("Content-Type: image/png; name*0=a; name*0*=utf-8''b\n\nx"),
		"a piece 00":              mixed("Content-Type: image/png; name*00=a\n\nx"),
		"a parameter twice":       mixed("Content-Type: image/png; name=a; NAME=b\n\nx"),
		"an encoded message":      mixed("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + b64secret),
		"a part of a message":     mixed("Content-Type: message/partial; id=x; number=1\n\nx"),
		"external":                mixed("Content-Type: message/external-body; access-type=url\n\nx"),
		"a long line":             lines("From: a@b\n\n" + strings.Repeat("x", 999) + "\n"),
		"a long header":           mixed(strings.Repeat("X: y\n", maxHeader/4) + "\nx"),
		"too deep":                lines(deep),
		"too many parts":          mixed(slices.Repeat([]string{"\nx"}, maxParts+1)...),
		"too large a tag":         lines("Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString([]byte("<a")) + "\n" + strings.Repeat("eHh4\n", maxToken/3)),
		"encrypted":               lines("Content-Type: multipart/encrypted; boundary=B\n\n--B\n\nx\n--B--\n"),
		"S/MIME":                  mixed("Content-Type: application/pkcs7-mime; smime-type=signed-data\n\nx"),
		"winmail.dat":             mixed("Content-Type: application/ms-tnef\n\nx"),
		"PGP in the text":         lines("From: a@b\n\n-----BEGIN PGP MESSAGE-----\n"),
	}
	// Without content rules these two can be told from attachments, or are text.
	onlyContent := []string{"too large a tag", "encrypted", "PGP in the text"}
	delete(tests, "cut off")
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			flags := []policy.ContentRule{{Name: "never", Pattern: "matches nothing of this"}}
			if _, err := inspectWhole(t, policy.Sending{Content: flags}, message, 64); err == nil || errors.Is(err, errBlocked) {
				t.Errorf("with a rule that flags: %v", err)
			}
			if slices.Contains(onlyContent, name) {
				return
			}
			if _, err := inspectWhole(t, policy.Sending{NoAttachments: true}, message, 64); err == nil {
				t.Error("without attachments: it passes")
			}
		})
	}
}

// TestOrdinaryMessagesPass both rules: what mail programs write.
func TestOrdinaryMessagesPass(t *testing.T) {
	for name, message := range map[string]string{
		"plain":      lines("From: Alice <a@own.example>\nTo: b@x.example\nSubject: =?UTF-8?B?w6k=?= x\nMIME-Version: 1.0\n\nhello\n--\nAlice\n"),
		"no body":    lines("From: a@own.example\n\n"),
		"flowed":     lines("Content-Type: text/plain; charset=UTF-8; format=flowed\nContent-Transfer-Encoding: 8bit\n\nhéllo \nthere\n"),
		"latin":      lines("Content-Type: text/plain; charset=\"iso-8859-15\";\nContent-Transfer-Encoding: 8bit\n\n\xa4\n"),
		"semicolon":  lines("Content-Type: text/plain; charset=utf-8;\n\nx\n"),
		"utf-8 only": lines("Content-Type: text/plain; charset=utf8\nContent-Transfer-Encoding: base64\n\nw4M=\n"),
		"alternative": lines(`
From: a@own.example
Content-Type: multipart/alternative;
 boundary="----=_NextPart_000_0001_01D0.ABC"
Content-Language: en

This is a multi-part message in MIME format.

------=_NextPart_000_0001_01D0.ABC
Content-Type: text/plain;
	charset="us-ascii"
Content-Transfer-Encoding: 7bit

-- dashes --
--and more

------=_NextPart_000_0001_01D0.ABC
Content-Type: text/html; charset="utf-8"
Content-Transfer-Encoding: quoted-printable
Content-Disposition: inline

<html><body style=3D"x">h=C3=A9llo =
there</body></html>
------=_NextPart_000_0001_01D0.ABC--

`),
		"nested": mixed("Content-Type: multipart/related; type=\"text/html\"; boundary=\"x y\"\n\n--x y\nContent-Type: text/html\n\nx\n--x y--\n", "\nfooter"),
	} {
		for _, piece := range []int{1, 50, 1 << 20} {
			i, err := inspectWhole(t, policy.Sending{NoAttachments: true, Content: secretRule}, message, piece)
			if err != nil || i.found.where[0] != "" {
				t.Errorf("%s in pieces of %d: %v", name, piece, err)
			}
		}
	}
	attached := mixed("\nx", "Content-Type: application/pdf; name=\"a.pdf\"\nContent-Disposition: attachment; filename=\"a.pdf\";\n filename*=utf-8''a.pdf\nContent-Transfer-Encoding: base64\n\nJVBE\nRg==",
		"Content-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: x\nContent-Type: multipart/mixed; boundary=inner\n\n--inner\n\nx\n--inner--")
	if _, err := inspectWhole(t, policy.Sending{Content: secretRule}, attached, 9); err != nil {
		t.Errorf("with attachments: %v", err)
	}
}

// TestRulesThatFlagAreFoundTogether, each at its first place.
func TestRulesThatFlagAreFoundTogether(t *testing.T) {
	rules := policy.Sending{Content: []policy.ContentRule{
		{Name: "subject", Pattern: `(?m)^Subject: .*urgent`}, {Name: "pdf", Pattern: `^[^:]*\.pdf$`}, {Name: "none", Pattern: "absent"}, {Name: "word", Pattern: `\bgold\b`},
	}}
	i, err := inspectWhole(t, rules, strings.Replace(mixed("\nmarigold gold", "Content-Type: application/pdf; name=a.pdf\n\nx"), "From", "Subject: urgent\r\nFrom", 1), 3)
	if want := []string{"the header field subject", "a file name", "", "the text"}; err != nil || !slices.Equal(i.found.where, want) {
		t.Errorf("%q, %v, want %q", i.found.where, err, want)
	}
}

// TestTooMuchText is refused, however it is encoded.
func TestTooMuchText(t *testing.T) {
	message := lines("From: a@b\n\n") + strings.Repeat(strings.Repeat("x ", 400)+"\r\n", maxText/800+1)
	if _, err := inspectWhole(t, policy.Sending{Content: secretRule}, message, 1<<16); !errors.Is(err, errTooMuchText) {
		t.Errorf("%v", err)
	}
}
