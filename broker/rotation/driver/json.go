// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// appendJSONString appends a JSON string (RFC 8259 §7) that holds exactly s.
func appendJSONString(b, s []byte) ([]byte, error) {
	if !utf8.Valid(s) {
		return nil, errors.New("what is no UTF-8 cannot be a JSON string")
	}
	b = append(b, '"')
	for _, octet := range s {
		switch {
		case octet == '"', octet == '\\':
			b = append(b, '\\', octet)
		case octet < ' ', octet == 0x7f:
			b = fmt.Appendf(b, "\\u%04x", octet)
		default:
			b = append(b, octet)
		}
	}
	return append(b, '"'), nil
}
