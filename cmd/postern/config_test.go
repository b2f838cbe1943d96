// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/postern-mail/postern/broker"
)

const exampleConfig = "../../deployments/postern.example.yaml"

func readExample(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(exampleConfig)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// uncomment turns "#key: value" and "#- key: value" into a key, and leaves "# text" alone.
func uncomment(example []byte) []byte {
	return regexp.MustCompile(`(?m)^( *)#((?:- )?[a-z_]+:)`).ReplaceAll(example, []byte("$1$2"))
}

func TestExampleConfigLoads(t *testing.T) {
	if _, err := loadConfig(exampleConfig); err != nil {
		t.Fatal(err)
	}
}

// Every key of Config stands in the example, every key of the example is one
// of Config, and the values that are commented out are of the right kind.
func TestExampleConfigIsComplete(t *testing.T) {
	full := uncomment(readExample(t))
	var c Config
	if problems := decodeConfig(full, &c); len(problems) > 0 {
		t.Fatal(&configError{"example", problems})
	}
	var document yaml.Node
	if err := yaml.Unmarshal(full, &document); err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	var walk func(path string, n *yaml.Node)
	walk = func(path string, n *yaml.Node) {
		for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
			key := joinKey(path, n.Content[i].Value)
			documented[key] = true
			walk(key, n.Content[i+1])
		}
	}
	walk("", document.Content[0])
	for _, key := range allKeys("", reflect.TypeFor[Config]()) {
		// What is below writer_auth and rotator_auth is documented below auth.
		key = strings.NewReplacer(".writer_auth.", ".auth.", ".rotator_auth.", ".auth.").Replace(key)
		// All ways to log in to Vault are documented once.
		key = strings.Replace(key, "workstations.vault.auth.", "credentials.vault.auth.", 1)
		if !documented[key] {
			t.Errorf("%s is not in the example", key)
		}
	}
}

// Where the example says that a value is the default, it is.
func TestExampleConfigShowsDefaults(t *testing.T) {
	plain, err := parseConfig("/etc/postern/postern.yaml", readExample(t))
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	if problems := decodeConfig(uncomment(readExample(t)), &c); len(problems) > 0 {
		t.Fatal(&configError{"example", problems})
	}
	if plain.Limits != c.Limits {
		t.Errorf("limits: the defaults are %+v, the example says %+v", plain.Limits, c.Limits)
	}
	if plain.Log != c.Log || plain.Drain != c.Drain || plain.State.SQLite != c.State.SQLite || plain.State.Lease != c.State.Lease {
		t.Errorf("log, drain or state: the example does not show the defaults")
	}
	if plain.Upstream.DialTimeout != c.Upstream.DialTimeout || plain.Upstream.LoginTimeout != c.Upstream.LoginTimeout {
		t.Errorf("upstream: the defaults are %+v", plain.Upstream)
	}
	if plain.Workstations.CertificateValidity != c.Workstations.CertificateValidity {
		t.Errorf("workstations.certificate_validity: the default is %v", plain.Workstations.CertificateValidity)
	}
	c.Credentials.Sealed.PassphraseFile = "" // an example, not a default
	if *plain.Credentials.Sealed != *c.Credentials.Sealed {
		t.Errorf("credentials.sealed: the defaults are %+v", plain.Credentials.Sealed)
	}
	v := *c.Credentials.Vault
	v.Mount, v.Timeout = "", 0
	withDefaults := Config{DataDir: "/var/lib/postern", Credentials: CredentialsConfig{Vault: &v}}
	withDefaults.complete("/etc/postern")
	if v.Mount != c.Credentials.Vault.Mount || v.Timeout != c.Credentials.Vault.Timeout {
		t.Errorf("credentials.vault: the defaults are mount %s, timeout %v", v.Mount, v.Timeout)
	}
}

func allKeys(path string, t reflect.Type) []string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !strings.HasSuffix(t.Name(), "Config") {
		return nil
	}
	var keys []string
	for i := range t.NumField() {
		key := joinKey(path, t.Field(i).Tag.Get("yaml"))
		keys = append(append(keys, key), allKeys(key, t.Field(i).Type)...)
	}
	return keys
}

// minimal is the least that is a configuration.
const minimal = `
data_dir: data
hostname: mail.postern.example
listeners: {imaps: "127.0.0.1:0"}
tls: {certificate: tls/server.pem, key: tls/server.key}
workstations: {embedded_ca: ca}
credentials: {sealed: {}}
`

