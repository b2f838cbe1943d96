// SPDX-License-Identifier: Apache-2.0

// Command bench measures Postern beside nginx's mail proxy and Dovecot's
// proxy, all three before the same Dovecot, in one run:
//
//	go run ./test/bench            two tables, in half an hour
//	go run ./test/bench -quick     the same with less work, some minutes
//	go run ./test/bench -profile DIR    CPU and heap profiles of Postern, no tables
//
// It needs Debian's nginx, libnginx-mod-mail and dovecot-submissiond, and root,
// since a server's memory is read from /proc.
//
// # How it measures
//
//   - A cost is CPU time of the proxy's own processes, user and system, read
//     from the kernel before and after a fixed amount of work: for nginx its
//     master, workers and the auth server that it asks at each login; for
//     Dovecot's proxy its master and everything under it; for Postern its
//     process. What upstream and client use is not in it.
//   - Memory is the growth of the same processes' proportional set size (Pss)
//     from before the sessions to while they idle. The servers are started anew
//     for each such reading, so that no reading uses what an earlier one left.
//   - Every figure is the median of several runs. A run measures each proxy once,
//     and each begins with another, so that what changes on the machine
//     meanwhile falls on all of them.
//   - The client is the same program for all, on the same machine. It offers
//     X25519 alone, since nginx with OpenSSL 3.0 and Dovecot know nothing newer;
//     what post-quantum key exchange costs stands in the second table. A run in
//     which the proxies do not all negotiate the same TLS version and cipher
//     fails, and so does one in which a proxy loses an octet of a message.
//
// The main goroutine starts servers and measures. mailClient and the load
// functions in load.go are the only ones that run on others, and a load
// function returns when all of its own have.
package main
