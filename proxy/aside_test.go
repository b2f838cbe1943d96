// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/proxy"
)

func TestAside(t *testing.T) {
	ran := false
	proxy.Aside(func() { ran = true })
	if !ran {
		t.Error("it had not ended")
	}
	var v any
	func() {
		defer func() { v = recover() }()
		proxy.Aside(func() { fallOver() })
	}()
	if text := fmt.Sprint(v); !strings.HasPrefix(text, "fallen\n") || !strings.Contains(text, "fallOver") {
		t.Errorf("the caller's panic is %q", text)
	}
}

func fallOver() { panic("fallen") }
