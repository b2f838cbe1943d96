// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"

	"github.com/postern-mail/postern/policy"
)

// OpeningHour and OpeningDay are the periods of quotas. They slide, by minutes.
const (
	OpeningHour = time.Hour
	OpeningDay  = 24 * time.Hour
)

// OpeningReservation is what is about to be opened under an assignment, and what
// may be in all.
type OpeningReservation struct {
	AssignmentID ID
	// Messages whose bodies are opened, and Octets of those messages; Headers
	// are messages of which header fields alone are.
	Messages, Octets, Headers int64
	Quotas                    policy.Quotas
}

// OpeningCounts counts what is opened under an assignment, over all its sessions
// on all nodes, and over restarts: broker/store.
type OpeningCounts interface {
	// ReserveOpening counts messages before they are opened. With what was
	// counted within the last hour and day it must not exceed the quotas: else
	// nothing is counted, and the error is Limit, whose Reason names the quota
	// and its period, as "octets.day". Two calls never both take what is left
	// for one. When nil is returned it is durable; with any other error than
	// Limit it may be counted.
	ReserveOpening(ctx context.Context, r *OpeningReservation) error
}
