// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// WriteCatalogue prints every type of event as Markdown: its version, when it
// is written, its fields, and which of them hold personal data.
func WriteCatalogue(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprint(b, `# Events

Every record is one JSON object with these fields; `+"`data`"+` depends on the type.
Times are RFC 3339 in UTC. A version grows when a field changes its meaning or
goes; new fields do not change it.

`)
	writeFields(b, fieldsOf(reflect.TypeFor[broker.Event]()))
	for _, spec := range broker.Catalogue() {
		fmt.Fprintf(b, "\n## %s\n\nVersion %d: %s.\n\n", spec.Type, spec.Version, spec.Meaning)
		if spec.Personal != "" {
			fmt.Fprintf(b, "Personal data: %s.\n\n", spec.Personal)
		}
		writeFields(b, fieldsOf(reflect.TypeOf(spec.Data)))
	}
	return b.Flush()
}

func writeFields(w io.Writer, fields []field) {
	fmt.Fprint(w, "| field | type | |\n| --- | --- | --- |\n")
	for _, f := range fields {
		optional := ""
		if f.optional {
			optional = "may be absent"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", f.name, f.typ, optional)
	}
}

// field is one field of a struct's JSON form, or of one within it.
type field struct {
	name     string // dotted; [] for the elements of an array
	typ      string
	optional bool
}

// fieldsOf lists the fields of a struct type and of the structs within it.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		typ, suffix, inner := typeName(f.Type)
		all = append(all, field{name, typ, strings.Contains(options, "omit")})
		for _, sub := range inner {
			sub.name = name + suffix + "." + sub.name
			all = append(all, sub)
		}
	}
	return all
}

// typeName names the JSON form of t, and lists what is in it.
func typeName(t reflect.Type) (name, suffix string, inner []field) {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time", "", nil
	case reflect.TypeFor[broker.ID]():
		return "id", "", nil
	case reflect.TypeFor[json.RawMessage]():
		return "JSON", "", nil
	case reflect.TypeFor[broker.EventType]():
		return "string", "", nil
	}
	if t.Implements(reflect.TypeFor[json.Marshaler]()) {
		return marshalled(t), "", nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Struct:
		return "object", "", fieldsOf(t)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "string (base64)", "", nil
		}
		name, _, inner := typeName(t.Elem())
		return "array of " + name, "[]", inner
	case reflect.String:
		return "string", "", nil
	case reflect.Bool:
		return "boolean", "", nil
	case reflect.Interface:
		return "object", "", nil
	case reflect.Float32, reflect.Float64:
		return "number", "", nil
	}
	return "integer", "", nil
}

// marshalled names the JSON form of a type that makes its own.
func marshalled(t reflect.Type) string {
	form, err := json.Marshal(reflect.Zero(t).Interface())
	if err == nil && len(form) > 0 {
		switch form[0] {
		case '[':
			return "array of string"
		case '{':
			return "object"
		case 't', 'f':
			return "boolean"
		case '"':
			return "string"
		}
	}
	return "JSON"
}
