// SPDX-License-Identifier: Apache-2.0

// Package storetest is the contract of broker.State and broker.EventStore as
// tests, to run on every implementation. Only tests import it.
package storetest

import (
	"testing"

	"github.com/postern-mail/postern/broker"
)

// Store is what is tested.
type Store interface {
	broker.State
	broker.EventStore
	broker.Leases
	broker.SendingCounts
	broker.OpeningCounts
	broker.People
	broker.FirmState
	broker.Enrolments
	broker.Repeats
	broker.Providers
	broker.Rotations
	broker.Watches
	broker.Canaries
	broker.Alerts
	broker.Logs
	broker.Witnesses
	broker.Sinks
	broker.Questions
	broker.Retentions
	Close() error
}

// Run tests the stores that open returns: each is empty, and open sees to it
// that it is closed when its test ends.
func Run(t *testing.T, open func(t *testing.T) Store) {
	tests := []struct {
		name string
		test func(*testing.T, *World)
	}{
		{"Things", testThings},
		{"NotFound", testNotFound},
		{"Unique", testUnique},
		{"Invalid", testInvalid},
		{"Loopback", testLoopback},
		{"Together", testTogether},
		{"Updates", testUpdates},
		{"UpdateAssignment", testUpdateAssignment},
		{"MailboxKeepsFirm", testMailboxKeepsFirm},
		{"AddressesOfFirmsAreApart", testAddressesOfFirmsAreApart},
		{"DeletesThatConflict", testDeletesThatConflict},
		{"DeleteAgent", testDeleteAgent},
		{"DeletedNamesAreFree", testDeletedNamesAreFree},
		{"AgentsOfTheDirectory", testAgentsOfTheDirectory},
		{"WorkstationsOfAgents", testWorkstationsOfAgents},
		{"CertificateNames", testCertificateNames},
		{"CodeForAnAgent", testCodeForAnAgent},
		{"RevokeDelegation", testRevokeDelegation},
		{"AssignmentWithinDelegation", testAssignmentWithinDelegation},
		{"MaxAgents", testMaxAgents},
		{"People", testPeople},
		{"Never5Claim", testNever5Claim},
		{"ExpiredClaim", testExpiredClaim},
		{"Enrolment", testEnrolment},
		{"EnrolmentOnceInARace", testEnrolmentRace},
		{"FirmState", testFirmState},
		{"Approval", testApproval},
		{"Repeats", testRepeats},
		{"Providers", testProviders},
		{"Never5ProvidersOfAClaimedFirm", testNever5ProvidersOfAClaimedFirm},
		{"Rotations", testRotations},
		{"RotationCommits", testRotationCommits},
		{"RotationCauses", testRotationCauses},
		{"Never7FoundLost", testNever7FoundLost},
		{"Never1RotationGoesToNoOtherEndpoint", testNever1RotationGoesToNoOtherEndpoint},
		{"Watches", testWatches},
		{"MailboxEvents", testMailboxEvents},
		{"Canaries", testCanaries},
		{"CanaryAlerts", testCanaryAlerts},
		{"CanaryDownload", testCanaryDownload},
		{"CanaryOfARolledBackChange", testCanaryOfARolledBackChange},
		{"Alerts", testAlerts},
		{"AlertsWithTheirEvent", testAlertsWithTheirEvent},
		{"AlertAnswers", testAlertAnswers},
		{"AlertsEnd", testAlertsEnd},
		{"Never5AlertsOfFirms", testAlertsOfFirms},
		{"AlertStorm", testAlertStorm},
		{"Witnesses", testWitnesses},
		{"Never5WitnessesOfAClaimedFirm", testNever5WitnessesOfAClaimedFirm},
		{"Silence", testSilence},
		{"Never6RestoreIsConfirmed", testNever6RestoreIsConfirmed},
		{"Locks", testLocks},
		{"Sending", testSending},
		{"SendingTogether", testSendingTogether},
		{"Opening", testOpening},
		{"EveryChangeHasItsEvent", testEveryChangeHasItsEvent},
		{"FailedChangeLeavesNothing", testFailedChangeLeavesNothing},
		{"LogsOfFirmsAreApart", testLogsApart},
		{"Append", testAppend},
		{"AppendAllOrNothing", testAppendAllOrNothing},
		{"AppendConcurrently", testAppendConcurrently},
		{"LogTree", testLogTree},
		{"Checkpoints", testCheckpoints},
		{"Sinks", testSinks},
		{"Queries", testQueries},
		{"Questions", testQuestions},
		{"Sessions", testSessions},
		{"StaleSessions", testStaleSessions},
		{"Leases", testLeases},
		{"SubscribeCancel", testSubscribeCancel},
		{"ChangesInRevisionOrder", testChangesInOrder},
		{"CallersKeepTheirs", testCallersKeepTheirs},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, Build(t, open(t))) })
	}
}
