// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// listenAgain is how long a listener waits before it connects anew.
	listenAgain = 250 * time.Millisecond
	// maxNotice bounds what one notice says, in octets: PostgreSQL takes less
	// than 8000.
	maxNotice = 7000
)

// notice is a change as one node tells the others.
type notice struct {
	Revision int64             `json:"r"`
	Kind     string            `json:"k,omitempty"`
	ID       broker.ID         `json:"i,omitempty"`
	Target   broker.LockTarget `json:"t,omitempty"`
	TargetID broker.ID         `json:"ti,omitempty"`
	At       int64             `json:"a"` // microseconds since 1970
}

// notices are the payloads that tell of changes, in their order.
func notices(changes []broker.Change) (payloads []string) {
	var page []byte
	for _, c := range changes {
		one, err := json.Marshal(notice{c.Revision, c.Kind, c.ID, c.Target, c.TargetID, c.At.UnixMicro()})
		if err != nil {
			continue // texts and numbers have a JSON form; and the revision is polled
		}
		if len(page)+len(one) > maxNotice {
			payloads, page = append(payloads, string(append(page, ']'))), nil
		}
		separator := byte(',')
		if page == nil {
			separator = '['
		}
		page = append(append(page, separator), one...)
	}
	if page != nil {
		payloads = append(payloads, string(append(page, ']')))
	}
	return payloads
}

// listener hears what the other nodes change, on a connection of its own. Its
// own node's changes come back to it as well; those were told before.
type listener struct {
	config   *pgx.ConnConfig
	server   *PostgreSQL
	notifier *notifier
	now      func() time.Time
	log      *zap.Logger

	stop context.CancelFunc
	done chan struct{}
}

// start returns when the first connection listens.
func (l *listener) start(ctx context.Context) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	l.stop, l.done = stop, make(chan struct{})
	go l.run(running, conn)
	return nil
}

func (l *listener) close() error {
	l.stop()
	<-l.done
	return nil
}

// connect listens, and only then reads the revision: what is committed between
// the two is told twice rather than never.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+statementTimeout)
	defer cancel()
	config := l.config.Copy()
	if err := l.server.beforeConnect(ctx, config); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	var revision int64
	if _, err = conn.Exec(ctx, `LISTEN `+notifyChannel); err == nil {
		revision, err = revisionOf(ctx, conn)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	l.notifier.reached(revision, l.now())
	return conn, nil
}

// run listens until ctx ends. While there is no connection the policy revision
// is polled all the same, by whoever must not miss a change.
func (l *listener) run(ctx context.Context, conn *pgx.Conn) {
	defer close(l.done)
	for {
		if conn != nil {
			err := l.hear(ctx, conn)
			// It is broken, or not needed any more.
			_ = conn.PgConn().Conn().Close()
			if ctx.Err() != nil {
				return
			}
			l.log.Warn("the other nodes' changes are not heard; connecting anew", zap.Error(err))
		}
		var err error
		if conn, err = l.connect(ctx); err == nil {
			l.log.Info("the other nodes' changes are heard again")
			continue
		}
		conn = nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenAgain):
		}
	}
}

func (l *listener) hear(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		// Whoever may connect to the database can say anything here: a revision
		// that the policy does not have must keep none from being told of.
		revision, err := revisionOf(ctx, conn)
		if err != nil {
			return err
		}
		var told []notice
		if err := json.Unmarshal([]byte(n.Payload), &told); err != nil || len(told) == 0 || told[len(told)-1].Revision > revision {
			l.log.Warn("a notice that is none of Postern's was left alone", zap.String("notice", n.Payload), zap.Error(err))
			continue
		}
		changes := make([]broker.Change, len(told))
		for i, c := range told {
			changes[i] = broker.Change{
				Revision: min(c.Revision, revision), Kind: c.Kind, ID: c.ID, Target: c.Target, TargetID: c.TargetID,
				At: time.UnixMicro(c.At).UTC(),
			}
		}
		l.notifier.tell(changes)
	}
}

func revisionOf(ctx context.Context, conn *pgx.Conn) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return revision, conn.QueryRow(ctx, selectRevision).Scan(&revision)
}
