// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// MaxImportRows bounds an import: its rows are one transaction, which whoever
// else changes something waits for.
const MaxImportRows = 500

// Imported says what an import came to.
type Imported struct {
	DryRun bool `json:"dry_run"`
	// Created and Unchanged count rows.
	Created   int           `json:"created" doc:"Rows that made something, or (dry_run) would."`
	Unchanged int           `json:"unchanged" doc:"Rows whose thing is there already, as they say."`
	Rows      []ImportedRow `json:"rows" nullable:"false" doc:"In the order of the request's."`
}

// ImportedRow says what one row came to.
type ImportedRow struct {
	Name    string    `json:"name"`
	Outcome string    `json:"outcome" enum:"created,unchanged"`
	ID      broker.ID `json:"id,omitempty" doc:"The thing's; a workstation that waits for its enrolment has none yet."`
	// AppPassword and Code are shown this once.
	AppPassword string     `json:"app_password,omitempty" doc:"An agent's, as he types it: it is shown this once, and not kept."`
	Code        string     `json:"code,omitempty" doc:"A workstation's enrolment code: it is shown this once, and not kept."`
	ExpiresAt   *time.Time `json:"expires_at,omitempty" doc:"The code's."`
}

// The outcomes of a row.
const (
	rowCreated   = "created"
	rowUnchanged = "unchanged"
)

func (a *api) registerImports() {
	const doc = "all of the rows, or none and what is wrong with each; what is there already as a row says stays as it is, and what is there otherwise is an error"
	route(a, http.MethodPost, "/v1/agents/import", "import-agents", "Add agents: "+doc, a.importAgents)
	route(a, http.MethodPost, "/v1/workstations/import", "import-workstations",
		"Add workstations, by key pins or one-time codes: "+doc, a.importWorkstations)
	route(a, http.MethodPost, "/v1/mailboxes/import", "import-mailboxes", "Add mailboxes: "+doc, a.importMailboxes)
	route(a, http.MethodPost, "/v1/assignments/import", "import-assignments", "Put agents on delegations: "+doc, a.importAssignments)
}

// importRows imports each row with one, which is called within a transaction:
// all rows are stored, or none. A dry run is the same, and stores none.
func importRows[R any](ctx context.Context, a *api, dryRun bool, rows []R, one func(context.Context, *R) (ImportedRow, error)) (*answer[Imported], error) {
	var out *Imported
	dry := broker.Errorf(broker.Conflict, "a dry run stores nothing")
	err := a.State.Together(ctx, func(ctx context.Context) error {
		done := &Imported{DryRun: dryRun, Rows: make([]ImportedRow, 0, len(rows))}
		wrong := &rowsError{rows: len(rows)}
		for i := range rows {
			row, err := one(ctx, &rows[i])
			switch broker.CodeOf(err) {
			case "":
				done.add(row)
			case broker.Internal, broker.Unavailable:
				return err // nothing is known of the rows that follow
			default:
				wrong.add(i, err)
			}
		}
		if len(wrong.faults) > 0 {
			return wrong
		}
		out = done
		if dryRun {
			return dry
		}
		return nil
	})
	if err != nil && !errors.Is(err, dry) {
		return nil, err
	}
	return &answer[Imported]{*out}, nil
}

func (i *Imported) add(row ImportedRow) {
	if row.Outcome == rowCreated {
		i.Created++
	} else {
		i.Unchanged++
	}
	if i.DryRun {
		// What was made is gone: its id and its code name nothing.
		row = ImportedRow{Name: row.Name, Outcome: row.Outcome}
	}
	i.Rows = append(i.Rows, row)
}

// rowsError says what is wrong with each of several rows.
type rowsError struct {
	rows   int
	faults []ProblemField
	// first is the error about the first of them; mixed says that others have
	// another code.
	first *broker.Error
	mixed bool
}

func (e *rowsError) add(i int, err error) {
	var own *broker.Error
	errors.As(err, &own) // it has a code, so it is one
	if e.first == nil {
		e.first = own
	}
	e.mixed = e.mixed || own.Code != e.first.Code
	field := indexed("rows", i)
	if own.Field != "" {
		field += "." + own.Field
	}
	e.faults = append(e.faults, ProblemField{Detail: own.Public, Pointer: pointer(field)})
}

// Error tells how many there are; problem, which.
func (e *rowsError) Error() string {
	return fmt.Sprintf("%d of %d rows are wrong, the first because: %v", len(e.faults), e.rows, e.first)
}

// Unwrap returns the error that the rows have in common, for its code.
func (e *rowsError) Unwrap() error {
	code := e.first.Code
	if e.mixed {
		code = broker.Invalid
	}
	return broker.Errorf(code, "%d of %d rows cannot be imported: nothing was stored", len(e.faults), e.rows)
}

// earlier holds what the rows before have named. A name that comes twice is
// more likely a slip than meant.
type earlier map[string]bool

func (e earlier) once(field, name string) error {
	k := strings.ToLower(name)
	if e[k] {
		return broker.InvalidField(field, "%q is in a row before as well", name)
	}
	e[k] = true
	return nil
}

// within puts the field that an error is about below a member of the row.
func within(member string, err error) error {
	var own *broker.Error
	if errors.As(err, &own) && own.Field != "" {
		below := *own
		below.Field = member + "." + own.Field
		return &below
	}
	return err
}

// differs is the error about a thing that is there, but not as a row says.
func differs(field, format string, args ...any) error {
	e := broker.Errorf(broker.Conflict, format, args...)
	e.Field = field
	return e
}
