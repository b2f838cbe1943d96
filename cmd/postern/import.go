// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newImportCommand(a *app) *cobra.Command {
	return newGroup("import", "Add many at a time, from a CSV file, with a dry run",
		newImportAgentsCommand(a), newImportWorkstationsCommand(a), newImportMailboxesCommand(a), newImportAssignmentsCommand(a))
}

// importKind is a kind of things that a file can hold; R is a row as the API
// takes it.
type importKind[R any] struct {
	plural, short, long, example string
	columns                      []importColumn
	// row reads a row of the file; what is wrong with it goes into its faults.
	row func(*cells) R
	// body makes a request.
	body func(dryRun bool, rows []R) any
	// prepare is called before anything is stored, and save keeps what an answer
	// shows once; nil: there is nothing.
	prepare func([]R) error
	save    func([]httpapi.ImportedRow) error
	// next says what to do afterwards; empty: nothing.
	next string
}

// importHelp is what the help of every kind says.
const importHelp = `

The file is CSV in UTF-8; "-" is standard input. Its first line names its columns:

%s
All of the file is checked first: when anything is wrong, every error is told with
its line and column, and nothing is stored. What is there already as its row says
stays as it is, so that a file can be imported again; what is there otherwise is an
error, and an empty cell says nothing about it. Items of a list are separated by
semicolons. At most %d rows; of more than %d, each %d are stored at a time.`

func newImportKindCommand[R any](a *app, k *importKind[R]) (cmd *cobra.Command, dryRun *bool) {
	dryRun = new(bool)
	cmd = &cobra.Command{
		Use:   k.plural + " FILE",
		Short: k.short,
		Long: k.long + fmt.Sprintf(importHelp, describeColumns(k.columns), maxImportRows,
			httpapi.MaxImportRows, httpapi.MaxImportRows),
		Example: k.example,
		Args:    exactly("FILE"),
		RunE:    func(cmd *cobra.Command, args []string) error { return k.run(cmd, a, args[0], *dryRun) },
	}
	cmd.Flags().BoolVarP(dryRun, "dry-run", "n", false, "check everything, and store nothing")
	return cmd, dryRun
}

func describeColumns(columns []importColumn) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		doc := c.doc
		if c.required {
			doc += " (required)"
		}
		fmt.Fprintf(w, "  %s\t%s\n", c.name, doc)
	}
	_ = w.Flush()
	return b.String()
}

// run imports a file. Where it does not fit into one request, or something is
// wrong already, all of it is checked before any of it is stored.
func (k *importKind[R]) run(cmd *cobra.Command, a *app, file string, dryRun bool) error {
	text, err := readImport(cmd, file)
	if err != nil {
		return err
	}
	faults := &importFaults{}
	lines, err := parseImport(text, k.columns, faults)
	if err != nil {
		return err
	}
	var good []*cells
	var rows []R
	for _, c := range lines {
		if row := k.row(c); !faults.at(c.line) {
			good, rows = append(good, c), append(rows, row)
		}
	}
	var out *httpapi.Imported
	if dryRun || !faults.none() || len(rows) > httpapi.MaxImportRows {
		if out, err = k.send(cmd, a, true, good, rows, faults); err != nil {
			return err
		}
	}
	if !faults.none() {
		return a.showFaults(cmd, faults, "nothing was stored")
	}
	if !dryRun {
		if k.prepare != nil {
			if err := k.prepare(rows); err != nil {
				return err
			}
		}
		if out, err = k.send(cmd, a, false, good, rows, faults); err != nil {
			return interrupted(err, out)
		}
		if !faults.none() {
			return a.showFaults(cmd, faults, stored(out))
		}
	}
	return k.report(cmd, a, out, dryRun)
}

// interrupted adds to an error what it leaves: of the request that it ended,
// the outcome may not be known.
func interrupted(err error, out *httpapi.Imported) error {
	if len(out.Rows) == 0 && codeOf(err) != broker.Unavailable {
		return err
	}
	return broker.Errorf(codeOf(err), "%s\n%d rows are stored for certain: import the file again, which changes nothing of what is there",
		words(err), len(out.Rows)).WithCause(err)
}

// stored says how much of a file is stored, when an error stopped the rest.
func stored(out *httpapi.Imported) string {
	if len(out.Rows) == 0 {
		return "nothing was stored"
	}
	return fmt.Sprintf("the first %d rows are stored", len(out.Rows))
}

