// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
)

// ClaimLifetime is how long a firm has to redeem its claim; then the BPO makes
// another.
const ClaimLifetime = 7 * 24 * time.Hour

// ClaimCreated is a new claim and, this once, the claim itself.
type ClaimCreated struct {
	Claim     string    `json:"claim" doc:"For whoever is to be the firm's first admin, to redeem once. It is shown this once, and not kept."`
	ExpiresAt time.Time `json:"expires_at"`
}

// FirmCreated is a new firm and its claim.
type FirmCreated struct {
	broker.Firm
	Claim ClaimCreated `json:"claim"`
}

// ClaimRedemption makes its sender the firm's first admin.
type ClaimRedemption struct {
	Claim string     `json:"claim" minLength:"1" writeOnly:"true"`
	Name  string     `json:"name" minLength:"1" doc:"The first admin's name." example:"priya"`
	Token TokenTerms `json:"token,omitempty" doc:"The first token is not narrowed, and lasts 366 days unless it says less."`
}

// ClaimRedeemed is a firm that is now its own people's.
type ClaimRedeemed struct {
	Firm   broker.Firm      `json:"firm"`
	Person broker.Person    `json:"person"`
	Token  *APITokenCreated `json:"token"`
	// What the BPO gave in the firm's name before stands until it is revoked.
	Mailboxes   []*Mailbox    `json:"mailboxes" nullable:"false" doc:"Mailboxes that the BPO added for the firm before. Look at their endpoints before you set a credential."`
	Delegations []*Delegation `json:"delegations" nullable:"false" doc:"Delegations that the BPO made in the firm's name before, and that stand until they are revoked."`
}

func (a *api) registerClaims() {
	route(a, http.MethodPost, "/v1/firms/{firm}/claim", "create-claim",
		"Make a firm's claim anew, in place of one that was not redeemed; never once it was",
		func(ctx context.Context, in *firmPath) (*answer[ClaimCreated], error) {
			f, err := a.findFirm(ctx, "", in.Firm)
			if err != nil {
				return nil, err
			}
			claim, err := a.createClaim(ctx, f)
			return &answer[ClaimCreated]{claim}, err
		})
	route(a, http.MethodPost, "/v1/claims/redeem", "redeem-claim",
		"Redeem a firm's claim, once: its sender becomes the firm's first admin, and from then on the firm's own people alone act for it",
		a.redeemClaim)
}

func (a *api) createClaim(ctx context.Context, f *broker.Firm) (ClaimCreated, error) {
	shown, hash := a.Claims.New()
	c := &broker.Claim{FirmID: f.ID, Hash: hash, ExpiresAt: a.Now().Add(ClaimLifetime)}
	err := a.People.CreateClaim(ctx, actor(ctx), c)
	return ClaimCreated{Claim: shown, ExpiresAt: c.ExpiresAt}, err
}

func (a *api) redeemClaim(ctx context.Context, in *struct{ Body ClaimRedemption }) (*answer[ClaimRedeemed], error) {
	unknown := broker.Errorf(broker.Denied, "the claim is not good: it is unknown, expired, or was redeemed already; ask whoever gave it to you")
	hash, ok := a.Claims.Hash(in.Body.Claim)
	if !ok {
		return nil, a.failed(ctx, unknown)
	}
	terms := in.Body.Token
	if terms.ExpiresAt == nil {
		end := a.Now().Add(MaxTokenLifetime)
		terms.ExpiresAt = &end
	}
	// Nobody's token narrows this one.
	t, err := a.newAPIToken(WithPrincipal(ctx, stranger()), "token.", &terms)
	if err != nil {
		return nil, err
	}
	p := &broker.Person{Name: in.Body.Name}
	f, err := a.People.RedeemClaim(ctx, hash, p, &t.stored)
	if broker.CodeOf(err) == broker.NotFound {
		return nil, a.failed(ctx, unknown)
	}
	if err != nil {
		return nil, err
	}
	redeemed := ClaimRedeemed{
		Firm: *f, Person: *p,
		Token:     &APITokenCreated{APIToken: APIToken{APIToken: t.stored, Person: p.Name, State: GrantActive}, Token: t.shown},
		Mailboxes: []*Mailbox{}, Delegations: []*Delegation{},
	}
	own := WithPrincipal(ctx, &Principal{Role: broker.RoleFirmAdmin, FirmID: f.ID})
	mailboxes, err := a.listMailboxes(own, &mailboxesQuery{})
	if err != nil {
		return nil, err
	}
	delegations, err := a.listDelegations(own, &grantsQuery{})
	if err != nil {
		return nil, err
	}
	redeemed.Mailboxes, redeemed.Delegations = mailboxes.Body.Items, delegations.Body.Items
	return &answer[ClaimRedeemed]{redeemed}, nil
}

// failed counts what was shown in vain.
func (a *api) failed(ctx context.Context, err error) error {
	if wait := a.failures.take(originOf(ctx).address, a.Now()); wait > 0 {
		return tooMany(wait)
	}
	return err
}
