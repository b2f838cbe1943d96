// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/postern-mail/postern/broker"
)

// SiteInput makes a site.
type SiteInput struct {
	Name        string   `json:"name" minLength:"1" doc:"Unique." example:"Pune"`
	Networks    []string `json:"networks" nullable:"false" doc:"Networks in CIDR form, or single addresses." example:"[\"192.0.2.0/24\"]"`
	NetworkOnly bool     `json:"network_only,omitempty" doc:"Let machines without a certificate in from these networks."`
}

// SitePatch changes what is in it.
type SitePatch struct {
	Name        *string   `json:"name,omitempty" minLength:"1"`
	Networks    *[]string `json:"networks,omitempty" nullable:"false"`
	NetworkOnly *bool     `json:"network_only,omitempty"`
}

type sitePath struct {
	Site string `path:"site" doc:"Id or name."`
}

func (a *api) registerSites() {
	route(a, http.MethodGet, "/v1/sites", "list-sites", "List sites",
		func(ctx context.Context, _ *none) (*answer[List[*broker.Site]], error) {
			sites, err := a.reads(ctx).Sites(ctx)
			if err != nil {
				return nil, err
			}
			return listOf(sites), nil
		})
	route(a, http.MethodPost, "/v1/sites", "create-site", "Add a site",
		func(ctx context.Context, in *struct{ Body SiteInput }) (*answer[*broker.Site], error) {
			networks, err := parseNetworks(in.Body.Networks)
			if err != nil {
				return nil, err
			}
			s := &broker.Site{Name: in.Body.Name, Networks: networks, NetworkOnly: in.Body.NetworkOnly}
			if err := a.State.CreateSite(ctx, actor(ctx), s); err != nil {
				return nil, err
			}
			return &answer[*broker.Site]{s}, nil
		})
	route(a, http.MethodGet, "/v1/sites/{site}", "get-site", "Show a site",
		func(ctx context.Context, in *sitePath) (*tagged[*broker.Site], error) {
			s, err := a.findSite(ctx, "", in.Site)
			if err != nil {
				return nil, err
			}
			return show(s, s), nil
		})
	route(a, http.MethodPatch, "/v1/sites/{site}", "update-site", "Change a site; sessions that it no longer admits end", a.updateSite)
	route(a, http.MethodDelete, "/v1/sites/{site}", "delete-site", "Remove a site that nothing is bound to",
		func(ctx context.Context, in *sitePath) (*answer[*broker.Site], error) {
			s, err := a.findSite(ctx, "", in.Site)
			if err != nil {
				return nil, err
			}
			if ctx, err = unchanged(ctx, s.ID, s, nil); err != nil {
				return nil, err
			}
			return &answer[*broker.Site]{s}, a.State.DeleteSite(ctx, actor(ctx), s.ID)
		})
}

func (a *api) updateSite(ctx context.Context, in *struct {
	Site string `path:"site" doc:"Id or name."`
	Body SitePatch
},
) (*tagged[*broker.Site], error) {
	s, err := a.findSite(ctx, "", in.Site)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err = a.reads(ctx).Site(ctx, s.ID); err != nil {
		return nil, err
	}
	if ctx, err = unchanged(ctx, s.ID, s, nil); err != nil {
		return nil, err
	}
	if in.Body.Name != nil {
		s.Name = *in.Body.Name
	}
	if in.Body.Networks != nil {
		if s.Networks, err = parseNetworks(*in.Body.Networks); err != nil {
			return nil, err
		}
	}
	if in.Body.NetworkOnly != nil {
		s.NetworkOnly = *in.Body.NetworkOnly
	}
	if err := a.State.UpdateSite(ctx, actor(ctx), s); err != nil {
		return nil, err
	}
	return show(s, s), nil
}

// parseNetworks reads CIDR prefixes and single addresses. Bits beyond the
// prefix are refused: 192.0.2.7/24 is more likely a slip than a network.
func parseNetworks(texts []string) ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(texts))
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil || addr.Zone() != "" {
				return nil, broker.InvalidField(fmt.Sprintf("networks[%d]", i), "%q is not a network such as 192.0.2.0/24 or 2001:db8::/32", text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		if p != p.Masked() {
			return nil, broker.InvalidField(fmt.Sprintf("networks[%d]", i), "%q has bits beyond its prefix: did you mean %s?", text, p.Masked())
		}
		networks = append(networks, p)
	}
	return networks, nil
}