// send sends the rows in as many requests as they need. What the server finds
// wrong goes into faults: then a dry run goes on, and anything else ends. Out
// is about the requests that were done, if there is an error as well.
func (k *importKind[R]) send(cmd *cobra.Command, a *app, dryRun bool, lines []*cells, rows []R, faults *importFaults) (out *httpapi.Imported, err error) {
	out = &httpapi.Imported{DryRun: dryRun, Rows: []httpapi.ImportedRow{}}
	verb := map[bool]string{true: "checked", false: "stored"}[dryRun]
	for from := 0; from < len(rows); from += httpapi.MaxImportRows {
		to := min(from+httpapi.MaxImportRows, len(rows))
		_, done, err := call[httpapi.Imported](cmd, a, http.MethodPost, path(k.plural, "import"), k.body(dryRun, rows[from:to]))
		switch {
		case err == nil:
			if k.save != nil && !dryRun {
				err = k.save(done.Rows)
			}
			out.Created, out.Unchanged, out.Rows = out.Created+done.Created, out.Unchanged+done.Unchanged, append(out.Rows, done.Rows...)
			if err != nil {
				return out, err
			}
		case !faults.take(err, lines[from:to]):
			return out, err
		case !dryRun:
			return out, nil
		}
		if len(rows) > httpapi.MaxImportRows {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s %d of %d rows\n", verb, to, len(rows))
		}
	}
	return out, nil
}

// showFaults tells what is wrong, and is the error about it.
func (a *app) showFaults(cmd *cobra.Command, faults *importFaults, stored string) error {
	err := faults.error(stored)
	if a.json {
		raw, wrong := faults.json()
		if wrong != nil {
			return errors.Join(err, wrong)
		}
		if wrong := a.show(cmd, raw, nil); wrong != nil {
			return errors.Join(err, wrong)
		}
	}
	return err
}

func (k *importKind[R]) report(cmd *cobra.Command, a *app, out *httpapi.Imported, dryRun bool) error {
	for i := range out.Rows {
		out.Rows[i].Code, out.Rows[i].AppPassword = "", "" // they are in their file
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return a.show(cmd, raw, func(w io.Writer) {
		if dryRun {
			fmt.Fprintf(w, "nothing is wrong: %d %s to add, %d there already; nothing was stored\n", out.Created, k.plural, out.Unchanged)
			return
		}
		fmt.Fprintf(w, "%d %s added, %d there already\n", out.Created, k.plural, out.Unchanged)
		if out.Created > 0 && k.next != "" {
			fmt.Fprintln(w, k.next)
		}
	})
}

// onceFile keeps what an import shows once, as CSV: made before the first
// secret is, and written before the next request.
type onceFile struct {
	path string
	file *tokenFile
	kept int
	// columns are its header; again says how to get what it could not keep.
	columns []string
	again   string
}

// open makes the file, if anything is to go into it.
func (c *onceFile) open(needed bool) error {
	if !needed {
		return nil
	}
	if c.path == "" {
		return usagef("--save is missing: the file for the %ss, which are shown once", strings.ReplaceAll(c.columns[1], "_", " "))
	}
	file, err := newTokenFile(c.path)
	if err != nil {
		return err
	}
	c.file = file
	return nil
}

// keep writes what rows show, so that a power cut does not lose it.
func (c *onceFile) keep(rows []httpapi.ImportedRow) error {
	if c.file == nil {
		return nil
	}
	w := csv.NewWriter(c.file.f)
	var err error
	if c.kept == 0 {
		err = w.Write(c.columns)
	}
	for _, row := range rows {
		if secret := row.Code + row.AppPassword; secret != "" {
			c.kept++
			cells := []string{row.Name, secret}
			if row.ExpiresAt != nil {
				cells = append(cells, stamp(*row.ExpiresAt))
			}
			err = cmp.Or(err, w.Write(cells))
		}
	}
	w.Flush()
	if err = errors.Join(err, w.Error(), c.file.f.Sync()); err != nil {
		return fmt.Errorf("%s was not written whole; %s: %w", c.path, c.again, err)
	}
	return nil
}

// close ends the file, and removes it when it holds nothing.
func (c *onceFile) close(err error) error {
	switch {
	case c.file == nil:
		return err
	case c.kept == 0:
		return c.file.discard(err)
	}
	return errors.Join(err, c.file.f.Close())
}
