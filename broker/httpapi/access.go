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
}

// scopeRead is the scope of everything that only reads.
const scopeRead = "read"

// rules is the table of who may do what: an operation that is not in it cannot
// be registered. It is about operations alone. That a firm's people reach
// nothing but their own firm's is the affair of reads; that the BPO's admins
// act for a firm only until it was claimed, the store's.
func rules() map[string]rule {
	return map[string]rule{
		"whoami": {"people", everyone},

		"list-firms":   {"firms", everyone},
		"create-firm":  {"firms", admin},
		"get-firm":     {"firms", everyone},
		"update-firm":  {"firms", admin | firmAdmin},
		"create-claim": {"firms", admin},
		"redeem-claim": {"firms", anyone},

		"list-people":   {"people", everyone},
		"create-person": {"people", admin | firmAdmin},
		"delete-person": {"people", admin | firmAdmin},
		"list-tokens":   {"people", everyone},
		"create-token":  {"people", everyone},
		"revoke-token":  {"people", everyone},

		"list-mailboxes": {"mailboxes", everyone},
		"create-mailbox": {"mailboxes", admin | firmAdmin},
		"get-mailbox":    {"mailboxes", everyone},
		"update-mailbox": {"mailboxes", admin | firmAdmin},
		"delete-mailbox": {"mailboxes", admin | firmAdmin},
		"set-credential": {"credentials", admin | firmAdmin},

		"list-delegations":   {"delegations", everyone},
		"create-delegation":  {"delegations", admin | firmAdmin},
		"get-delegation":     {"delegations", everyone},
		"update-delegation":  {"delegations", admin | firmAdmin},
		"revoke-delegation":  {"delegations", admin | firmAdmin},
		"revoke-delegations": {"delegations", admin | firmAdmin},

		"list-assignments":   {"assignments", everyone},
		"create-assignment":  {"assignments", admin},
		"get-assignment":     {"assignments", everyone},
		"update-assignment":  {"assignments", admin},
		"approve-assignment": {"assignments", admin | firmAdmin},
		"revoke-assignment":  {"assignments", admin | firmAdmin},

		"list-agents":  {"agents", everyone},
		"create-agent": {"agents", admin},
		"get-agent":    {"agents", everyone},
		"update-agent": {"agents", admin},
		"delete-agent": {"agents", admin},

		"off-board-agent":       {"agents", admin},
		"off-board-workstation": {"workstations", admin},
		"list-downloads":        {"events", bpo},

		"list-app-passwords":  {"app-passwords", bpo},
		"create-app-password": {"app-passwords", admin},
		"get-app-password":    {"app-passwords", bpo},
		"revoke-app-password": {"app-passwords", admin},

		"list-workstations":  {"workstations", bpo},
		"create-workstation": {"workstations", admin},
		"get-workstation":    {"workstations", bpo},
		"update-workstation": {"workstations", admin},
		"renew-workstation":  {"workstations", admin},
		"delete-workstation": {"workstations", admin},

		"create-enrolment-code": {"workstations", admin},
		"enrol":                 {"workstations", anyone},
		"renew-certificate":     {"workstations", anyone},

		"list-sites":  {"sites", everyone},
		"create-site": {"sites", admin},
		"get-site":    {"sites", everyone},
		"update-site": {"sites", admin},
		"delete-site": {"sites", admin},

		"list-sessions": {"sessions", everyone},
		"end-session":   {"sessions", admin | firmAdmin},

		"list-locks":  {"locks", bpo},
		"create-lock": {"locks", admin},
		"remove-lock": {"locks", admin},

		"list-events": {"events", everyone},
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
