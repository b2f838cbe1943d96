// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/postern-mail/postern/broker"
)

// who is a set of roles.
type who uint8

const (
	admin who = 1 << iota
	auditor
	firmAdmin
	firmAuditor
	// anyone needs no token: the request's body proves what it needs to.
	anyone

	bpo      = admin | auditor
	ofFirm   = firmAdmin | firmAuditor
	everyone = bpo | ofFirm
)

func whoIs(r broker.Role) who {
	switch r {
	case broker.RoleAdmin:
		return admin
	case broker.RoleAuditor:
		return auditor
	case broker.RoleFirmAdmin:
		return firmAdmin
	case broker.RoleFirmAuditor:
		return firmAuditor
	}
	return 0
}

// rule says who may call an operation, and to which group, the name of a
// token's scope, it belongs.
type rule struct {
	group string
	who   who
	// secret says that the answer holds what is shown once.
	secret bool
	// conditional says that it takes If-Match, since what it changes has an
	// ETag. Every PATCH does.
	conditional bool
	// recorded says that it tells what is in the logs, and so waits for what this
	// node has yet to write there.
	recorded bool
}

// takesIfMatch reports whether an operation can be made conditional.
func (r rule) takesIfMatch(op *huma.Operation) bool {
	return op.Method == http.MethodPatch || r.conditional
}

// scopeRead is the scope of everything that only reads.
const scopeRead = "read"

// rules is the table of who may do what: an operation that is not in it cannot
// be registered. It is about operations alone. That a firm's people reach
// nothing but their own firm's is the affair of reads; that the BPO's admins
// act for a firm only until it was claimed, the store's.
func rules() map[string]rule {
	return map[string]rule{
		"whoami": {group: "people", who: everyone},

		"list-firms":   {group: "firms", who: everyone},
		"create-firm":  {group: "firms", who: admin, secret: true},
		"get-firm":     {group: "firms", who: everyone},
		"update-firm":  {group: "firms", who: admin | firmAdmin},
		"create-claim": {group: "firms", who: admin, secret: true},
		"redeem-claim": {group: "firms", who: anyone, secret: true},

		"list-people":   {group: "people", who: everyone},
		"create-person": {group: "people", who: admin | firmAdmin, secret: true},
		"delete-person": {group: "people", who: admin | firmAdmin},
		"list-tokens":   {group: "people", who: everyone},
		"create-token":  {group: "people", who: everyone, secret: true},
		"revoke-token":  {group: "people", who: everyone},

		"list-mailboxes": {group: "mailboxes", who: everyone},
		"create-mailbox": {group: "mailboxes", who: admin | firmAdmin},
		"get-mailbox":    {group: "mailboxes", who: everyone},
		"update-mailbox": {group: "mailboxes", who: admin | firmAdmin},
		"delete-mailbox": {group: "mailboxes", who: admin | firmAdmin, conditional: true},
		"set-credential": {group: "credentials", who: admin | firmAdmin},

		"list-delegations":   {group: "delegations", who: everyone},
		"create-delegation":  {group: "delegations", who: admin | firmAdmin},
		"get-delegation":     {group: "delegations", who: everyone},
		"update-delegation":  {group: "delegations", who: admin | firmAdmin},
		"revoke-delegation":  {group: "delegations", who: admin | firmAdmin, conditional: true},
		"revoke-delegations": {group: "delegations", who: admin | firmAdmin},

		"list-assignments":   {group: "assignments", who: everyone},
		"create-assignment":  {group: "assignments", who: admin},
		"get-assignment":     {group: "assignments", who: everyone},
		"update-assignment":  {group: "assignments", who: admin},
		"approve-assignment": {group: "assignments", who: admin | firmAdmin, conditional: true},
		"revoke-assignment":  {group: "assignments", who: admin | firmAdmin, conditional: true},

		"list-agents":  {group: "agents", who: everyone},
		"create-agent": {group: "agents", who: admin},
		"get-agent":    {group: "agents", who: everyone},
		"update-agent": {group: "agents", who: admin},
		"delete-agent": {group: "agents", who: admin, conditional: true},

		"import-agents":       {group: "agents", who: admin, secret: true},
		"import-workstations": {group: "workstations", who: admin, secret: true},
		"import-mailboxes":    {group: "mailboxes", who: admin | firmAdmin},
		"import-assignments":  {group: "assignments", who: admin},

		"off-board-agent":       {group: "agents", who: admin, conditional: true},
		"off-board-workstation": {group: "workstations", who: admin, conditional: true},
		"list-downloads":        {group: "events", who: bpo, recorded: true},

		"list-app-passwords":  {group: "app-passwords", who: bpo},
		"create-app-password": {group: "app-passwords", who: admin, secret: true},
		"get-app-password":    {group: "app-passwords", who: bpo},
		"revoke-app-password": {group: "app-passwords", who: admin, conditional: true},

		"list-workstations":  {group: "workstations", who: bpo},
		"create-workstation": {group: "workstations", who: admin},
		"get-workstation":    {group: "workstations", who: bpo},
		"update-workstation": {group: "workstations", who: admin},
		"renew-workstation":  {group: "workstations", who: admin},
		"delete-workstation": {group: "workstations", who: admin, conditional: true},

		"create-enrolment-code": {group: "workstations", who: admin, secret: true},
		"enrol":                 {group: "workstations", who: anyone},
		"challenge-tpm":         {group: "workstations", who: anyone},
		"renew-certificate":     {group: "workstations", who: anyone},

		"list-sites":  {group: "sites", who: everyone},
		"create-site": {group: "sites", who: admin},
		"get-site":    {group: "sites", who: everyone},
		"update-site": {group: "sites", who: admin},
		"delete-site": {group: "sites", who: admin, conditional: true},

		"list-sessions": {group: "sessions", who: everyone},
		"end-session":   {group: "sessions", who: admin | firmAdmin},

		"list-locks":  {group: "locks", who: bpo},
		"create-lock": {group: "locks", who: admin},
		"remove-lock": {group: "locks", who: admin},

		"list-events": {group: "events", who: everyone, recorded: true},

		"ask-message":     {group: "events", who: everyone, recorded: true},
		"ask-agent":       {group: "events", who: everyone, recorded: true},
		"ask-workstation": {group: "events", who: everyone, recorded: true},
		"ask-alert":       {group: "events", who: everyone, recorded: true},
		"ask-mailbox":     {group: "events", who: everyone, recorded: true},

		"get-log-checkpoint": {group: "events", who: everyone},
		"get-log-tile":       {group: "events", who: everyone},
		"list-log-entries":   {group: "events", who: everyone},
		"get-log-keys":       {group: "events", who: everyone},
		"record-evidence":    {group: "events", who: everyone},

		"list-witnesses":     {group: "witnesses", who: everyone},
		"create-witness":     {group: "witnesses", who: admin | firmAdmin},
		"remove-witness":     {group: "witnesses", who: admin | firmAdmin},
		"confirm-restore":    {group: "witnesses", who: admin | firmAdmin},
		"submit-cosignature": {group: "cosignatures", who: everyone},

		"get-retention":       {group: "retention", who: everyone},
		"set-retention":       {group: "retention", who: admin | firmAdmin},
		"set-retention-rules": {group: "retention", who: admin},
		"list-holds":          {group: "retention", who: everyone},
		"create-hold":         {group: "retention", who: admin | firmAdmin},
		"release-hold":        {group: "retention", who: admin | firmAdmin},

		"list-providers":       {group: "providers", who: everyone},
		"create-provider":      {group: "providers", who: admin | firmAdmin},
		"get-provider":         {group: "providers", who: everyone},
		"update-provider":      {group: "providers", who: admin | firmAdmin},
		"delete-provider":      {group: "providers", who: admin | firmAdmin},
		"set-provider-account": {group: "providers", who: admin | firmAdmin},

		"set-rotation":    {group: "mailboxes", who: admin | firmAdmin},
		"remove-rotation": {group: "mailboxes", who: admin | firmAdmin},
		"enter-password":  {group: "credentials", who: admin | firmAdmin},
		"rotate":          {group: "rotations", who: admin | firmAdmin},
		"list-rotations":  {group: "rotations", who: everyone},
		"get-rotation":    {group: "rotations", who: everyone},

		"list-alerts":       {group: "alerts", who: everyone},
		"count-alerts":      {group: "alerts", who: everyone},
		"get-alert":         {group: "alerts", who: everyone},
		"acknowledge-alert": {group: "alerts", who: admin | firmAdmin, conditional: true},
		"resolve-alert":     {group: "alerts", who: admin | firmAdmin, conditional: true},

		"list-sinks": {group: "sinks", who: bpo},
		"test-sink":  {group: "sinks", who: admin},

		"list-watches": {group: "watches", who: everyone},
		"get-watch":    {group: "watches", who: everyone},
		// Whoever at the BPO knew them could tell the agents.
		"list-canaries": {group: "canaries", who: ofFirm},
		"create-canary": {group: "canaries", who: firmAdmin},
		"remove-canary": {group: "canaries", who: firmAdmin},

		"set-watch":     {group: "mailboxes", who: admin | firmAdmin},
		"probe-mailbox": {group: "watches", who: admin | firmAdmin},
	}
}

