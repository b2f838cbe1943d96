// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

const (
	// defaultInterval is how often checkpoints are signed.
	defaultInterval = time.Second
	// roundTimeout bounds one round.
	roundTimeout = 30 * time.Second
	// logsAtOnce bounds how many logs are read at a time.
	logsAtOnce = 256
	// farBehind is after how many new events a proof costs less than reading
	// their leaves: where another node has signed meanwhile.
	farBehind = 64 << 10
)

// Config is what New needs.
type Config struct {
	// Logs and Logger are required.
	Logs   broker.Logs
	Logger *zap.Logger
	// Signers sign each checkpoint, all of them, so that those who know only an
	// old key and those who know only a new one can check it. At least one.
	Signers []Signer
	// Registerer takes the metrics; nil: there are none to see.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Interval is how often it looks for new events; 0: a second.
	Interval time.Duration
}

// Publisher signs checkpoints.
type Publisher struct {
	cfg     Config
	metrics *metrics
	// signing is held for a round. signed is what was signed last of each log that
	// this process has seen, epoch is the log's last one. reached is the log up to
	// which the round came that was cut short.
	signing sync.Mutex
	signed  map[translog.Origin]translog.Tree
	epoch   map[broker.ID]broker.ID
	reached *broker.ID

	mu sync.Mutex
	// torn is why a log is not signed any more.
	torn map[broker.ID]error
}

