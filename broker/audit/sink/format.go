// SPDX-License-Identifier: Apache-2.0

package sink

// Format makes an event's octets for a receiver: JSON in one line. An error says
// that the event has no such form.
type Format func(e *Event) ([]byte, error)

// JSON is the record as it stands in the log, octet by octet.
func JSON(e *Event) ([]byte, error) { return e.Record, nil }
