// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"
)

func TestPlainMessageID(t *testing.T) {
	for header, want := range map[string]string{
		"Message-ID: <a@b>\r\n":                             "<a@b>",
		"From: x\r\nmessage-id:\r\n <a@b>\r\nTo: y\r\n\r\n": "<a@b>",
		"":                "",
		"From: x\r\n\r\n": "",
		"Message-ID: <a@b>\r\nMESSAGE-ID: <c@d>\r\n":                              "",
		"Message-ID: <a@b> <c@d>\r\n":                                             "",
		"Message-ID: <a@b> (c)\r\n":                                               "",
		"Message-ID: a@b\r\n":                                                     "",
		"Message-ID: <\"a\"@b>\r\n":                                               "",
		"Message-ID: <a @b>\r\n":                                                  "",
		"Message-ID : <a@b>\r\n":                                                  "",
		"Message-ID: <a@b>\n":                                                     "",
		"X: y\nMessage-ID: <c@d>\r\nMessage-ID: <a@b>\r\n":                        "",
		"X: y\rMessage-ID: <c@d>\r\nMessage-ID: <a@b>\r\n":                        "",
		"X: y\r\n \r\nMessage-ID: <a@b>\r\n":                                      "",
		"From x\r\nMessage-ID: <a@b>\r\n":                                         "",
		" x\r\nMessage-ID: <a@b>\r\n":                                             "",
		"Message-ID: <a@b>\r\n\r\nX: y\r\n":                                       "",
		"Message-ID: <a@b>\r\nX: " + strings.Repeat("y", MaxPlainHeader) + "\r\n": "",
	} {
		id, err := PlainMessageID([]byte(header))
		if id != want || (err == nil) != (want != "") {
			t.Errorf("%.80q: %q, %v, want %q", header, id, err, want)
		}
	}
}
