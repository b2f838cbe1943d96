// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// importFault is what is wrong with one cell, or (no column) one row.
type importFault struct {
	Line   int    `json:"line"`
	Column string `json:"column,omitempty"`
	Detail string `json:"detail"`
}

// importFaults are what is wrong with a file.
type importFaults struct {
	list []importFault
	// code is what the server's faults have in common; those found here are
	// Invalid.
	code broker.Code
}

func (f *importFaults) none() bool { return len(f.list) == 0 }

func (f *importFaults) add(fault importFault) { f.list, f.code = append(f.list, fault), broker.Invalid }

// at reports whether something is wrong with a line.
func (f *importFaults) at(line int) bool {
	return slices.ContainsFunc(f.list, func(fault importFault) bool { return fault.Line == line })
}

// take takes over what the server says of rows, which begin at some row of
// the request's; ok is false for an error that is not about rows.
func (f *importFaults) take(err error, rows []*cells) (ok bool) {
	var p *httpapi.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return false
	}
	var taken []importFault
	for _, e := range p.Errors {
		step, rest, _ := strings.Cut(strings.TrimPrefix(e.Pointer, "#/rows/"), "/")
		i, err := strconv.Atoi(step)
		if err != nil || i < 0 || i >= len(rows) {
			return false
		}
		taken = append(taken, importFault{rows[i].line, columnOf(rest), e.Detail})
	}
	switch f.code {
	case "", p.Code:
		f.code = p.Code
	default:
		f.code = broker.Invalid
	}
	f.list = append(f.list, taken...)
	return true
}

// columnOf names the column that a member of a row came from.
func columnOf(pointer string) string {
	steps := strings.Split(strings.TrimPrefix(strings.TrimPrefix(pointer, "terms/"), "app_password/"), "/")
	if steps[0] == "expires_at" {
		return "" // a flag's
	}
	if pointer == "certificate_name/authority" {
		return "authority"
	}
	if len(steps) > 1 && steps[1] == "tls" {
		return steps[0] + "_tls"
	}
	return steps[0]
}

// error tells all of them, by line. stored says what is stored all the same.
func (f *importFaults) error(stored string) error {
	slices.SortStableFunc(f.list, func(a, b importFault) int { return cmp.Compare(a.Line, b.Line) })
	var b strings.Builder
	fmt.Fprintf(&b, "%s wrong with the file; %s:", count(len(f.list), "thing")+map[bool]string{true: " is", false: " are"}[len(f.list) == 1], stored)
	for _, fault := range f.list {
		where := "line " + strconv.Itoa(fault.Line)
		if fault.Column != "" {
			where += ", " + fault.Column
		}
		fmt.Fprintf(&b, "\n  %s: %s", where, fault.Detail)
	}
	return broker.Errorf(f.code, "%s", b.String())
}

// json is the faults as --json prints them.
func (f *importFaults) json() ([]byte, error) {
	return json.Marshal(map[string]any{"errors": f.list})
}
