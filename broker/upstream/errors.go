// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/broker"
)

// Public texts: what an agent may be told. They name no server.
const (
	publicUnreachable = "the mail server cannot be reached"
	publicTLS         = "no secure connection to the mail server"
	publicTimeout     = "the mail server did not answer in time"
	publicLost        = "the connection to the mail server was lost"
	publicProtocol    = "the mail server answered out of protocol"
	publicMechanism   = "the mail server offers no known way to log in"
	publicBusy        = "the mail server asks to try again later"
	publicRefused     = "the mail server refused the mailbox's credential"
)

func unavailable(reason, public string, cause error) *broker.Error {
	return &broker.Error{Code: broker.Unavailable, Reason: reason, Public: public, Cause: cause}
}

func tlsError(cause error) *broker.Error { return unavailable(ReasonTLS, publicTLS, cause) }

// protocolError is for answers outside the protocol; the text must not be the
// server's.
func protocolError(format string, args ...any) *broker.Error {
	return unavailable(ReasonProtocol, publicProtocol, fmt.Errorf(format, args...))
}

// connectionError sorts failures of reads and writes.
func connectionError(err error) *broker.Error {
	if isTimeout(err) {
		return unavailable(ReasonTimeout, publicTimeout, err)
	}
	return unavailable(ReasonConnection, publicLost, err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// isLost reports whether the other end is gone, or the connection was closed.
func isLost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// answerError is a server's answer that ended the login; its words are still
// as the server sent them, and must pass through credentials.report.
type answerError struct {
	code   broker.Code
	reason string
	public string
	words  []byte
}

// Error says nothing of the server's words.
func (e *answerError) Error() string { return e.public }

func answered(code broker.Code, reason, public string, words []byte) *answerError {
	return &answerError{code, reason, public, bytes.Clone(words)}
}

func refused(words []byte) error {
	return answered(broker.CredentialRefused, ReasonRefused, publicRefused, words)
}

func busy(words []byte) error {
	return answered(broker.Unavailable, ReasonBusy, publicBusy, words)
}

func answeredOutOfProtocol(words []byte) error {
	return answered(broker.Unavailable, ReasonProtocol, publicProtocol, words)
}

func answeredTLS(words []byte) error {
	return answered(broker.Unavailable, ReasonTLS, publicTLS, words)
}

var errNoStartTLS = errors.New("the server does not offer STARTTLS")

// errNoMechanism tells what the server does offer.
func errNoMechanism(offered []string) error {
	return answered(broker.Unavailable, ReasonMechanism, publicMechanism, []byte(strings.Join(offered, " ")))
}

// report makes err the *broker.Error that leaves this package.
func (c *credentials) report(ctx context.Context, err error) *broker.Error {
	var answer *answerError
	if errors.As(err, &answer) {
		return &broker.Error{
			Code: answer.code, Reason: answer.reason, Public: answer.public,
			Cause: fmt.Errorf("the server said %q", c.quote(answer.words)),
		}
	}
	var known *broker.Error
	if !errors.As(err, &known) {
		known = connectionError(err)
	}
	// A context that ended explains a timeout, and only that.
	if known.Reason == ReasonTimeout && context.Cause(ctx) != nil {
		known.Cause = fmt.Errorf("%w: %w", context.Cause(ctx), known.Cause)
	}
	return known
}
