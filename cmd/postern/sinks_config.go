// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/sink"
)

// SinkConfig is where events go: exactly one of file, syslog, webhook and mail.
type SinkConfig struct {
	Name string `yaml:"name"`
	// Firm is a firm's id, or ownLog; empty: all logs.
	Firm     string   `yaml:"firm"`
	Events   []string `yaml:"events"`
	Alerts   bool     `yaml:"alerts"`
	Severity string   `yaml:"severity"`
	Start    string   `yaml:"start"`
	Format   string   `yaml:"format"`

	File    *FileSinkConfig    `yaml:"file"`
	Webhook *WebhookSinkConfig `yaml:"webhook"`
	Syslog  *SyslogSinkConfig  `yaml:"syslog"`
	Mail    *MailSinkConfig    `yaml:"mail"`
}

// SyslogSinkConfig is sink.Syslog's.
type SyslogSinkConfig struct {
	Address     string `yaml:"address"`
	CAFile      string `yaml:"ca_file"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	Facility    int    `yaml:"facility"`
	MaxMessage  size   `yaml:"max_message"`
}

// MailSinkConfig is sink.Mail's.
type MailSinkConfig struct {
	Server       string   `yaml:"server"`
	TLS          string   `yaml:"tls"`
	CAFile       string   `yaml:"ca_file"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	From         string   `yaml:"from"`
	To           []string `yaml:"to"`
	Interval     duration `yaml:"interval"`
}

// WebhookSinkConfig is sink.Webhook's.
type WebhookSinkConfig struct {
	URL        string   `yaml:"url"`
	SecretFile string   `yaml:"secret_file"`
	Mode       string   `yaml:"mode"`
	CAFile     string   `yaml:"ca_file"`
	Timeout    duration `yaml:"timeout"`
}

// FileSinkConfig is sink.File's.
type FileSinkConfig struct {
	Path   string `yaml:"path"`
	Mode   string `yaml:"mode"`
	Rotate size   `yaml:"rotate"`
	Keep   int    `yaml:"keep"`
}

const (
	// ownLog names the BPO's own log in a sink's firm.
	ownLog = "bpo"
	// startNow and startBeginning are where a new sink begins.
	startNow       = "now"
	startBeginning = "beginning"
	// structured and batched are CloudEvents' modes.
	structured        = "structured"
	batched           = "batched"
	maxMailRecipients = 50
	// maxSinks bounds them: each reads all that is recorded.
	maxSinks = 32
)

func (c *SinkConfig) complete(absolute func(...*string)) {
	setDefault(&c.Start, startNow)
	setDefault(&c.Format, "json")
	if f := c.File; f != nil {
		setDefault(&f.Mode, "0600")
		absolute(&f.Path)
	}
	if w := c.Webhook; w != nil {
		setDefault(&w.Mode, batched)
		setDefault(&w.Timeout, duration(sink.DefaultWebhookTimeout))
		absolute(&w.SecretFile, &w.CAFile)
	}
	if s := c.Syslog; s != nil {
		setDefault(&s.Facility, sink.DefaultSyslogFacility)
		setDefault(&s.MaxMessage, sink.DefaultSyslogOctets)
		absolute(&s.CAFile, &s.Certificate, &s.Key)
	}
	if m := c.Mail; m != nil {
		setDefault(&m.TLS, string(broker.TLSImplicit))
		setDefault(&m.Interval, duration(sink.DefaultMailPace))
		absolute(&m.CAFile, &m.PasswordFile)
	}
}

// sinkName is what sinks may be called: it stands in metrics and paths.
var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (v *validator) sinks(all []SinkConfig) {
	v.check(len(all) <= maxSinks, "sinks", "give at most %d", maxSinks)
	names, files := make(map[string]bool), make(map[string]bool)
	for i := range all {
		c, key := &all[i], fmt.Sprintf("sinks[%d]", i)
		v.check(sinkName.MatchString(c.Name), key+".name", "give a name of small letters, digits, '.', '_' and '-', up to 64: the sink's place in the logs goes by it")
		v.check(!names[c.Name], key+".name", "another sink has this name")
		names[c.Name] = true
		filter, err := c.filter()
		v.check(err == nil, key+".firm", "give a firm's id ('postern firm list'), or %s for the BPO's own log", ownLog)
		field, reason := filter.Validate()
		v.check(reason == "", key+"."+field, "%s", reason)
		v.check(c.Start == startNow || c.Start == startBeginning, key+".start", "give %s or %s", startNow, startBeginning)
		_, known := sinkFormats()[c.Format]
		v.check(known, key+".format", "give json or ocsf")
		given := 0
		for _, is := range []bool{c.File != nil, c.Webhook != nil, c.Syslog != nil, c.Mail != nil} {
			if is {
				given++
			}
		}
		v.check(given == 1, key, "give exactly one of file, syslog, webhook and mail")
		if c.File != nil {
			v.fileSink(key+".file", c.File)
			path := filepath.Clean(c.File.Path)
			v.check(!files[path], key+".file.path", "another sink writes this file: give each its own")
			files[path] = true
		}
		if c.Webhook != nil {
			v.webhookSink(key+".webhook", c.Webhook)
		}
		if c.Syslog != nil {
			v.syslogSink(key+".syslog", c.Syslog)
		}
		if c.Mail != nil {
			v.check(c.Format == "json", key+".format", "mail has none: leave it out")
			v.mailSink(key+".mail", c.Mail)
		}
	}
}

