// SPDX-License-Identifier: Apache-2.0

// Package submission is the SMTP submission gateway (RFC 6409): it lets an
// agent's mail client send as the mailbox it was assigned, and as nothing else.
// A Gateway is a proxy.Handler; cmd/postern alone makes one.
//
// # Invariants
//
//   - What reaches the upstream is written here from parsed values: no octet
//     of a command line is copied. An Address has one spelling, the one judged.
//   - A message's octets are not changed. Bare CR, bare LF and NUL are refused,
//     in commands and in messages, and the end of data is CR LF . CR LF alone.
//   - A message that is not whole, or that the rules refuse, never gets its
//     final dot upstream: the connection is closed instead.
//   - Before the final dot, in this order: the client's own end of data was
//     seen, send.intent is durable, and the session was allowed to go on by the
//     policy as it stood then. The last 32 KiB of a message go upstream with the
//     dot, in one write: of a smaller one the upstream has nothing before.
//   - Every rule that refuses is named in a send.refused event.
//   - What a client is told is a reply of this package or the upstream's,
//     cleaned; no error's text.
//   - When a session ends, both sockets are closed within 0.7 s. The way there
//     sets deadlines and closes sockets, and takes no lock that is held during
//     I/O.
//   - Memory per connection does not grow with the message: a header is held
//     until it is judged (256 KiB at most), the rest streams through buffers. An
//     inspector adds as much for a part's header, windows of a text (128 KiB
//     each) and a tag of HTML (512 KiB at most).
//
// # go-smtp
//
// The client's side is go-smtp's server, on a wire (wire.go) that stands in
// for the connection. The wire takes one line at a time off the client, has
// it judged by RFC 5321's grammar and order, and hands go-smtp a line written
// anew; go-smtp keeps the state machine, the AUTH exchange and most answers.
// What it gets wrong, or lets no one switch off, never reaches it:
//
//   - BDAT is answered 502 by the wire, and the connection closed: CHUNKING
//     cannot be switched off, and its handler runs Data on a goroutine beside
//     the connection's. The answer to EHLO is replaced by our own list.
//   - Quoting is lost in its addresses and unknown parameters are dropped
//     into a map: Mail and Rcpt use the wire's parse, not what they are given.
//   - Its reader of data takes bare CR and LF, and after an error takes the
//     rest of a message for commands: Data reads from the wire itself and feeds
//     go-smtp an end of data, or an end of file.
//   - Its timeouts are set once per command: they are 0, the wire has its own.
//   - It sends errors verbatim: Session methods return *smtp.SMTPError only.
//   - It closes after four protocol errors without a 421, has one line limit
//     for all commands, takes bare LF in commands, runs TLS over octets that
//     were buffered before STARTTLS, and takes MAIL without AUTH: the wire
//     answers all of these before.
//
// There is one smtp.Server for each connection, because what a server offers
// is a field of it. It costs 400 octets; two goroutines serve a connection,
// and one more waits for the upstream's answer while a message flows.
//
// The upstream's side is upstream.go and not go-smtp's client. That can be
// made to adopt a connection that is logged in, by a shim that plays it a
// greeting and an EHLO. But it writes what it is given as an address, always
// claims 8BITMIME, rewrites line ends in messages, has no write deadline in
// DATA, reads replies of any number of lines, sends the final dot whenever its
// writer is closed, and cannot tell an answer that came before the dot from
// one that came after: the difference between "not sent" and "unknown".
//
// Where the upstream offers PIPELINING, it is told MAIL together with the first
// RCPT: what can be known of a sender (own address, size, 8BITMIME, SMTPUTF8,
// DSN) is judged here before, and what the upstream has against it is the
// answer to RCPT. BDAT is not used upstream: with DATA the server's 354 comes
// before any octet of a message, with BDAT those of a command that it refused
// would be commands.
//
// # What is in a message
//
// Where the terms forbid attachments, or have content rules, an inspector reads
// the message as it streams by: its structure, transfer encodings and charsets,
// line by line, and texts in windows. It never changes an octet, and what it
// holds does not grow with the message. Readers of mail are lenient, each in
// its own way, so it takes what all of them understand alike and refuses the
// rest: a delimiter that is not quite one, a boundary that stands elsewhere, a
// field or a parameter that is there twice, an encoding with errors, a charset
// in which ASCII is not ASCII. A text is matched as it was written and as it is
// seen: without what is invisible, and HTML without its tags, which a goroutine
// reads that ends with the part. Terms without such rules cost nothing.
//
// # Correspondents
//
// Under reply_only the mailbox's IMAP server is asked for each recipient, on a
// connection of its own, before the upstream hears of him. SEARCH matches
// substrings, so the parsed ENVELOPE decides; and a message counts only if it
// did not pass Postern, which its Message-ID and Postern's own record tell
// (message.filing, message.append, send.intent). The record is read after the
// messages: whatever was there by then had been recorded before. Folders that
// agents may write to are no answer: they may write to all, and move messages
// between them.
//
// # Unknown outcomes
//
// A connection that is lost after the final dot leaves an unknown outcome. It
// is recorded as such, and the message is looked for in Sent by Message-ID.
// Found: a second send.result says so and the client gets 250. Else 451. When
// the client repeats the message within the hour (the same octets from the
// same mailbox to the same recipients), it is looked up first; while that
// cannot be done for an outage the answer stays 451, and when it is not there
// it is sent, with an intent of its own. One that was accepted, but whose
// answer the client may not have got, is answered 250 and not sent again.
//
// What cannot be known: an upstream that files nothing in Sent, or files late,
// looks like one that did not send. A client that puts its copy into Sent
// before it submits makes an unknown outcome look sent. Where two submissions
// of an hour share a Message-ID, Sent is not asked. The table of the hour is
// memory: after a restart a repeated message is sent again. What survives is
// the log: a send.intent without a send.result is an unknown outcome, and two
// with one Message-ID and SHA-256 are a repetition.
//
// # Events
//
// send.intent is durable before the final dot. send.result and send.refused
// are queued at once and waited for before the next message and at the end;
// one that does not become durable is logged.
package submission