func TestConfigErrorsNameTheKey(t *testing.T) {
	if _, err := parseConfig("/etc/postern/postern.yaml", []byte(minimal)); err != nil {
		t.Fatal(err)
	}
	vault := func(auth string) string {
		return strings.Replace(minimal, "{sealed: {}}", "{vault: {address: 'https://vault.example:8200', "+auth+"}}", 1)
	}
	pki := func(keys string) string {
		return strings.Replace(minimal, "{embedded_ca: ca}", "{vault: {"+keys+"}}", 1)
	}
	for name, tc := range map[string]struct{ config, want string }{
		"empty":                  {"", "data_dir: name the directory"},
		"no YAML":                {"\t", "postern.yaml: "},
		"a list":                 {"- a", "must hold keys: data_dir,"},
		"unknown key":            {minimal + "colour: blue", "colour: there is no such key"},
		"unknown key below":      {strings.Replace(minimal, "{imaps:", "{imapz: x, imaps:", 1), "listeners.imapz: there is no such key; known here: imaps, imap,"},
		"unknown key far below":  {vault("auth: {approle: {role: x}}"), "credentials.vault.auth.approle.role: there is no such key"},
		"a key twice":            {minimal + "hostname: other.example", "hostname: the key is there twice"},
		"an alias":               {strings.Replace(minimal, "data_dir: data", "data_dir: &a data\nnode: *a", 1), "node: aliases are not supported"},
		"two documents":          {minimal + "---\nhostname: other.example", "one document is all"},
		"a text for keys":        {strings.Replace(minimal, "{embedded_ca: ca}", "ca", 1), "workstations: must hold keys"},
		"a list for a text":      {strings.Replace(minimal, "data_dir: data", "data_dir: [a]", 1), "data_dir: cannot unmarshal !!seq; it must be a text"},
		"a text for a number":    {minimal + "limits: {pending: many}", "limits.pending: cannot unmarshal !!str `many`; it must be a number"},
		"no such network":        {minimal + "trusted_proxies: [balancer.example]", "trusted_proxies: "},
		"a duration, no unit":    {minimal + "drain: {timeout: 30}", `drain.timeout: write a duration with its unit`},
		"a negative duration":    {minimal + "drain: {timeout: -30s}", `drain.timeout: write a duration with its unit`},
		"a size without a unit":  {minimal + "limits: {message_size: 50}", `limits.message_size: write a size with its unit`},
		"a size that overflows":  {minimal + "limits: {message_size: 9999999999999GB}", `limits.message_size: write a size`},
		"too small":              {minimal + "limits: {message_size: 1KB}", "limits.message_size: give between 64KB and 1GB"},
		"out of range":           {minimal + "limits: {pending: -1}", "limits.pending: give between 1 and"},
		"a log key of no kind":   {minimal + "checkpoints: {keys: [{}]}", "checkpoints.keys[0]: give exactly one of derived, file and vault"},
		"a log key of two kinds": {minimal + "checkpoints: {keys: [{derived: true, file: a}]}", "checkpoints.keys[0]: give exactly one of"},
		"a log key twice":        {minimal + "checkpoints: {keys: [{file: a}, {derived: true}, {file: ./a}]}", "checkpoints.keys[2]: is the same as checkpoints.keys[0]"},
		"a log key's Vault":      {minimal + "checkpoints: {keys: [{vault: {auth: {token_file: a}}}]}", "checkpoints.keys[0].vault.address: give Vault's address"},
		"a log key's version":    {minimal + "checkpoints: {keys: [{vault: {address: 'https://a.example', auth: {token_file: a}, version: -1}}]}", "checkpoints.keys[0].vault.version: give the number"},
		"many log keys":          {minimal + "checkpoints: {keys: [{file: a}, {file: b}, {file: c}, {file: d}, {file: e}]}", "checkpoints.keys: give at most 4 keys"},
		"a sink without a name":  {minimal + "sinks: [{file: {path: a}}]", "sinks[0].name: give a name"},
		"two sinks of a name":    {minimal + "sinks: [{name: a, file: {path: a}}, {name: a, file: {path: b}}]", "sinks[1].name: another sink has this name"},
		"two sinks of a file":    {minimal + "sinks: [{name: a, file: {path: x/../a}}, {name: b, file: {path: a}}]", "sinks[1].file.path: another sink writes this file"},
		"a sink of no kind":      {minimal + "sinks: [{name: a}]", "sinks[0]: give exactly one of file, syslog, webhook and mail"},
		"a sink of two kinds":    {minimal + "sinks: [{name: a, file: {path: a}, webhook: {url: 'https://a.example', secret_file: b}}]", "sinks[0]: give exactly one of"},
		"a sink of no firm":      {minimal + "sinks: [{name: a, firm: Acme Pumps, file: {path: a}}]", "sinks[0].firm: give a firm's id"},
		"a sink's events":        {minimal + "sinks: [{name: a, events: [session.opened], file: {path: a}}]", "sinks[0].events: there is no event of the type"},
		"a sink's severity":      {minimal + "sinks: [{name: a, severity: dire, file: {path: a}}]", "sinks[0].severity: give info, warning or critical"},
		"a sink's start":         {minimal + "sinks: [{name: a, start: never, file: {path: a}}]", "sinks[0].start: give now or beginning"},
		"a sink's format":        {minimal + "sinks: [{name: a, format: xml, file: {path: a}}]", "sinks[0].format: give json or ocsf"},
		"a file for all":         {minimal + "sinks: [{name: a, file: {path: a, mode: '0644'}}]", "sinks[0].file.mode: give a mode"},
		"a webhook in the clear": {minimal + "sinks: [{name: a, webhook: {url: 'http://a.example', secret_file: b}}]", "sinks[0].webhook.url: give the service's URL"},
		"a webhook unsigned":     {minimal + "sinks: [{name: a, webhook: {url: 'https://a.example'}}]", "sinks[0].webhook.secret_file: name the file"},
		"a log host's port":      {minimal + "sinks: [{name: a, syslog: {address: a.example}}]", "sinks[0].syslog.address: give the log host and its port"},
		"half a certificate":     {minimal + "sinks: [{name: a, syslog: {address: 'a.example:6514', key: b}}]", "sinks[0].syslog.key: give certificate and key"},
		"mail to nobody":         {minimal + "sinks: [{name: a, mail: {server: 'a.example:465', from: a@b.example}}]", "sinks[0].mail.to: give 1 to"},
		"mail to no address":     {minimal + "sinks: [{name: a, mail: {server: 'a.example:465', from: a@b.example, to: ['a <b@c.example>']}}]", "sinks[0].mail.to[0]: give an address"},
		"no host name":           {strings.Replace(minimal, "mail.postern.example", "'mail postern'", 1), "hostname: give the host name"},
		"no listener":            {strings.Replace(minimal, `{imaps: "127.0.0.1:0"}`, "{}", 1), "listeners: give at least one"},
		"a listener with a name": {strings.Replace(minimal, "127.0.0.1:0", "localhost:993", 1), "listeners.imaps: give an IP address and a port"},
		"a listener twice":       {strings.Replace(minimal, `"127.0.0.1:0"`, `":993", imap: ":993"`, 1), "listeners.imap: listeners.imaps has the same address"},
		"no certificate":         {strings.Replace(minimal, "certificate: tls/server.pem, ", "", 1), "tls.certificate: name the PEM file"},
		"no CA":                  {strings.Replace(minimal, "{embedded_ca: ca}", "{}", 1), "workstations: give embedded_ca, vault, authorities or ca_files"},
		"no credentials":         {strings.Replace(minimal, "{sealed: {}}", "{}", 1), "credentials: give exactly one of sealed and vault"},
		"both credentials":       {strings.Replace(minimal, "{sealed: {}}", "{sealed: {}, vault: {}}", 1), "credentials: give exactly one of sealed and vault"},
		"vault without address":  {strings.Replace(minimal, "{sealed: {}}", "{vault: }", 1), "credentials.vault.address: give Vault's address"},
		"vault without auth":     {vault("mount: x"), "credentials.vault.auth: give exactly one of approle, token_file, kubernetes and certificate"},
		"vault with two auths":   {vault("auth: {token_file: a, kubernetes: {role: b}}"), "credentials.vault.auth: give exactly one of"},
		"approle without id":     {vault("auth: {approle: {secret_id_file: x}}"), "credentials.vault.auth.approle.role_id: give the role-id"},
		"writer with no auth":    {vault("auth: {token_file: a}, writer_auth: {}"), "credentials.vault.writer_auth: give exactly one of"},
		"PKI without address":    {pki("auth: {token_file: a}"), "workstations.vault.address: give Vault's address"},
		"PKI without auth":       {pki("address: 'https://vault.example:8200'"), "workstations.vault.auth: give exactly one of"},
		"PKI with two auths":     {pki("address: 'https://vault.example:8200', auth: {token_file: a, kubernetes: {role: b}}"), "workstations.vault.auth: give exactly one of"},
		"PKI without authority":  {pki("address: 'https://vault.example:8200', auth: {token_file: a}"), "workstations.vault.authority_file: name the PEM file"},
		"PKI with a key unknown": {pki("validity: 1h"), "workstations.vault.validity: there is no such key"},
		"long socket path":       {minimal + "api: {socket: /" + strings.Repeat("x", 120) + "}", "api.socket: the path has 121 octets"},
		"log level":              {minimal + "log: {level: loud}", "log.level: give debug, info, warn or error"},
		"log format":             {minimal + "log: {format: xml}", "log.format: give json or console"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig("/etc/postern/postern.yaml", []byte(tc.config))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v\nwant one that says %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "main.") || broker.CodeOf(err) != broker.Invalid {
				t.Errorf("error of code %s: %v", broker.CodeOf(err), err)
			}
		})
	}
}

