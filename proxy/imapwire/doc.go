// SPDX-License-Identifier: Apache-2.0

// Package imapwire reads and writes IMAP as octets: a strict lexer for what
// clients send, a serialiser for what goes upstream, and scanners that find
// the framing of what an upstream answers.
//
// The lexer accepts less than servers do, so that no octet can mean one thing
// to Postern and another to the upstream: lines end in CRLF alone; NUL, bare
// CR and bare LF occur nowhere outside literals; quoted strings hold no
// controls; one SP stands between arguments; lines, nesting, tokens and
// buffered literals are limited. A command is a flat list of tokens, which the
// serialiser writes anew, so that no raw octet of a client's line is copied.
// Literals that no quoted string can hold are written as synchronising ones.
// For every command that lexes, lexing its serialisation gives it back.
//
// It is a leaf: it imports nothing of Postern, does no I/O, and anything may
// import it. A Lexer reuses its memory and allocates nothing in steady state.
package imapwire
