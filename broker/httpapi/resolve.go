// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"strings"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// find returns the thing that ref names: its id, or else its name. field is
// the member of the body that holds ref; empty: ref stands in the path.
func find[T any](ctx context.Context, kind, field, ref string, byID func(context.Context, broker.ID) (T, error), byName func(context.Context, string) (T, error)) (T, error) {
	if id, err := broker.ParseID(ref); err == nil {
		thing, err := byID(ctx, id)
		if err == nil || broker.CodeOf(err) != broker.NotFound {
			return thing, err
		}
	}
	thing, err := byName(ctx, ref)
	if broker.CodeOf(err) == broker.NotFound {
		e := broker.Errorf(broker.NotFound, "there is no %s %q", kind, ref)
		e.Field = field
		return thing, e
	}
	return thing, err
}

// named makes a look-up by name from a list, for kinds whose names are unique
// (in any case) but not indexed.
func named[T any](list func(context.Context) ([]T, error), name func(T) string) func(context.Context, string) (T, error) {
	return func(ctx context.Context, want string) (T, error) {
		var none T
		all, err := list(ctx)
		if err != nil {
			return none, err
		}
		for _, thing := range all {
			if strings.EqualFold(name(thing), want) {
				return thing, nil
			}
		}
		return none, broker.Errorf(broker.NotFound, "there is none of that name")
	}
}

func (a *api) findFirm(ctx context.Context, field, ref string) (*broker.Firm, error) {
	return find(ctx, "firm", field, ref, a.reads(ctx).Firm,
		named(a.reads(ctx).Firms, func(f *broker.Firm) string { return f.Name }))
}

func (a *api) findMailbox(ctx context.Context, field, ref string) (*broker.Mailbox, error) {
	return find(ctx, "mailbox", field, ref, a.reads(ctx).Mailbox, a.reads(ctx).MailboxByAddress)
}

func (a *api) findAgent(ctx context.Context, field, ref string) (*broker.Agent, error) {
	return find(ctx, "agent", field, ref, a.reads(ctx).Agent, a.reads(ctx).AgentByName)
}

func (a *api) findWorkstation(ctx context.Context, field, ref string) (*broker.Workstation, error) {
	return find(ctx, "workstation", field, ref, a.reads(ctx).Workstation,
		named(a.reads(ctx).Workstations, func(w *broker.Workstation) string { return w.Name }))
}

func (a *api) findSite(ctx context.Context, field, ref string) (*broker.Site, error) {
	return find(ctx, "site", field, ref, a.reads(ctx).Site,
		named(a.reads(ctx).Sites, func(s *broker.Site) string { return s.Name }))
}

// pathID reads an id of the kinds that have no names.
func pathID(kind, ref string) (broker.ID, error) {
	id, err := broker.ParseID(ref)
	if err != nil {
		return "", broker.Errorf(broker.NotFound, "there is no %s %q (it is named by its id)", kind, ref)
	}
	return id, nil
}

// directory tells names of ids, for answers that people read. What is gone
// has no name.
type directory struct {
	firms, mailboxes, agents, workstations, sites map[broker.ID]string
	// recovery are the mailboxes' senders of recovery mail.
	recovery map[broker.ID][]string
}

// sitesOf names the sites of terms; one that is gone by its id.
func (d *directory) sitesOf(t *policy.Terms) []string {
	names := make([]string, len(t.Sites))
	for i, id := range t.Sites {
		if names[i] = d.sites[broker.ID(id)]; names[i] == "" {
			names[i] = id
		}
	}
	return names
}

func (a *api) directory(ctx context.Context) (*directory, error) {
	d := &directory{recovery: make(map[broker.ID][]string)}
	var err error
	load(ctx, &err, &d.firms, a.reads(ctx).Firms, func(f *broker.Firm) (broker.ID, string) { return f.ID, f.Name })
	load(ctx, &err, &d.mailboxes, a.reads(ctx).Mailboxes, func(m *broker.Mailbox) (broker.ID, string) {
		if senders := m.AllRecoverySenders(); len(senders) > 0 {
			d.recovery[m.ID] = senders
		}
		return m.ID, m.Address
	})
	load(ctx, &err, &d.agents, a.reads(ctx).Agents, func(g *broker.Agent) (broker.ID, string) { return g.ID, g.Name })
	load(ctx, &err, &d.workstations, a.reads(ctx).Workstations, func(w *broker.Workstation) (broker.ID, string) { return w.ID, w.Name })
	load(ctx, &err, &d.sites, a.reads(ctx).Sites, func(s *broker.Site) (broker.ID, string) { return s.ID, s.Name })
	return d, err
}

// load fills one map of a directory, unless an error came before.
func load[T any](ctx context.Context, err *error, into *map[broker.ID]string, list func(context.Context) ([]T, error), name func(T) (broker.ID, string)) {
	if *err != nil {
		return
	}
	all, failed := list(ctx)
	if failed != nil {
		*err = failed
		return
	}
	*into = make(map[broker.ID]string, len(all))
	for _, thing := range all {
		id, n := name(thing)
		(*into)[id] = n
	}
}
