// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/postern-mail/postern/broker"
)

// kind is what must be true of an event of one type.
type kind struct {
	version int
	data    reflect.Type
}

func kinds() map[broker.EventType]kind {
	all := make(map[broker.EventType]kind)
	for _, spec := range broker.Catalogue() {
		all[spec.Type] = kind{spec.Version, reflect.TypeOf(spec.Data)}
	}
	return all
}

// encoder encodes the data of events one after another.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
	ends []int
}

func newEncoder() *encoder {
	enc := new(encoder)
	enc.json = json.NewEncoder(&enc.buf)
	enc.json.SetEscapeHTML(false)
	return enc
}

// octets returns the encoded data of the ith event, until the next encode.
func (enc *encoder) octets(i int) []byte {
	start := 0
	if i > 0 {
		start = enc.ends[i-1]
	}
	return enc.buf.Bytes()[start:enc.ends[i]]
}

// encode checks events against the catalogue, fills in ID and Version, and
// encodes their data. An event that fails is counted and logged: its producer
// may not be waiting for a receipt.
func (l *Log) encode(enc *encoder, events ...*broker.Event) error {
	enc.buf.Reset()
	enc.ends = enc.ends[:0]
	for _, e := range events {
		k, err := l.check(e)
		if err == nil {
			err = enc.json.Encode(e.Data)
		}
		if err != nil {
			invalid := broker.InvalidField("event", "%s cannot be recorded", e.Type).WithCause(err)
			invalid.Reason = reasonInvalid
			l.mu.Lock()
			l.refuse(invalid, len(events))
			l.mu.Unlock()
			return invalid
		}
		if e.ID == "" {
			e.ID = broker.NewID()
		}
		if e.Version == 0 {
			e.Version = k.version
		}
		enc.ends = append(enc.ends, enc.buf.Len())
	}
	return nil
}

// check says why an event is none of the catalogue's. Another struct than the
// documented one is refused: nobody has looked at what is in it.
func (l *Log) check(e *broker.Event) (kind, error) {
	k, known := l.kinds[e.Type]
	if !known {
		return k, errors.New("not in the catalogue")
	}
	if e.Version != 0 && e.Version != k.version {
		return k, fmt.Errorf("version %d, the catalogue has %d", e.Version, k.version)
	}
	if e.FirmID != "" && !isID(e.FirmID) {
		return k, errors.New("the firm's id is none")
	}
	v := reflect.ValueOf(e.Data)
	if v.IsValid() && v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() || v.Type() != k.data {
		return k, fmt.Errorf("its data is %T, the catalogue has %s", e.Data, k.data)
	}
	return k, nil
}

// isID is broker.ParseID's rule without the copy.
func isID(id broker.ID) bool {
	if len(id) != 36 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