func (v *validator) fileSink(key string, c *FileSinkConfig) {
	v.check(c.Path != "", key+".path", "name the file")
	_, err := c.mode()
	v.check(err == nil, key+".mode", `give a mode that nobody but owner and group read, such as "0600" or "0640"`)
	v.check(c.Rotate == 0 || c.Rotate >= 1<<20, key+".rotate", "give 1MB or more")
	v.check(c.Keep >= 0 && (c.Keep == 0 || c.Rotate > 0), key+".keep", "give how many renamed files stay, with rotate; 0: all")
}

func (v *validator) webhookSink(key string, c *WebhookSinkConfig) {
	u, err := url.Parse(c.URL)
	ok := err == nil && u.Host != "" && u.User == nil && u.Fragment == ""
	v.check(ok && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())), key+".url",
		`give the service's URL, such as "https://siem.bpo.example/postern", without a user name; http reaches loopback addresses alone`)
	v.check(c.SecretFile != "", key+".secret_file", "name the file with the secret that requests are signed with")
	v.check(c.Mode == structured || c.Mode == batched, key+".mode", "give %s or %s", structured, batched)
	v.between(key+".timeout", c.Timeout, 100*time.Millisecond, sink.MaxWebhookTimeout)
}

func (v *validator) syslogSink(key string, c *SyslogSinkConfig) {
	v.check(isHostPort(c.Address), key+".address", `give the log host and its port, such as "loghost.bpo.example:6514"`)
	v.check((c.Certificate == "") == (c.Key == ""), key+".key", "give certificate and key, or neither")
	v.check(c.Facility >= 1 && c.Facility <= 23, key+".facility", "give a facility of RFC 5424, 1 to 23")
	v.check(c.MaxMessage >= sink.MinSyslogOctets && c.MaxMessage <= 1<<20, key+".max_message", "give 2KB to 1024KB, and no more than the log host takes")
}

func (v *validator) mailSink(key string, c *MailSinkConfig) {
	v.check(isHostPort(c.Server), key+".server", `give the submission server and its port, such as "smtp.bpo.example:465"`)
	v.check(c.TLS == string(broker.TLSImplicit) || c.TLS == string(broker.TLSStartTLS), key+".tls", "give implicit or starttls")
	v.check((c.Username == "") == (c.PasswordFile == ""), key+".password_file", "give username and password_file, or neither")
	v.check(isAddress(c.From), key+".from", "give the sender's address")
	v.check(len(c.To) > 0 && len(c.To) <= maxMailRecipients, key+".to", "give 1 to %d addresses", maxMailRecipients)
	for i, to := range c.To {
		v.check(isAddress(to), fmt.Sprintf("%s.to[%d]", key, i), "give an address, such as oncall@bpo.example")
	}
	v.between(key+".interval", c.Interval, 0, 24*time.Hour)
}

// isHostPort reports whether there is a host's name or address, and a port.
func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n > 0 && host != ""
}

// isAddress reports whether s is a mail address and nothing else.
func isAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && !strings.ContainsAny(s, "\r\n\"")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *FileSinkConfig) mode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(c.Mode, 8, 32)
	if err != nil || n&^0o660 != 0 || n&0o600 != 0o600 {
		return 0, errors.New("not a mode")
	}
	return fs.FileMode(n), nil
}

func sinkFormats() map[string]sink.Format {
	return map[string]sink.Format{"json": sink.JSON, "ocsf": sink.OCSF}
}

// filter returns which events a sink is given.
func (c *SinkConfig) filter() (sink.Filter, error) {
	f := sink.Filter{Types: c.Events, Alerts: c.Alerts, Severity: broker.Severity(c.Severity)}
	switch c.Firm {
	case "":
	case ownLog:
		f.Firm = new(broker.ID)
	default:
		firm, err := broker.ParseID(c.Firm)
		if err != nil {
			return f, err
		}
		f.Firm = &firm
	}
	return f, nil
}

// lookup is what mail about alerts is made of; nil to check a configuration.
type lookup interface {
	Alert(ctx context.Context, id broker.ID) (*broker.Alert, error)
	Firm(ctx context.Context, id broker.ID) (*broker.Firm, error)
}

