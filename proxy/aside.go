// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"runtime/debug"
)

// Aside runs f on a goroutine of its own and returns when it has ended. A
// stack that has grown for a TLS handshake or a login would stay large under
// the session that follows, for hours perhaps; Aside, it is gone with f. A
// panic of f's is the caller's.
func Aside(f func()) {
	panicked := make(chan *asidePanic, 1)
	go func() {
		defer close(panicked)
		defer func() {
			if v := recover(); v != nil {
				panicked <- &asidePanic{v, debug.Stack()}
			}
		}()
		f()
	}()
	if p := <-panicked; p != nil {
		panic(p)
	}
}

// asidePanic is a panic with the stack that it happened on.
type asidePanic struct {
	value any
	stack []byte
}

// String is what a log shows of it.
func (p *asidePanic) String() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }
