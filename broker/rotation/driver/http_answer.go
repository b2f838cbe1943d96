// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// understand returns what an answer means, and the provider's words. One that
// no rule is for is not understood.
func (s *httpSession) understand(step *httpStep, status int, document any) (means, words string, err error) {
	for _, answer := range step.Answers {
		if len(answer.Status) > 0 && !slices.Contains(answer.Status, status) {
			continue
		}
		holds := true
		for i := range answer.When {
			if holds, err = s.holds(&answer.When[i], document); err != nil {
				return "", "", err
			}
			if !holds {
				break
			}
		}
		if !holds {
			continue
		}
		if answer.Words != "" {
			pointer, err := expand(answer.Words, s.escaped(pointerToken))
			if err != nil {
				return "", "", err
			}
			v, _ := at(document, pointer)
			words = text(v)
		}
		return answer.Means, words, nil
	}
	return meansUnknown, "", nil
}

func (s *httpSession) holds(c *httpCondition, document any) (bool, error) {
	pointer, err := expand(c.At, s.escaped(pointerToken))
	if err != nil {
		return false, err
	}
	v, found := at(document, pointer)
	switch {
	case c.Missing || !found:
		return c.Missing != found, nil
	case len(c.Is) > 0:
		for _, template := range c.Is {
			is, err := expand(template, s.value)
			if err != nil || is == text(v) {
				return err == nil, err
			}
		}
		return false, nil
	case c.Matches != "":
		return regexp.MatchString(c.Matches, text(v))
	}
	return true, nil
}

// at returns what a JSON pointer points to (RFC 6901 §4). null is not there.
func at(document any, pointer string) (any, bool) {
	if pointer == "" || pointer == "/" {
		return document, document != nil
	}
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch v := document.(type) {
		case map[string]any:
			document = v[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			document = v[i]
		default:
			return nil, false
		}
	}
	return document, document != nil
}

// text is a value as conditions see it.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	case []any:
		parts := make([]string, 0, len(v))
		for _, part := range v {
			parts = append(parts, text(part))
		}
		return strings.Join(parts, " ")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