// scopes are what a token can be narrowed to.
func scopes() []string {
	all := []string{scopeRead}
	for _, r := range rules() {
		if !slices.Contains(all, r.group) {
			all = append(all, r.group)
		}
	}
	slices.Sort(all)
	return all
}

// guard refuses whoever may not call an operation, before anything of the
// request is looked at.
func (a *api) guard(op *huma.Operation, r rule) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		p := principal(ctx.Context())
		refusal := ""
		switch {
		case r.who&anyone != 0:
		case r.who&whoIs(p.Role) == 0:
			refusal = "this is not for your role"
		case !p.within(r.group, op.Method == http.MethodGet):
			refusal = "your token's scopes do not hold this"
		}
		if refusal == "" {
			next(ctx)
			return
		}
		_, w := humago.Unwrap(ctx)
		writeProblem(w, a.problem(ctx.Context(), op, broker.Errorf(broker.Refused, "%s", refusal)))
	}
}

// headers are the request's headers that operations of a kind take.
func headers(op *huma.Operation, r rule) []*huma.Param {
	text := func(name, doc string) []*huma.Param {
		return []*huma.Param{{Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}}
	}
	var all []*huma.Param
	if r.takesIfMatch(op) {
		all = text("If-Match", "An ETag: the change is made only if the thing is still in that state; else 412, with what it is now.")
	}
	if op.Method == http.MethodPost && r.who&anyone == 0 {
		all = append(all, text(repeatHeader, "A key of your own, good for a day: a repeated request is not done again, and gets the first one's answer.")...)
	}
	return all
}
