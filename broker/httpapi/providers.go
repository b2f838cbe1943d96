// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// RotationSecrets is what the API stores for rotations. It reads none of it.
type RotationSecrets interface {
	SetPendingCredential(ctx context.Context, firm, mailbox, pending broker.ID, c *broker.Credential) error
	DeletePendingCredential(ctx context.Context, firm, mailbox, pending broker.ID) error
	SetProviderAccount(ctx context.Context, firm, provider broker.ID, a *broker.ProviderAccount) (int, error)
	ProviderAccountVersion(ctx context.Context, firm, provider broker.ID) (int, error)
	DeleteProviderAccount(ctx context.Context, firm, provider broker.ID) error
}

// ProviderInput makes a provider.
type ProviderInput struct {
	Firm     string         `json:"firm,omitempty" doc:"Whose it is: a firm's id or name. A firm's people may leave it out."`
	Name     string         `json:"name" minLength:"1" doc:"Unique within the firm."`
	Driver   string         `json:"driver" minLength:"1" doc:"How passwords are changed there: ldap, sql, http, exec or manual."`
	Settings map[string]any `json:"settings,omitempty" doc:"The driver's; see the operations handbook. No secrets: those are the provider account's."`
}

// ProviderPatch changes what is in it.
type ProviderPatch struct {
	Name     *string         `json:"name,omitempty" minLength:"1"`
	Settings *map[string]any `json:"settings,omitempty"`
	// RemoveAccount agrees to what a change of settings entails.
	RemoveAccount bool `json:"remove_account,omitempty" doc:"Needed to change the settings while a provider account is stored: it was entrusted to the old ones, and is removed so that it never reaches another server."`
}

// Provider is a provider with its firm's name and what is known of its account;
// the latter only when one provider is asked for.
type Provider struct {
	broker.Provider
	Firm    string            `json:"firm,omitempty"`
	Account *CredentialStatus `json:"account,omitempty"`
}

// ProviderAccountSet is the answer when an account was stored.
type ProviderAccountSet struct {
	ProviderID broker.ID `json:"provider_id"`
	Provider   string    `json:"provider"`
	Version    int       `json:"version"`
}

type providerPath struct {
	Provider string `path:"provider" doc:"Id, or name where only one firm has one of that name."`
}

const accountPath = "/v1/providers/{provider}/account"

func (a *api) registerProviders() {
	route(a, http.MethodGet, "/v1/providers", "list-providers", "List providers", a.listProviders)
	route(a, http.MethodPost, "/v1/providers", "create-provider", "Add a provider, where passwords of a firm's mailboxes are changed", a.createProvider)
	route(a, http.MethodGet, "/v1/providers/{provider}", "get-provider", "Show a provider, and whether its account is stored",
		func(ctx context.Context, in *providerPath) (*tagged[*Provider], error) {
			p, err := a.findProvider(ctx, "", in.Provider)
			if err != nil {
				return nil, err
			}
			shown, err := a.showProvider(ctx, p)
			return show(p, shown), err
		})
	route(a, http.MethodPatch, "/v1/providers/{provider}", "update-provider", "Change a provider", a.updateProvider)
	route(a, http.MethodDelete, "/v1/providers/{provider}", "delete-provider", "Remove a provider that no mailbox uses, and its account", a.deleteProvider)
	register(a, huma.Operation{
		Method: http.MethodPut, Path: accountPath, OperationID: "set-provider-account",
		Summary:     "Store what a driver logs in to the provider with",
		Description: "Its kind is password. No route returns it.",
		// huma's validation echoes input; decodeCredential takes its place.
		SkipValidateBody: true,
	}, a.setProviderAccount)
	body := a.huma.OpenAPI().Paths[accountPath].Put.RequestBody
	body.Content["application/json"].Schema = a.huma.OpenAPI().Components.Schemas.
		Schema(reflect.TypeFor[CredentialInput](), true, "CredentialInput")
}

// providers returns those that the caller may see.
func (a *api) providers(ctx context.Context) ([]*broker.Provider, error) {
	return a.Providers.FirmProviders(ctx, principal(ctx).FirmID)
}

