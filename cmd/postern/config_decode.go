// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern-mail/postern/broker"
)

// problem is one fault of a configuration: the key's path, and what to do.
type problem struct{ key, text string }

// configError is all that is wrong with a configuration file.
type configError struct {
	file     string
	problems []problem
}

func (e *configError) Error() string {
	lines := make([]string, 0, len(e.problems))
	for _, p := range e.problems {
		line := p.text
		if p.key != "" {
			line = p.key + ": " + p.text
		}
		lines = append(lines, e.file+": "+line)
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error its code.
func (e *configError) Unwrap() error {
	return broker.InvalidField(e.problems[0].key, "%s", e.problems[0].text)
}

// duration is a time.Duration that must bear its unit.
type duration time.Duration

// UnmarshalYAML reads "30s"; a bare number, which would be nanoseconds, is
// refused.
func (d *duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := time.ParseDuration(node.Value)
	if err != nil || node.Kind != yaml.ScalarNode || parsed < 0 {
		return errors.New(`write a duration with its unit, such as "30s", "5m" or "2160h"`)
	}
	*d = duration(parsed)
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (d duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// size is a number of octets.
type size int64

// UnmarshalYAML reads "50MB": powers of 1024, as mail servers count.
func (s *size) UnmarshalYAML(node *yaml.Node) error {
	wrong := errors.New(`write a size with its unit, such as "512KB", "50MB" or "1GB"`)
	if node.Kind != yaml.ScalarNode {
		return wrong
	}
	for unit, factor := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		number, ok := strings.CutSuffix(node.Value, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/factor {
			return wrong
		}
		*s = size(n * factor)
		return nil
	}
	return wrong
}

// MarshalYAML writes what UnmarshalYAML reads.
func (s size) MarshalYAML() (any, error) { return strconv.FormatInt(int64(s)>>10, 10) + "KB", nil }

// decodeConfig decodes YAML into out, a pointer to a struct, and accepts no
// key that the struct does not have. It does not use the YAML library's own
// strict mode, whose errors name Go's types and not the keys.
func decodeConfig(content []byte, out any) []problem {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil // empty: validation says what is missing
	} else if err != nil {
		return []problem{{text: yamlText(err)}}
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return []problem{{text: "there is more after the document's end (---); one document is all"}}
	}
	d := &configDecoder{}
	d.decode("", document.Content[0], reflect.ValueOf(out).Elem())
	return d.problems
}

type configDecoder struct{ problems []problem }

func (d *configDecoder) fail(key string, node *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, problem{key, fmt.Sprintf(format, args...) + fmt.Sprintf(" (line %d)", node.Line)})
}

// decode puts node into v, whose key is the path so far.
func (d *configDecoder) decode(key string, node *yaml.Node, v reflect.Value) {
	if node.Kind == yaml.AliasNode {
		d.fail(key, node, "aliases are not supported; write it out")
		return
	}
	if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct {
		d.decodeStruct(key, node, v)
		return
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && node.Kind == yaml.SequenceNode &&
		!v.Type().Elem().Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
		for i, element := range node.Content {
			d.decode(fmt.Sprintf("%s[%d]", key, i), element, v.Index(i))
		}
		return
	}
	if err := node.Decode(v.Addr().Interface()); err != nil {
		d.fail(key, node, "%s", yamlText(err))
	}
}

func (d *configDecoder) decodeStruct(key string, node *yaml.Node, v reflect.Value) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return // "vault:" with nothing below it
	}
	if node.Kind != yaml.MappingNode {
		d.fail(key, node, "must hold keys: %s", strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		path := joinKey(key, name.Value)
		field := fieldOf(v, name.Value)
		switch {
		case !field.IsValid():
			d.fail(path, name, "there is no such key; known here: %s", strings.Join(keysOf(v.Type()), ", "))
		case seen[name.Value]:
			d.fail(path, name, "the key is there twice")
		default:
			d.decode(path, value, field)
		}
		seen[name.Value] = true
	}
}

func joinKey(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("yaml")
	}
	return keys
}

// fieldOf returns the struct's field of a key; the zero Value: it has none.
func fieldOf(v reflect.Value, key string) reflect.Value {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// yamlText clears an error of the library's prefix and of Go's types.
func yamlText(err error) string {
	var typeError *yaml.TypeError
	if !errors.As(err, &typeError) {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	text := strings.Join(typeError.Errors, "; ")
	if _, after, ok := strings.Cut(text, ": "); ok { // the line, which is said anyway
		text = after
	}
	for goType, kind := range map[string]string{
		"[]string": "a list of texts", "string": "a text", "int": "a number", "bool": "true or false",
		"[]netip.Prefix": "a list of networks such as 192.0.2.0/24",
	} {
		if before, ok := strings.CutSuffix(text, " into "+goType); ok {
			return before + "; it must be " + kind
		}
	}
	return text
}
