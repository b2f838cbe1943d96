// SPDX-License-Identifier: Apache-2.0

// Package questions fills a store with events as a BPO's years make them, and
// asks the record's five questions about them, over the API, as people do. The
// events are the same ones in each run; they go straight into the store, in large
// transactions.
package questions
