// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
)

// Event is an event of a log, with its data in JSON.
type Event struct {
	broker.Event
	Data json.RawMessage `json:"data"`
}

// parseEvent reads an entry's record. One of a later version may have fields
// that are not known here.
func parseEvent(e *logcopy.Entry) (*Event, error) {
	event := new(Event)
	if err := json.Unmarshal(e.Record, event); err != nil {
		return nil, fmt.Errorf("the record of event %d is not understood: %w", e.Seq, err)
	}
	return event, nil
}

// dataOf decodes an event's data; what does not fit is left empty.
func dataOf[T any](e *Event) (data T) {
	_ = json.Unmarshal(e.Data, &data) // a later version's may differ: the record itself is in the bundle
	return data
}

// readEntries hands over the entries of events.jsonl, one by one. A line that
// is not octet by octet what Postern writes is none: nothing may stand there
// that no hash covers.
func readEntries(r io.Reader, each func(*logcopy.Entry) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	lines.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return i + 1, data[:i+1], nil
		}
		if atEOF && len(data) > 0 {
			return 0, nil, errors.New("its last line is cut off")
		}
		return 0, nil, nil
	})
	var again []byte
	for number := 1; lines.Scan(); number++ {
		e := new(logcopy.Entry)
		if err := json.Unmarshal(lines.Bytes(), e); err != nil {
			return fmt.Errorf("line %d of events.jsonl is no entry: %w", number, err)
		}
		if again = e.AppendLine(again[:0]); !bytes.Equal(again, lines.Bytes()) {
			return fmt.Errorf("line %d of events.jsonl is not in the form in which Postern writes it", number)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("events.jsonl: %w", err)
	}
	return nil
}
