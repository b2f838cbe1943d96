// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// WitnessInput registers a witness.
type WitnessInput struct {
	Firm    string             `json:"firm,omitempty" doc:"The firm whose log it watches, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	Key     string             `json:"key" minLength:"1" doc:"The witness's verifier key (C2SP tlog-cosignature), which whoever runs it has told."`
	Rule    broker.WitnessRule `json:"rule,omitempty" enum:"alarm,stop" doc:"What happens when it falls silent: an alert, or besides no new session for the firm. Without it: alarm."`
	Silence int                `json:"silence_seconds,omitempty" minimum:"10" maximum:"604800" doc:"After how many seconds without a cosignature; without it: 60."`
}

// LogWitness is a witness, and what it has cosigned.
type LogWitness struct {
	broker.Witness
	Firm string `json:"firm,omitempty"`
	// Size and CosignedAt are of its newest cosignature in the log's epoch.
	Size       int64     `json:"size" doc:"How many of the log's events it has cosigned; 0: none of this epoch."`
	CosignedAt time.Time `json:"cosigned_at,omitzero" doc:"When, by its own clock."`
	HeardAt    time.Time `json:"heard_at" doc:"When that reached Postern; before the first one, when it was registered."`
	Silent     bool      `json:"silent" doc:"It was not heard for longer than silence_seconds."`
	// The window is what could still be rewritten without this witness's noticing.
	UnwitnessedEvents  int64 `json:"unwitnessed_events" doc:"How many of the log's events it has not cosigned."`
	UnwitnessedSeconds int64 `json:"unwitnessed_seconds" doc:"How long ago it cosigned last, while there are such events."`
	RestoreUnconfirmed bool  `json:"restore_unconfirmed,omitempty" doc:"The log was restored, and nobody has confirmed it: no cosignature is taken."`
}

// CosignatureInput is what a witness submits.
type CosignatureInput struct {
	Firm       string `json:"firm,omitempty" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
	Checkpoint string `json:"checkpoint" minLength:"1" maxLength:"16384" doc:"The checkpoint with the log's signatures and the witness's (C2SP tlog-cosignature)."`
}

// CosignatureKept says what was taken.
type CosignatureKept struct {
	Witness string `json:"witness" doc:"Whose it is."`
	Size    int64  `json:"size" doc:"How many events it covers."`
}