func (a *api) findProvider(ctx context.Context, field, ref string) (*broker.Provider, error) {
	all, err := a.providers(ctx)
	if err != nil {
		return nil, err
	}
	var found []*broker.Provider
	for _, p := range all { // to the end, wherever it is
		if string(p.ID) == ref || strings.EqualFold(p.Name, ref) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		e := broker.Errorf(broker.NotFound, "there is no provider %q", ref)
		e.Field = field
		return nil, e
	}
	e := broker.Errorf(broker.Conflict, "several firms have a provider %q: name it by its id", ref)
	e.Field = field
	return nil, e
}

func (a *api) listProviders(ctx context.Context, in *mailboxesQuery) (*answer[List[*Provider]], error) {
	var firm broker.ID
	if in.Firm != "" {
		f, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		firm = f.ID
	}
	all, err := a.providers(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var providers []*Provider
	for _, p := range all {
		if firm == "" || p.FirmID == firm {
			providers = append(providers, &Provider{Provider: *p, Firm: names.firms[p.FirmID]})
		}
	}
	return listOf(providers), nil
}

func (a *api) createProvider(ctx context.Context, in *struct{ Body ProviderInput }) (*answer[*Provider], error) {
	ref := in.Body.Firm
	if ref == "" {
		ref = string(principal(ctx).FirmID)
	}
	if ref == "" {
		return nil, broker.InvalidField("firm", "is missing")
	}
	firm, err := a.findFirm(ctx, "firm", ref)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, firm.ID); err != nil {
		return nil, err
	}
	p := &broker.Provider{FirmID: firm.ID, Name: in.Body.Name, Driver: in.Body.Driver}
	if p.Settings, err = settingsOf(in.Body.Settings); err != nil {
		return nil, err
	}
	if err := a.checkSettings(p, nil); err != nil {
		return nil, err
	}
	if err := a.Providers.CreateProvider(ctx, actor(ctx), p); err != nil {
		return nil, err
	}
	return &answer[*Provider]{&Provider{Provider: *p, Firm: firm.Name}}, nil
}

func settingsOf(m map[string]any) (json.RawMessage, error) {
	if len(m) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, broker.InvalidField("settings", "have no JSON form")
	}
	return b, nil
}

// checkSettings asks the driver. Without a mailbox's, what it says of those is
// left for later.
func (a *api) checkSettings(p *broker.Provider, method *broker.RotationMethod) error {
	driver, ok := a.Drivers[p.Driver]
	if !ok {
		return broker.InvalidField("driver", "there is no driver %q here", p.Driver)
	}
	var mailbox json.RawMessage
	if method != nil {
		mailbox = method.Settings
	}
	err := driver.Check(p.Settings, mailbox)
	var e *broker.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	named := *e
	if rest, ok := strings.CutPrefix(e.Field, "mailbox"); ok {
		if method == nil {
			return nil
		}
		named.Field = "settings" + rest
	} else if rest, ok := strings.CutPrefix(e.Field, "provider"); ok {
		named.Field = "settings" + rest
		if method != nil {
			named.Field = "provider" + rest
		}
	}
	return &named
}

func (a *api) updateProvider(ctx context.Context, in *struct {
	Provider string `path:"provider" doc:"Id or name."`
	Body     ProviderPatch
},
) (*tagged[*Provider], error) {
	p, err := a.findProvider(ctx, "", in.Provider)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if p, err = a.findProvider(ctx, "", string(p.ID)); err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, p.FirmID); err != nil {
		return nil, err
	}
	ctx, err = unchanged(ctx, p.ID, p, func() (any, error) { return a.showProvider(ctx, p) })
	if err != nil {
		return nil, err
	}
	after := *p
	if in.Body.Name != nil {
		after.Name = *in.Body.Name
	}
	if in.Body.Settings != nil {
		if after.Settings, err = settingsOf(*in.Body.Settings); err != nil {
			return nil, err
		}
		if err := a.checkSettings(&after, nil); err != nil {
			return nil, err
		}
		if !bytes.Equal(after.Settings, p.Settings) {
			if err := a.releaseAccount(ctx, p, in.Body.RemoveAccount); err != nil {
				return nil, err
			}
		}
	}
	if err := a.Providers.UpdateProvider(ctx, actor(ctx), &after); err != nil {
		return nil, err
	}
	shown, err := a.showProvider(ctx, &after)
	return show(&after, shown), err
}

