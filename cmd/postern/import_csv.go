// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Limits of an import's file.
const (
	maxImportOctets = 8 << 20
	maxImportRows   = 10000
)

// listSeparator is between the items of a cell that holds several.
const listSeparator = ";"

// importColumn is one column of an import's file.
type importColumn struct {
	name, doc string
	required  bool
}

// cells are a row of the file: by column, without the spaces around them.
type cells struct {
	line   int
	values map[string]string
	faults *importFaults
}

// list returns the items of a cell.
func (c *cells) list(column string) []string {
	var items []string
	for item := range strings.SplitSeq(c.values[column], listSeparator) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// wrong notes what is wrong with a cell.
func (c *cells) wrong(column, format string, args ...any) {
	c.faults.add(importFault{c.line, column, fmt.Sprintf(format, args...)})
}

// oneOf returns a cell that must be one of some words, or empty.
func (c *cells) oneOf(column string, words ...string) string {
	text := c.values[column]
	if text != "" && !slices.Contains(words, text) {
		c.wrong(column, "%q: use %s", text, strings.Join(words, " or "))
	}
	return text
}

// readImport reads a file, or ("-") standard input.
func readImport(cmd *cobra.Command, file string) ([]byte, error) {
	from := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usagef("%v", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxImportOctets+1))
	if err != nil {
		return nil, usagef("%s: %v", file, err)
	}
	if len(text) > maxImportOctets {
		return nil, usagef("%s has more than %d octets: split it", file, maxImportOctets)
	}
	return text, nil
}

// parseImport reads CSV (RFC 4180) with a header: one row of the file a line,
// or more where a cell is quoted. What is wrong with the header is an error,
// since nothing is known of the rows then; what is wrong with rows goes into
// faults, and such rows are left out.
func parseImport(text []byte, columns []importColumn, faults *importFaults) ([]*cells, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // spreadsheets begin with it
	if !utf8.Valid(text) {
		return nil, usagef("the file is not UTF-8: save it as \"CSV UTF-8\"")
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if err != nil {
		return nil, usagef("the file has no header: its first line names the columns, of %s", columnNames(columns))
	}
	if err := checkHeader(header, columns); err != nil {
		return nil, err
	}
	var rows []*cells
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			// What follows a stray quote cannot be told from it.
			faults.add(importFault{bad.Line, "", fmt.Sprintf("%v: the rest of the file was not read", bad.Err)})
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		if row := rowOf(line, header, record, columns, faults); row != nil {
			rows = append(rows, row)
		}
		if len(rows) > maxImportRows {
			return nil, usagef("the file has more than %d rows: split it", maxImportRows)
		}
	}
	if len(rows) == 0 && faults.none() {
		return nil, usagef("the file has a header, and no rows")
	}
	return rows, nil
}

// rowOf makes a row of a record; nil when the record is no row, or empty.
func rowOf(line int, header, record []string, columns []importColumn, faults *importFaults) *cells {
	if strings.TrimSpace(strings.Join(record, "")) == "" {
		return nil // spreadsheets end with such lines
	}
	if len(record) != len(header) {
		faults.add(importFault{line, "", fmt.Sprintf("it has %d cells, and the header %d: a cell with a comma needs quotes", len(record), len(header))})
		return nil
	}
	row := &cells{line: line, values: make(map[string]string, len(header)), faults: faults}
	for i, name := range header {
		row.values[strings.TrimSpace(name)] = strings.TrimSpace(record[i])
	}
	for _, c := range columns {
		if c.required && row.values[c.name] == "" {
			row.wrong(c.name, "is empty")
		}
	}
	return row
}

func checkHeader(header []string, columns []importColumn) error {
	if len(header) == 1 && strings.Contains(header[0], ";") {
		return usagef("the file's columns are separated by semicolons: save it with commas")
	}
	seen := map[string]bool{}
	for _, name := range header {
		name = strings.TrimSpace(name)
		if !slices.ContainsFunc(columns, func(c importColumn) bool { return c.name == name }) {
			return usagef("there is no column %q: use %s", name, columnNames(columns))
		}
		if seen[name] {
			return usagef("the column %q is there twice", name)
		}
		seen[name] = true
	}
	for _, c := range columns {
		if c.required && !seen[c.name] {
			return usagef("the column %q is missing: use %s", c.name, columnNames(columns))
		}
	}
	return nil
}

func columnNames(columns []importColumn) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return list(names)
}