// New makes a publisher.
func New(cfg Config) (*Publisher, error) {
	if cfg.Logs == nil || cfg.Logger == nil || len(cfg.Signers) == 0 {
		return nil, errors.New("checkpoint: logs, a logger and a signer are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	p := &Publisher{
		cfg: cfg, signed: make(map[translog.Origin]translog.Tree), epoch: make(map[broker.ID]broker.ID), torn: make(map[broker.ID]error),
	}
	var err error
	p.metrics, err = newMetrics(cfg.Registerer)
	return p, err
}

// Run signs until ctx ends, and once more then: what was recorded last is in a
// checkpoint when the process ends in order. It returns nil.
func (p *Publisher) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		p.Round(context.WithoutCancel(ctx))
		select {
		case <-ticker.C:
		case <-ctx.Done():
			p.Round(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// Healthy returns why there is a log that is not signed any more.
func (p *Publisher) Healthy() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.torn {
		return broker.Errorf(broker.Unavailable, "a transparency log is not what it was").WithCause(err)
	}
	return nil
}

// Keys returns the keys that verify a log's checkpoints.
func (p *Publisher) Keys(ctx context.Context, o translog.Origin) ([]string, error) {
	keys := make([]string, len(p.cfg.Signers))
	for i, s := range p.cfg.Signers {
		var err error
		if keys[i], err = verifierKey(ctx, s, o); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// Round signs what is new, once.
func (p *Publisher) Round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	p.signing.Lock()
	defer p.signing.Unlock()
	for {
		heads, err := p.cfg.Logs.UnsignedLogs(ctx, p.reached, logsAtOnce)
		if err != nil {
			p.failed("", err)
			return
		}
		for _, h := range heads {
			if ctx.Err() != nil {
				return // the next round goes on here
			}
			if err := p.sign(ctx, h); err != nil {
				p.failed(h.FirmID, err)
			}
			p.reached = &h.FirmID
		}
		if len(heads) < logsAtOnce {
			p.reached = nil
			return
		}
	}
}

func (p *Publisher) failed(firm broker.ID, err error) {
	p.metrics.failures.Inc()
	p.cfg.Logger.Error("a checkpoint was not signed", zap.String("firm", string(firm)), zap.Error(err))
}

// tornError says that a log is not what was signed before.
type tornError struct{ error }

// sign signs one log as it is.
func (p *Publisher) sign(ctx context.Context, h *broker.LogHead) error {
	o := translog.Origin{FirmID: h.FirmID, Epoch: h.Epoch}
	tree, err := p.follow(ctx, o, h)
	p.note(h.FirmID, err)
	if err != nil {
		return err
	}
	c := translog.Checkpoint{Origin: o, Size: h.Size, Root: h.Root}
	signers := make([]note.Signer, len(p.cfg.Signers))
	for i, s := range p.cfg.Signers {
		if signers[i], err = newNoteSigner(ctx, s, c.Origin); err != nil {
			return err
		}
	}
	text, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	if err != nil {
		return err
	}
	// From here on somebody may have it, whatever becomes of it.
	p.signed[o], p.epoch[h.FirmID] = tree, h.Epoch
	err = p.cfg.Logs.StoreCheckpoint(ctx, h.FirmID, h.Epoch, &broker.LogCheckpoint{Size: h.Size, Note: string(text), SignedAt: p.cfg.Now()})
	if err == nil {
		p.metrics.signed.Inc()
	}
	return err
}

// note keeps whether a log is torn.
func (p *Publisher) note(firm broker.ID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var torn *tornError
	if errors.As(err, &torn) {
		p.torn[firm] = err
	} else if err == nil {
		delete(p.torn, firm)
	}
	p.metrics.torn.Set(float64(len(p.torn)))
}

func torn(format string, args ...any) error { return &tornError{fmt.Errorf(format, args...)} }

// follow finds that a log as it is follows from what was signed of it, and
// returns its tree.
func (p *Publisher) follow(ctx context.Context, o translog.Origin, h *broker.LogHead) (translog.Tree, error) {
	last, seen := p.signed[o]
	if epoch := p.epoch[h.FirmID]; seen && epoch != h.Epoch {
		return translog.Tree{}, torn("the log is of its epoch %s again, after %s: an older database was put into place", h.Epoch, epoch)
	}
	tree, err := translog.ParseTree(h.Size, h.Edge)
	if err != nil {
		return tree, torn("the log has no tree: %w", err)
	}
	switch {
	case !seen:
		// With a new epoch a log is another log, which a restore recorded.
		return tree, p.adopt(ctx, h)
	case h.Size < last.Size():
		return tree, torn("the log has %d events, and %d were signed: an older database was put into place", h.Size, last.Size())
	case h.Size-last.Size() > farBehind:
		return tree, p.prove(ctx, h, last.Size(), last.Root())
	}
	grown, err := translog.ParseTree(last.Size(), last.AppendEdge(nil)) // a copy
	if err != nil {
		return grown, err
	}
	if err := p.grow(ctx, h, &grown); err != nil {
		return grown, err
	}
	if grown.Root() != tlog.Hash(h.Root) {
		return grown, torn("the log of %d events does not follow from the one of %d that was signed: its rows were changed", h.Size, last.Size())
	}
	return grown, nil
}

// grow adds the leaves that the database has beyond tree's.
func (p *Publisher) grow(ctx context.Context, h *broker.LogHead, tree *translog.Tree) error {
	for tree.Size() < h.Size {
		number, offset := tree.Size()/translog.TileWidth, int(tree.Size()%translog.TileWidth)
		width := int(min(translog.TileWidth, h.Size-number*translog.TileWidth))
		tile, err := p.cfg.Logs.LogTile(ctx, h.FirmID, 0, number, width)
		if broker.CodeOf(err) == broker.NotFound {
			return torn("events from %d on are missing", number*translog.TileWidth)
		}
		if err != nil {
			return err
		}
		for i := offset; i < width; i++ {
			tree.Add(tlog.Hash(tile[i*tlog.HashSize:(i+1)*tlog.HashSize]), nil)
		}
	}
	return nil
}

// adopt takes over a log of which this process has signed nothing, if it
// follows from its last checkpoint.
func (p *Publisher) adopt(ctx context.Context, h *broker.LogHead) error {
	if h.Checkpoint == nil {
		return nil
	}
	c, err := p.own(ctx, h)
	if err != nil {
		return err
	}
	return p.prove(ctx, h, c.Size, c.Root)
}

// prove finds by the log's tiles that it follows from what it was at a size.
func (p *Publisher) prove(ctx context.Context, h *broker.LogHead, size int64, root tlog.Hash) error {
	reader := translog.TileReader(tlog.Tree{N: h.Size, Hash: tlog.Hash(h.Root)}, func(level int, number int64, width int) ([]byte, error) {
		return p.cfg.Logs.LogTile(ctx, h.FirmID, level, number, width)
	})
	proof, err := tlog.ProveTree(h.Size, size, reader)
	if broker.CodeOf(err) == broker.Unavailable {
		return err
	}
	if err == nil {
		err = tlog.CheckTree(proof, h.Size, tlog.Hash(h.Root), size, root)
	}
	if err != nil {
		return torn("the log of %d events does not follow from the one of %d that was signed: %w", h.Size, size, err)
	}
	return nil
}

// own reads a log's last checkpoint. One that none of the present keys signed
// is read all the same: keys change.
func (p *Publisher) own(ctx context.Context, h *broker.LogHead) (*translog.Checkpoint, error) {
	keys, err := p.Keys(ctx, translog.Origin{FirmID: h.FirmID, Epoch: h.Epoch})
	if err != nil {
		return nil, err
	}
	known, err := translog.ParseKeys(strings.Join(keys, "\n"))
	if err != nil {
		return nil, err
	}
	c, err := known.Open([]byte(h.Checkpoint.Note))
	var unknown *translog.UnknownKeyError
	if errors.As(err, &unknown) {
		p.cfg.Logger.Warn("the last checkpoint was signed by another key: those who check the log need the new one",
			zap.String("firm", string(h.FirmID)))
		c, err = translog.Read([]byte(h.Checkpoint.Note))
	}
	if err != nil {
		return nil, torn("the last checkpoint is none: %w", err)
	}
	if c.Origin.FirmID != h.FirmID || c.Origin.Epoch != h.Epoch || c.Size != h.Checkpoint.Size || c.Size > h.Size {
		return nil, torn("the last checkpoint is not the log's")
	}
	return c, nil
}
