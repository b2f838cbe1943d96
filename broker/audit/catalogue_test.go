// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// constants returns the values of broker's constants of type EventType, from
// its source.
func constants(t *testing.T) map[string]broker.EventType {
	t.Helper()
	files, err := filepath.Glob("../*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source of broker: %v", err)
	}
	all := make(map[string]broker.EventType)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "EventType" {
				return true
			}
			for i, id := range spec.Names {
				value, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all[id.Name] = broker.EventType(value)
			}
			return true
		})
	}
	return all
}

var (
	typeForm  = regexp.MustCompile(`^[a-z]+(-[a-z]+)*\.[a-z]+$`)
	fieldForm = regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
)

func TestCatalogueIsWhole(t *testing.T) {
	specs := make(map[broker.EventType]broker.EventSpec)
	for _, spec := range broker.Catalogue() {
		if _, twice := specs[spec.Type]; twice {
			t.Errorf("%s is there twice", spec.Type)
		}
		specs[spec.Type] = spec
		if !typeForm.MatchString(string(spec.Type)) || spec.Version < 1 || spec.Meaning == "" || spec.Data == nil {
			t.Errorf("not documented: %+v", spec)
		}
	}
	all := constants(t)
	if len(all) < 10 {
		t.Fatalf("only %d constants were found in the source", len(all))
	}
	for name, typ := range all {
		if _, ok := specs[typ]; !ok {
			t.Errorf("%s (%s) is not in the catalogue", name, typ)
		}
	}
	for _, kind := range []string{"firm", "mailbox", "agent", "workstation", "site", "delegation", "assignment", "app-password", "lock"} {
		if _, ok := specs[broker.EventType(kind+".created")]; !ok {
			t.Errorf("%s.created is not in the catalogue", kind)
		}
	}
}

// eachField calls f for each field of a struct and of those within it.
func eachField(t reflect.Type, path string, f func(path string, field reflect.StructField)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		eachField(t.Elem(), path, f)
	case reflect.Struct:
		if t.PkgPath() == "time" {
			return
		}
		for i := range t.NumField() {
			field := t.Field(i)
			f(path+"."+field.Name, field)
			eachField(field.Type, path+"."+field.Name, f)
		}
	}
}

// Every field has a JSON name of its own, and none could hold a credential.
func TestNever1CatalogueHoldsNoSecret(t *testing.T) {
	for _, spec := range broker.Catalogue() {
		eachField(reflect.TypeOf(spec.Data), string(spec.Type), func(path string, f reflect.StructField) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || !fieldForm.MatchString(name) {
				t.Errorf("%s has the JSON name %q", path, name)
			}
			switch f.Type {
			case reflect.TypeFor[broker.Secret](), reflect.TypeFor[broker.Credential](), reflect.TypeFor[broker.AppPassword]():
				t.Errorf("%s can hold a secret", path)
			case reflect.TypeFor[[]byte]():
				t.Errorf("%s holds octets that nobody can judge", path)
			}
			if f.Type.Kind() == reflect.Interface {
				t.Errorf("%s can hold anything", path)
			}
		})
	}
}

// The printed catalogue says what is in the records.
func TestWriteCatalogue(t *testing.T) {
	var out bytes.Buffer
	if err := WriteCatalogue(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	sections := strings.Split(text, "\n## ")
	specs := broker.Catalogue()
	if len(sections) != len(specs)+1 {
		t.Fatalf("%d sections for %d types", len(sections)-1, len(specs))
	}
	for i, spec := range specs {
		section := sections[i+1]
		if !strings.HasPrefix(section, string(spec.Type)+"\n") || !strings.Contains(section, spec.Meaning) ||
			!strings.Contains(section, "Version "+strconv.Itoa(spec.Version)) || !strings.Contains(section, spec.Personal) {
			t.Errorf("%s is not described: %s", spec.Type, section)
		}
		var fields map[string]any
		form, err := json.Marshal(spec.Data)
		if err == nil {
			err = json.Unmarshal(form, &fields)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name := range fields {
			if !strings.Contains(section, "| `"+name+"` |") {
				t.Errorf("%s: %s is not listed", spec.Type, name)
			}
		}
	}
	for _, line := range []string{
		"| `seq` | integer |  |", "| `time` | time |  |", "| `firm_id` | id | may be absent |",
		"| `session.remote_addr` | string |  |", "| `decision.actions` | array of string |  |",
		"| `messages[].uid` | integer |  |", "| `recipients` | array of string |  |", "| `before` | JSON | may be absent |",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("there is no line %q", line)
		}
	}
}