func TestConfigTellsAllProblemsAtOnce(t *testing.T) {
	_, err := parseConfig("postern.yaml", []byte("log: {level: loud}"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"data_dir", "hostname", "listeners", "tls.certificate", "tls.key", "workstations", "credentials", "log.level"} {
		if !strings.Contains(err.Error(), "postern.yaml: "+key+": ") {
			t.Errorf("%s is not named in:\n%v", key, err)
		}
	}
}

func TestConfigPathsAreRelativeToTheFile(t *testing.T) {
	c, err := parseConfig("/etc/postern/postern.yaml", []byte(minimal+"api: {socket: /run/x.sock}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		c.DataDir, c.State.SQLite, c.TLS.Key, c.AppPasswords.KeyFile, c.Credentials.Sealed.File, c.API.Socket, c.workstationCAFiles()[0],
	}
	want := []string{
		"/etc/postern/data", "/etc/postern/data/postern.db", "/etc/postern/tls/server.key", "/etc/postern/data/app-password.key",
		"/etc/postern/data/credentials.age", "/run/x.sock", "/etc/postern/ca/workstation-ca.pem",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// FuzzParseConfig: a file is refused with errors that name it, or it is a
// configuration that stands its own rules, has no key that is not known, and
// says the same when it is written out and read again.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add(uncomment(readExample(f)))
	for _, s := range []string{
		"", "---\n", "- a\n", "x", "{", "data_dir: [a]\n", "limits: {pending: 1.5, message_size: 9999999999GB}\n", "drain: {timeout: -5s}\n", "a: &a {b: *a}\n", "data_dir: &x d\nhostname: *x\n",
		minimal + "limits: {message_size: 50MB, pending_per_address: 3}\n", minimal + "vault:\n", minimal + "<<: {data_dir: x}\n", minimal + "---\nx: y\n", minimal + "data_dir: twice\n",
		minimal + "log: {level: debug, format: console}\nmetrics: {address: \"127.0.0.1:9090\"}\n", minimal + "trusted_proxies: [192.0.2.0/24, \"2001:db8::/32\"]\n", "!!binary aGk=: x\n", "? [a]\n: b\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := parseConfig("postern.yaml", content)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\npostern.yaml: ") {
				if line == "" {
					t.Fatalf("an error without words: %q", err)
				}
			}
			if broker.CodeOf(err) != broker.Invalid || !strings.HasPrefix(err.Error(), "postern.yaml: ") {
				t.Fatalf("error of code %s: %v", broker.CodeOf(err), err)
			}
			return
		}
		if bytes.Contains(content, []byte("\x00")) {
			t.Fatal("a NUL was accepted")
		}
		if p := c.problems(); len(p) > 0 {
			t.Fatalf("accepted with problems: %v", p)
		}
		var keys map[string]any
		if err := yaml.Unmarshal(content, &keys); err != nil {
			t.Fatalf("accepted what the library refuses: %v", err)
		}
		for key := range keys {
			if !slices.Contains(keysOf(reflect.TypeFor[Config]()), key) {
				t.Fatalf("the key %q was accepted", key)
			}
		}
		written := writeConfig(t, c)
		again, err := parseConfig("postern.yaml", written)
		if err != nil {
			t.Fatalf("written out, it is refused: %v\n%s", err, written)
		}
		if twice := writeConfig(t, again); !bytes.Equal(twice, written) {
			t.Fatalf("written out and read again, %s became %s", written, twice)
		}
	})
}

var nothingBelow = regexp.MustCompile(`(?m)^ *[a-z_]+: null\n`)

// writeConfig writes a configuration; a key with nothing below it would choose
// what it names.
func writeConfig(t *testing.T, c *Config) []byte {
	t.Helper()
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return nothingBelow.ReplaceAll(b, nil)
}