// newSinks makes the sinks' receivers.
func newSinks(c *Config, look lookup) ([]sink.Sink, error) {
	var all []sink.Sink
	for i := range c.Sinks {
		s := &c.Sinks[i]
		x, err := s.open(c.Hostname, look)
		if err != nil {
			return nil, keyError(fmt.Sprintf("sinks[%d]", i), err)
		}
		x.Name, x.FromStart = s.Name, s.Start == startBeginning
		if x.Filter, err = s.filter(); err != nil {
			return nil, err
		}
		// People are told of alerts, and of nothing else.
		x.Filter.Alerts = x.Filter.Alerts || s.Mail != nil
		all = append(all, *x)
	}
	return all, nil
}

// open makes the receiver of the sink's kind.
func (c *SinkConfig) open(hostname string, look lookup) (x *sink.Sink, err error) {
	format := sinkFormats()[c.Format]
	x = new(sink.Sink)
	switch {
	case c.File != nil:
		mode, err := c.File.mode()
		if err != nil {
			return nil, err
		}
		x.Kind, x.Target = "file", c.File.Path
		x.Receiver, err = sink.NewFile(sink.FileConfig{
			Path: c.File.Path, Mode: mode, RotateOctets: int64(c.File.Rotate), Keep: c.File.Keep, Format: format, Now: time.Now,
		})
		if err != nil {
			return nil, err
		}
		return x, checkDirectory(filepath.Dir(c.File.Path))
	case c.Webhook != nil:
		return x, c.Webhook.open(x, format, hostname)
	case c.Syslog != nil:
		return x, c.Syslog.open(x, format, hostname)
	case c.Mail != nil:
		return x, c.Mail.open(x, hostname, look)
	}
	return nil, errors.New("it is of no kind")
}

func checkDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", dir)
	}
	return err
}

func (c *WebhookSinkConfig) open(x *sink.Sink, format sink.Format, hostname string) error {
	roots, err := readCAs("webhook.ca_file", c.CAFile)
	if err != nil {
		return err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return keyError("webhook.url", err)
	}
	// The rest of it may be known to the two of them alone.
	x.Kind, x.Target = "webhook", u.Scheme+"://"+u.Host
	w, err := sink.NewWebhook(sink.WebhookConfig{
		URL: c.URL, Batched: c.Mode == batched, Source: "//" + hostname + "/logs/", Format: format, Timeout: time.Duration(c.Timeout),
		Secret: func() (broker.Secret, error) { return readPassword(c.SecretFile) },
		TLS:    &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		return err
	}
	x.Receiver = w
	if err := w.Check(); err != nil {
		return keyError("webhook.secret_file", err)
	}
	return nil
}

func (c *SyslogSinkConfig) open(x *sink.Sink, format sink.Format, hostname string) error {
	roots, err := readCAs("syslog.ca_file", c.CAFile)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return keyError("syslog.address", err)
	}
	config := &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
	if c.Certificate != "" {
		own := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
			return &pair, err
		}
		if _, err := own(); err != nil {
			return keyError("syslog.certificate", err)
		}
		// Read for each connection, so that a new one is taken up.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() }
	}
	s, err := sink.NewSyslog(sink.SyslogConfig{
		Address: c.Address, TLS: config, Hostname: hostname, Facility: c.Facility, Octets: int(c.MaxMessage), Format: format,
	})
	if err != nil {
		return err
	}
	x.Kind, x.Target, x.Pace, x.Receiver = "syslog", c.Address, s.Pace(), s
	return nil
}

func (c *MailSinkConfig) open(x *sink.Sink, hostname string, look lookup) error {
	roots, err := readCAs("mail.ca_file", c.CAFile)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(c.Server)
	if err != nil {
		return keyError("mail.server", err)
	}
	config := sink.MailConfig{
		Server: c.Server, StartTLS: c.TLS == string(broker.TLSStartTLS), From: c.From, To: c.To, Hostname: hostname,
		TLS: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12},
	}
	if c.Username != "" {
		password, err := readPassword(c.PasswordFile)
		if err != nil {
			return keyError("mail.password_file", err)
		}
		password.Wipe()
		config.Username, config.Password = c.Username, func() (broker.Secret, error) { return readPassword(c.PasswordFile) }
	}
	if look != nil {
		config.Alert, config.Firm = look.Alert, look.Firm
	}
	m, err := sink.NewMail(config)
	if err != nil {
		return err
	}
	x.Kind, x.Target, x.Pace, x.Receiver = "mail", c.To[0], time.Duration(c.Interval), m
	if len(c.To) > 1 {
		x.Target += fmt.Sprintf(" and %d more", len(c.To)-1)
	}
	return nil
}
