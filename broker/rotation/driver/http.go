// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// HTTP changes passwords by requests to a provider's API, which its settings
// describe: deployments/providers has those of common panels.
type HTTP struct{ config Config }

var (
	_ broker.Driver    = (*HTTP)(nil)
	_ broker.Kicker    = (*HTTP)(nil)
	_ broker.Inspector = (*HTTP)(nil)
)

// Limits of settings.
const (
	maxSteps    = 8
	maxAnswers  = 32
	maxPattern  = 500
	maxListed   = 100
	maxListName = 200
)

// httpProvider is the settings of a provider.
type httpProvider struct {
	// URL is https://host, with a port and the beginning of paths if need be.
	URL string `json:"url"`
	CA  string `json:"ca,omitempty"`
	// Steps are requests, one after another. The last changes the password; those
	// before it only look things up.
	Steps []httpStep `json:"steps"`
	// Kick are the steps that end the mailbox's sessions at the provider.
	Kick []httpStep `json:"kick,omitempty"`
	// Inspect are requests by what they list: forwarding_rules, app_passwords or
	// delegates.
	Inspect map[string]httpList `json:"inspect,omitempty"`
}

// httpStep is a request, and what its answers mean. All strings are templates,
// in which names of the mailbox, {old}, {new}, {account.username},
// {account.secret}, {mailbox.NAME} of the mailbox's settings and what steps
// before have captured stand, escaped for their place.
type httpStep struct {
	Method string `json:"method"`
	// Path may hold no secret, since paths are logged; nor may Query.
	Path    string            `json:"path"`
	Query   map[string]string `json:"query,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Basic sends the account in HTTP's Basic scheme (RFC 7617).
	Basic bool `json:"basic,omitempty"`
	// JSON and Form are bodies; at most one is there.
	JSON json.RawMessage   `json:"json,omitempty"`
	Form map[string]string `json:"form,omitempty"`
	// Answers are tried in their order, and the first that fits counts. None:
	// the outcome is unknown.
	Answers []httpAnswer `json:"answers"`
	// Capture names values of the answer, by JSON pointer (RFC 6901), for the
	// steps behind. One that is not there is an answer that does not fit.
	Capture map[string]string `json:"capture,omitempty"`
}

// httpAnswer is a kind of answer.
type httpAnswer struct {
	// Status is the answer's, one of; none: any.
	Status []int           `json:"status,omitempty"`
	When   []httpCondition `json:"when,omitempty"`
	// Means is done, unknown, or one of the reasons of a DriverError.
	Means string `json:"means"`
	// Words points to the provider's.
	Words string `json:"words,omitempty"`
}

// httpCondition is about one value of an answer that is JSON. Without Is,
// Matches and Missing it has to be there.
type httpCondition struct {
	// At is a JSON pointer, and a template.
	At string `json:"at"`
	// Is are templates, one of which it is; a list's parts have spaces between.
	Is []string `json:"is,omitempty"`
	// Matches is an expression of RE2.
	Matches string `json:"matches,omitempty"`
	Missing bool   `json:"missing,omitempty"`
}

// httpList is a request for a list.
type httpList struct {
	httpStep
	// Items points to the list, Name within each of its items.
	Items string `json:"items"`
	Name  string `json:"name,omitempty"`
}

const (
	meansDone    = "done"
	meansUnknown = "unknown"
)

func meanings() []string {
	return []string{
		meansDone, meansUnknown, string(broker.DriverAccountRefused), string(broker.DriverPasswordPolicy),
		string(broker.DriverUnavailable), string(broker.DriverMisconfigured), string(broker.DriverUnknownMailbox),
	}
}

// Check reports what is wrong with settings.
func (d *HTTP) Check(provider, mailbox json.RawMessage) error {
	_, _, err := d.settings(provider, mailbox)
	return err
}

func (d *HTTP) settings(provider, mailbox json.RawMessage) (*httpProvider, map[string]string, error) {
	p, own := &httpProvider{}, map[string]string{}
	if err := decode(fieldProvider, provider, p); err != nil {
		return nil, nil, err
	}
	if err := decode(fieldMailbox, mailbox, &own); err != nil {
		return nil, nil, err
	}
	if _, err := d.config.tlsConfig("", p.CA); err != nil {
		return nil, nil, err
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, nil, broker.InvalidField("provider.url", "use https://HOST, with a port and the beginning of paths if need be")
	}
	p.URL = strings.TrimSuffix(p.URL, "/")
	if len(p.Steps) == 0 {
		return nil, nil, broker.InvalidField("provider.steps", "there are none")
	}
	for field, steps := range map[string][]httpStep{"steps": p.Steps, "kick": p.Kick} {
		if err := checkSteps("provider."+field, steps); err != nil {
			return nil, nil, err
		}
	}
	for what, list := range p.Inspect {
		field := "provider.inspect." + what
		if !slices.Contains(inspections(), what) {
			return nil, nil, broker.InvalidField(field, "use one of %s", strings.Join(inspections(), ", "))
		}
		if err := list.check(nil); err != nil {
			return nil, nil, broker.InvalidField(field, "%v", err)
		}
	}
	return p, own, nil
}

func checkSteps(field string, steps []httpStep) error {
	if len(steps) > maxSteps {
		return broker.InvalidField(field, "there are more than %d", maxSteps)
	}
	captured := map[string]bool{}
	for i := range steps {
		if err := steps[i].check(captured); err != nil {
			return broker.InvalidField(fmt.Sprintf("%s[%d]", field, i), "%v", err)
		}
		for name := range steps[i].Capture {
			captured[name] = true
		}
	}
	return nil
}

// nameOfCapture is what captured values are called.
var nameOfCapture = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// check reports what is wrong with a step; captured are the names before it.
func (s *httpStep) check(captured map[string]bool) error {
	if !slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch}, s.Method) {
		return errors.New("the method must be GET, POST, PUT or PATCH")
	}
	if !strings.HasPrefix(s.Path, "/") || strings.ContainsAny(s.Path, "?#\\") {
		return errors.New("the path must begin with a slash, and hold no query")
	}
	if len(s.JSON) > 0 && len(s.Form) > 0 {
		return errors.New("there are two bodies")
	}
	known := func(secret bool) func(string) (string, error) {
		return func(name string) (string, error) {
			switch {
			case isMailboxName(name), captured[name], name == "account.username", strings.HasPrefix(name, "mailbox."):
				return "x", nil
			case name == "old" || name == "new" || name == "account.secret":
				if !secret {
					return "", fmt.Errorf("{%s} must not stand in a path, a query or a pointer: they are logged", name)
				}
				return "x", nil
			}
			return "", fmt.Errorf("{%s} is not known", name)
		}
	}
	if _, err := renderBody(s, known(true)); err != nil {
		return err
	}
	templates := append([]string{s.Path}, slices.Collect(maps.Values(s.Query))...)
	templates = append(templates, slices.Collect(maps.Values(s.Capture))...)
	for name := range s.Capture {
		if !nameOfCapture.MatchString(name) || isMailboxName(name) || name == "old" || name == "new" {
			return fmt.Errorf("nothing can be captured as %q", name)
		}
	}
	if len(s.Answers) == 0 || len(s.Answers) > maxAnswers {
		return fmt.Errorf("say what the answers mean, %d kinds at most", maxAnswers)
	}
	for _, answer := range s.Answers {
		if !slices.Contains(meanings(), answer.Means) {
			return fmt.Errorf("an answer cannot mean %q: use one of %s", answer.Means, strings.Join(meanings(), ", "))
		}
		templates = append(templates, answer.Words)
		for _, c := range answer.When {
			if len(c.Matches) > maxPattern {
				return errors.New("an expression is too long")
			}
			if _, err := regexp.Compile(c.Matches); err != nil {
				return err
			}
			templates = append(append(templates, c.At), c.Is...)
		}
	}
	for _, t := range templates {
		if _, err := expand(t, known(false)); err != nil {
			return err
		}
	}
	for _, value := range s.Headers {
		if _, err := expand(value, known(true)); err != nil {
			return err
		}
	}
	return nil
}

// Set changes the password.
func (d *HTTP) Set(ctx context.Context, c *broker.PasswordChange) error {
	a, err := newAttempt(c)
	defer a.done()
	if err != nil {
		return err
	}
	return d.run(ctx, a, func(p *httpProvider) []httpStep { return p.Steps })
}

// Kick ends the mailbox's sessions, if the settings say how.
func (d *HTTP) Kick(ctx context.Context, c *broker.PasswordChange) error {
	a, err := newAttempt(untold(c))
	defer a.done()
	if err != nil {
		return err
	}
	return d.run(ctx, a, func(p *httpProvider) []httpStep { return p.Kick })
}

// untold is the change without the new password.
func untold(c *broker.PasswordChange) *broker.PasswordChange {
	asked := *c
	asked.New = broker.NewSecret([]byte("-"))
	return &asked
}

func (d *HTTP) run(ctx context.Context, a *attempt, which func(*httpProvider) []httpStep) error {
	p, own, err := d.settings(a.Provider, a.Settings)
	if err != nil {
		return a.misconfigured(err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	s, err := d.session(a, p, own)
	if err != nil {
		return err
	}
	defer s.client.CloseIdleConnections()
	steps := which(p)
	if len(steps) == 0 {
		return a.misconfigured(errors.New("the settings do not say how"))
	}
	for i := range steps {
		if _, err := s.step(ctx, &steps[i], i == len(steps)-1); err != nil {
			return err
		}
	}
	return nil
}

func inspections() []string { return []string{"app_passwords", "delegates", "forwarding_rules"} }

// Inspect lists what else leads into the mailbox, as far as the settings say.
func (d *HTTP) Inspect(ctx context.Context, c *broker.PasswordChange) (*broker.Inspection, error) {
	a, err := newAttempt(untold(c))
	defer a.done()
	if err != nil {
		return nil, err
	}
	p, own, err := d.settings(a.Provider, a.Settings)
	if err != nil {
		return nil, a.misconfigured(err)
	}
	if len(p.Inspect) == 0 {
		return nil, a.misconfigured(errors.New("the settings do not say how"))
	}
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	s, err := d.session(a, p, own)
	if err != nil {
		return nil, err
	}
	defer s.client.CloseIdleConnections()
	found := &broker.Inspection{}
	for what, into := range map[string]*[]string{
		"app_passwords": &found.AppPasswords, "delegates": &found.Delegates, "forwarding_rules": &found.ForwardingRules,
	} {
		if list, ok := p.Inspect[what]; ok {
			if *into, err = s.list(ctx, &list); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}