// RestoreInput confirms a restore.
type RestoreInput struct {
	Firm string `json:"firm,omitempty" doc:"The firm whose log it is, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
}

// RestoreConfirmed says which epoch may be witnessed.
type RestoreConfirmed struct {
	Origin string `json:"origin" doc:"The log's name from the restore on: postern/FIRM/EPOCH."`
}

type witnessPath struct {
	Witness string `path:"witness" doc:"Id, or name."`
	Firm    string `query:"firm" doc:"The firm whose log it watches, by id or name; without it, the BPO's own or, for a firm's people, their firm's."`
}

func (a *api) registerWitnesses() {
	route(a, http.MethodGet, "/v1/log/witnesses", "list-witnesses", "List a log's witnesses, and what they have not cosigned yet", a.listWitnesses)
	route(a, http.MethodPost, "/v1/log/witnesses", "create-witness", "Register a witness of a log, by its key", a.createWitness)
	route(a, http.MethodDelete, "/v1/log/witnesses/{witness}", "remove-witness", "Remove a witness of a log", a.removeWitness)
	route(a, http.MethodPost, "/v1/log/cosignatures", "submit-cosignature", "Submit a witness's cosignature of a checkpoint", a.submitCosignature)
	route(a, http.MethodPost, "/v1/log/restore-confirmation", "confirm-restore", "Confirm that a log was restored from a backup, so that it may be witnessed again", a.confirmRestore)
}

func (a *api) listWitnesses(ctx context.Context, in *logQuery) (*answer[List[*LogWitness]], error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	all, err := a.Witnesses.Witnesses(ctx, id)
	if err != nil {
		return nil, err
	}
	shown := make([]*LogWitness, len(all))
	for i, w := range all {
		if shown[i], err = a.showWitness(ctx, w); err != nil {
			return nil, err
		}
	}
	return listOf(shown), nil
}

// showWitness holds what a witness has cosigned against the log.
func (a *api) showWitness(ctx context.Context, w *broker.WitnessStanding) (*LogWitness, error) {
	head, err := a.Logs.LogHead(ctx, w.FirmID)
	if err != nil {
		return nil, err
	}
	shown := &LogWitness{
		Witness: w.Witness, HeardAt: w.HeardAt, RestoreUnconfirmed: head.Unconfirmed,
		Silent: a.Now().Sub(w.HeardAt) > time.Duration(w.Silence)*time.Second,
	}
	if w.FirmID != "" {
		f, err := a.reads(ctx).Firm(ctx, w.FirmID)
		if err != nil {
			return nil, err
		}
		shown.Firm = f.Name
	}
	if w.Epoch == head.Epoch {
		shown.Size, shown.CosignedAt = w.Size, w.CosignedAt
	}
	if shown.UnwitnessedEvents = max(0, head.Size-shown.Size); shown.UnwitnessedEvents > 0 {
		shown.UnwitnessedSeconds = max(0, int64(a.Now().Sub(w.HeardAt).Seconds()))
	}
	return shown, nil
}

func (a *api) createWitness(ctx context.Context, in *struct{ Body WitnessInput }) (*answer[*LogWitness], error) {
	id, err := a.logOf(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	w := &broker.Witness{FirmID: id, Key: in.Body.Key, Rule: in.Body.Rule, Silence: in.Body.Silence}
	if key, err := translog.ParseWitnessKey(w.Key); err != nil {
		return nil, broker.InvalidField("key", "%v", err)
	} else if err := a.foreign(ctx, id, key); err != nil {
		return nil, err
	}
	if err := a.Witnesses.CreateWitness(ctx, actor(ctx), w); err != nil {
		return nil, err
	}
	found, err := a.findWitness(ctx, id, string(w.ID))
	if err != nil {
		return nil, err
	}
	shown, err := a.showWitness(ctx, found)
	return &answer[*LogWitness]{shown}, err
}

// foreign refuses the key that signs the log: it would witness itself.
func (a *api) foreign(ctx context.Context, log broker.ID, key *translog.WitnessKey) error {
	own, _, err := a.logKeysOf(ctx, log)
	if broker.CodeOf(err) == broker.NotFound {
		return nil // the BPO's own log has no event yet
	}
	if err != nil {
		return err
	}
	for _, k := range own {
		public, err := translog.PublicKey(k)
		if err != nil {
			return broker.Errorf(broker.Internal, "internal error").WithCause(err)
		}
		if key.Is(public) {
			return broker.InvalidField("key", "this is the key that signs the log: a witness has one of its own")
		}
	}
	return nil
}

// logKeysOf returns the keys of a log as it stands.
func (a *api) logKeysOf(ctx context.Context, log broker.ID) ([]string, *broker.LogHead, error) {
	h, err := a.Logs.LogHead(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	keys, err := a.LogKeyring.Keys(ctx, translog.Origin{FirmID: h.FirmID, Epoch: h.Epoch})
	return keys, h, err
}

func (a *api) findWitness(ctx context.Context, log broker.ID, ref string) (*broker.WitnessStanding, error) {
	all, err := a.Witnesses.Witnesses(ctx, log)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		if string(w.ID) == ref || w.Name == ref {
			return w, nil
		}
	}
	return nil, broker.Errorf(broker.NotFound, "the log has no witness %q", ref)
}

func (a *api) removeWitness(ctx context.Context, in *witnessPath) (*answer[*LogWitness], error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	w, err := a.findWitness(ctx, id, in.Witness)
	if err != nil {
		return nil, err
	}
	shown, err := a.showWitness(ctx, w)
	if err != nil {
		return nil, err
	}
	return &answer[*LogWitness]{shown}, a.Witnesses.RemoveWitness(ctx, actor(ctx), w.ID)
}

// submitCosignature takes the cosignature of whichever registered witness made
// it: it is the signature that counts, and not who brings it.
func (a *api) submitCosignature(ctx context.Context, in *struct{ Body CosignatureInput }) (*answer[CosignatureKept], error) {
	id, err := a.logOf(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	signed := []byte(in.Body.Checkpoint)
	own, head, err := a.logKeysOf(ctx, id)
	if err != nil {
		return nil, err
	}
	keys, err := translog.ParseKeys(strings.Join(own, "\n"))
	if err != nil {
		return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
	}
	c, err := keys.Open(signed)
	var unknown *translog.UnknownKeyError
	if errors.As(err, &unknown) {
		return nil, broker.Errorf(broker.Conflict, "the checkpoint is not of the log's epoch, or not signed by its key")
	}
	if err != nil {
		return nil, broker.InvalidField("checkpoint", "%v", err)
	}
	all, err := a.Witnesses.Witnesses(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		key, err := translog.ParseWitnessKey(w.Key)
		if err != nil {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
		}
		at, err := key.Cosignature(signed)
		if err != nil {
			continue
		}
		note, err := keys.Only(signed, key)
		if err != nil {
			return nil, broker.InvalidField("checkpoint", "%v", err)
		}
		err = a.Witnesses.KeepCosignature(ctx, w.ID, &broker.Cosigned{Epoch: head.Epoch, Size: c.Size, Root: c.Root, Note: string(note), At: at})
		return &answer[CosignatureKept]{CosignatureKept{w.Name, c.Size}}, err
	}
	return nil, broker.Errorf(broker.NotFound, "no witness of the log has cosigned it: is the key registered ('postern log witness-key add')?")
}

func (a *api) confirmRestore(ctx context.Context, in *struct{ Body RestoreInput }) (*answer[RestoreConfirmed], error) {
	id, err := a.logOf(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	epoch, err := a.Witnesses.ConfirmRestore(ctx, actor(ctx), id)
	if err != nil {
		return nil, err
	}
	return &answer[RestoreConfirmed]{RestoreConfirmed{translog.Origin{FirmID: id, Epoch: epoch}.String()}}, nil
}

// cosigned returns the checkpoint that is asked for, with what witnesses have
// cosigned of it.
func (a *api) cosigned(ctx context.Context, h *broker.LogHead, in *checkpointQuery) ([]byte, error) {
	all, err := a.Witnesses.Witnesses(ctx, h.FirmID)
	if err != nil {
		return nil, err
	}
	var notes [][]byte
	var largest *broker.WitnessStanding
	for _, w := range all {
		if w.Size == 0 || w.Epoch != h.Epoch {
			continue
		}
		notes = append(notes, []byte(w.Note))
		if (in.Witness == "" || in.Witness == w.Name) && (largest == nil || w.Size > largest.Size) {
			largest = w
		}
	}
	newest := !in.Witnessed && in.Witness == ""
	var note []byte
	switch {
	case newest && h.Checkpoint == nil:
		return nil, broker.Errorf(broker.NotFound, "no checkpoint of the log was signed yet")
	case newest:
		note = []byte(h.Checkpoint.Note)
	case largest == nil:
		return nil, broker.Errorf(broker.NotFound, "no checkpoint of the log was cosigned by such a witness yet")
	default:
		note = []byte(largest.Note)
	}
	if note, err = translog.Merge(note, notes...); err != nil {
		return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
	}
	return note, nil
}