// releaseAccount removes a provider account before the settings change, as
// releaseCredential does a credential before its endpoints do.
func (a *api) releaseAccount(ctx context.Context, p *broker.Provider, agreed bool) error {
	version, err := a.RotationSecrets.ProviderAccountVersion(ctx, p.FirmID, p.ID)
	if err != nil || version == 0 {
		return err
	}
	if !agreed {
		return broker.Errorf(broker.Conflict, "the stored account was entrusted to the present settings: "+
			"agree to its removal (remove_account), and set it again after the change")
	}
	return a.RotationSecrets.DeleteProviderAccount(ctx, p.FirmID, p.ID)
}

func (a *api) deleteProvider(ctx context.Context, in *providerPath) (*answer[*Provider], error) {
	p, err := a.findProvider(ctx, "", in.Provider)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, p.FirmID); err != nil {
		return nil, err
	}
	if err := a.Providers.DeleteProvider(ctx, actor(ctx), p.ID); err != nil {
		return nil, err
	}
	removed := &Provider{Provider: *p, Account: &CredentialStatus{State: "none"}}
	if err := a.RotationSecrets.DeleteProviderAccount(ctx, p.FirmID, p.ID); err != nil {
		a.Logger.Error("a removed provider's account is still stored: remove it from the storage",
			zap.String("firm_id", string(p.FirmID)), zap.String("provider_id", string(p.ID)), zap.Error(err))
		removed.Account.State = "unavailable"
	}
	return &answer[*Provider]{removed}, nil
}

func (a *api) setProviderAccount(ctx context.Context, in *struct {
	Provider string `path:"provider" doc:"Id or name."`
	RawBody  []byte `contentType:"application/json"`
},
) (*answer[ProviderAccountSet], error) {
	// huma puts the buffer back into a pool.
	defer clear(in.RawBody)
	c, err := decodeCredential(in.RawBody)
	if err != nil {
		return nil, err
	}
	defer c.Secret.Wipe()
	if c.Kind != broker.KindPassword {
		return nil, broker.InvalidField("kind", "a provider account's is password")
	}
	p, err := a.findProvider(ctx, "", in.Provider)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, p.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := a.actsFor(ctx, p.FirmID); err != nil {
		return nil, err
	}
	account := &broker.ProviderAccount{Username: c.Username, Secret: c.Secret}
	if account.Version, err = a.RotationSecrets.ProviderAccountVersion(ctx, p.FirmID, p.ID); err != nil {
		return nil, err
	}
	version, err := a.RotationSecrets.SetProviderAccount(ctx, p.FirmID, p.ID, account)
	if err != nil {
		return nil, err
	}
	if err := a.Providers.ProviderAccountSet(ctx, actor(ctx), p.ID, version); err != nil {
		return nil, broker.Errorf(broker.CodeOf(err), "the account is stored, but the record of it could not be written; set it again").WithCause(err)
	}
	return &answer[ProviderAccountSet]{ProviderAccountSet{ProviderID: p.ID, Provider: p.Name, Version: version}}, nil
}

func (a *api) showProvider(ctx context.Context, p *broker.Provider) (*Provider, error) {
	firm, err := a.reads(ctx).Firm(ctx, p.FirmID)
	if err != nil {
		return nil, err
	}
	shown := &Provider{Provider: *p, Firm: firm.Name, Account: &CredentialStatus{State: "none"}}
	version, err := a.RotationSecrets.ProviderAccountVersion(ctx, p.FirmID, p.ID)
	switch {
	case err != nil:
		a.Logger.Warn("whether a provider account is stored is not known", zap.String("provider", p.Name), zap.Error(err))
		shown.Account.State = "unavailable"
	case version > 0:
		*shown.Account = CredentialStatus{State: "stored", Version: version}
	}
	return shown, nil
}
