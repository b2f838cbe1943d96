// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// SendingPeriod is the period of messages and recipients per hour. It slides.
const SendingPeriod = time.Hour

// SendingReservation is one message that is about to be sent, and what may be
// sent under its assignment within any SendingPeriod; 0: no limit.
type SendingReservation struct {
	AssignmentID ID
	// Intent is the message's, as in send.intent.
	Intent        ID
	Recipients    int
	MaxMessages   int
	MaxRecipients int
}

// Reasons of a Limit that ReserveSending returns.
const (
	ReasonMessagesPerHour   = "messages-per-hour"
	ReasonRecipientsPerHour = "recipients-per-hour"
)

// SendingCounts counts what is sent under an assignment, over all its sessions
// on all nodes, and over restarts: broker/store.
type SendingCounts interface {
	// ReserveSending counts a message before it is sent. With what was counted
	// within the last SendingPeriod it must not exceed the limits: else it is
	// not counted, and the error is Limit with one of the reasons above. Two
	// calls never both take what is left for one. When nil is returned it is
	// durable; with any other error than Limit it may be counted.
	ReserveSending(ctx context.Context, r *SendingReservation) error
	// ReleaseSending takes back a reservation whose message was not sent. One
	// that does not exist is no error.
	ReleaseSending(ctx context.Context, intent ID) error
}
