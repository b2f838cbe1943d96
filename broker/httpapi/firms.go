// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// FirmInput makes a firm.
type FirmInput struct {
	Name    string `json:"name" minLength:"1" doc:"The firm's name: unique." example:"Acme Pumps"`
	Contact string `json:"contact,omitempty" doc:"Whom a refused agent is told to ask." example:"it@acme.example"`
}

type firmPath struct {
	Firm string `path:"firm" doc:"Id or name."`
}

func (a *api) registerFirms() {
	route(a, http.MethodGet, "/v1/firms", "list-firms", "List firms",
		func(ctx context.Context, _ *none) (*answer[List[*broker.Firm]], error) {
			firms, err := a.State.Firms(ctx)
			if err != nil {
				return nil, err
			}
			return listOf(firms), nil
		})
	route(a, http.MethodPost, "/v1/firms", "create-firm", "Create a firm",
		func(ctx context.Context, in *struct{ Body FirmInput }) (*answer[*broker.Firm], error) {
			f := &broker.Firm{Name: in.Body.Name, Contact: in.Body.Contact}
			if err := a.State.CreateFirm(ctx, actor(ctx), f); err != nil {
				return nil, err
			}
			return &answer[*broker.Firm]{f}, nil
		})
	route(a, http.MethodGet, "/v1/firms/{firm}", "get-firm", "Show a firm",
		func(ctx context.Context, in *firmPath) (*answer[*broker.Firm], error) {
			f, err := a.findFirm(ctx, "", in.Firm)
			if err != nil {
				return nil, err
			}
			return &answer[*broker.Firm]{f}, nil
		})
}
