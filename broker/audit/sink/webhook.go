// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// DefaultWebhookTimeout bounds one request.
	DefaultWebhookTimeout = 10 * time.Second
	// MaxWebhookTimeout is within what one delivery may take.
	MaxWebhookTimeout = deliverTimeout
	// structuredTime is after how long requests of one event each are a delivery.
	structuredTime = 5 * time.Second
	// minWebhookSecret is in octets.
	minWebhookSecret = 24
	// secretPrefix begins a secret in a file (standardwebhooks.com).
	secretPrefix = "whsec_"
	// maxAnswer is how much is read of an answer, in octets.
	maxAnswer = 4 << 10
)

// WebhookConfig is a web service that takes CloudEvents 1.0.
type WebhookConfig struct {
	// URL is https, or http to a loopback address.
	URL string
	// Batched has a request hold many events (CloudEvents' JSON batch format); else
	// it holds one.
	Batched bool
	// Secret reads the secrets that requests are signed with, one a line: several
	// while one takes another's place. It is asked for each delivery.
	Secret func() (broker.Secret, error)
	// Source is where events come from, without the log's name: "//HOST/logs/".
	Source string
	// TLS is for the connection; nil: the system's CAs.
	TLS     *tls.Config
	Timeout time.Duration
	Format  Format
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Webhook posts events as CloudEvents, signed as standardwebhooks.com has it:
//
//	webhook-id: what the same events have each time that they are sent together
//	webhook-timestamp: seconds since 1970
//	webhook-signature: v1,BASE64 for each secret, with spaces between
//
// where BASE64 is of the HMAC-SHA-256, under the secret's octets, of
// "webhook-id.webhook-timestamp.BODY". A receiver compares in constant time, and
// refuses a timestamp that is minutes off.
//
// An answer of 2xx takes the events. 400, 413, 415 and 422 refuse them, as they
// are, and so may a filter before the service by 403 and 406: a stranger's
// Message-ID can look like an attack. Everything else, redirects included, which are
// not followed, is an outage.
type Webhook struct {
	cfg    WebhookConfig
	client *http.Client
}

var _ Receiver = (*Webhook)(nil)

// NewWebhook makes a web service's receiver.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.User != nil || cfg.Secret == nil || cfg.Format == nil {
		return nil, errors.New("sink: a webhook's URL, a secret and a format are needed")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultWebhookTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport := &http.Transport{
		// Nothing of the environment says where events go.
		Proxy: nil, TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout, MaxResponseHeaderBytes: 64 << 10,
	}
	return &Webhook{cfg, &http.Client{
		Transport: transport, Timeout: cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// cloudEvent is an event in CloudEvents' JSON format. Its data is the record, or
// what the format makes of it.
type cloudEvent struct {
	SpecVersion     string    `json:"specversion"`
	ID              broker.ID `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	// Extensions: whose log it stands in, where, and how grave it is.
	Firm     broker.ID       `json:"firm,omitempty"`
	Seq      string          `json:"sequence"`
	Severity broker.Severity `json:"severity"`
	Data     json.RawMessage `json:"data"`
}

// cloudEventTypes begins the types of events.
const cloudEventTypes = "postern."

func (w *Webhook) event(e *Event) (*cloudEvent, error) {
	data, err := w.cfg.Format(e)
	if err != nil {
		return nil, err
	}
	log := string(e.FirmID)
	if log == "" {
		log = "bpo"
	}
	return &cloudEvent{
		SpecVersion: "1.0", ID: e.ID, Source: w.cfg.Source + log, Type: cloudEventTypes + string(e.Type), Time: e.Time.UTC(),
		DataContentType: "application/json", Firm: e.FirmID, Seq: strconv.FormatInt(e.Seq, 10), Severity: e.Severity, Data: data,
	}, nil
}

// Deliver is described at Receiver.
func (w *Webhook) Deliver(ctx context.Context, events []*Event) (int, error) {
	secrets, err := w.secrets()
	if err != nil {
		return 0, err
	}
	defer func() {
		for _, s := range secrets {
			clear(s)
		}
	}()
	if w.cfg.Batched {
		if err := w.batch(ctx, events, secrets); err != nil {
			return 0, err
		}
		return len(events), nil
	}
	began := w.cfg.Now()
	for i, e := range events {
		if i > 0 && w.cfg.Now().Sub(began) > structuredTime {
			return i, nil // the others are the next delivery
		}
		x, err := w.event(e)
		if err != nil {
			return i, &RefusedError{Events: 1, cause: err}
		}
		body, err := encode(x)
		if err != nil {
			return i, &RefusedError{Events: 1, cause: err}
		}
		if err := w.post(ctx, "application/cloudevents+json; charset=utf-8", string(e.ID), body, secrets, 1); err != nil {
			return i, err
		}
	}
	return len(events), nil
}

func (w *Webhook) batch(ctx context.Context, events []*Event, secrets [][]byte) error {
	all := make([]*cloudEvent, len(events))
	for i, e := range events {
		var err error
		if all[i], err = w.event(e); err != nil {
			return &RefusedError{Events: len(events), cause: err}
		}
	}
	body, err := encode(all)
	if err != nil {
		return &RefusedError{Events: len(events), cause: err}
	}
	return w.post(ctx, "application/cloudevents-batch+json; charset=utf-8", batchID(events), body, secrets, len(events))
}

// encode leaves the records' octets as they are.
func encode(x any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(x)
	return b.Bytes(), err
}

func (w *Webhook) post(ctx context.Context, contentType, id string, body []byte, secrets [][]byte, events int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	stamp := strconv.FormatInt(w.cfg.Now().Unix(), 10)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "Postern")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", stamp)
	req.Header.Set("Webhook-Signature", signature(secrets, id, stamp, body))
	resp, err := w.client.Do(req)
	if err != nil {
		return outage(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status is what counts
	err = fmt.Errorf("it answers %s: %s", resp.Status, answer)
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case slices.Contains(refusals(), resp.StatusCode):
		return &RefusedError{Events: events, cause: err}
	case resp.StatusCode/100 == 3:
		return fmt.Errorf("it answers %s, and redirects are not followed: give the URL that it leads to", resp.Status)
	}
	return err
}

// refusals are the statuses by which a service refuses events.
func refusals() []int {
	return []int{
		http.StatusBadRequest, http.StatusForbidden, http.StatusNotAcceptable, http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
	}
}

// outage takes the URL, which may hold what is known to the receiver alone, out of
// an error.
func outage(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// signature is the header of that name.
func signature(secrets [][]byte, id, stamp string, body []byte) string {
	var all []string
	for _, s := range secrets {
		mac := hmac.New(sha256.New, s)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(all, " ")
}

// secrets reads what requests are signed with.
func (w *Webhook) secrets() (all [][]byte, err error) {
	text, err := w.cfg.Secret()
	if err != nil {
		return nil, err
	}
	defer text.Wipe()
	for line := range bytes.Lines(text.Reveal()) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		encoded, ok := bytes.CutPrefix(line, []byte(secretPrefix))
		secret := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
		n, err := base64.StdEncoding.Decode(secret, encoded)
		if !ok || err != nil || n < minWebhookSecret {
			return nil, fmt.Errorf("the secret is not %s and the base64 of %d octets or more: 'openssl rand -base64 32' makes some", secretPrefix, minWebhookSecret)
		}
		all = append(all, secret[:n])
	}
	if len(all) == 0 {
		return nil, errors.New("the file of the secret is empty")
	}
	return all, nil
}

// Check reads the secret, as a delivery will.
func (w *Webhook) Check() error {
	secrets, err := w.secrets()
	for _, s := range secrets {
		clear(s)
	}
	return err
}

// Close is described at Receiver.
func (w *Webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}
