// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/test/servers"
)

const panelSecret = "panel-5ecret-of-the-account"

// panel is a provider's API, which answers as its documentation says.
type panel struct {
	server *httptest.Server

	mu        sync.Mutex
	passwords map[string]string
	cut       map[string]bool // whose change ends the connection, done
	asked     int
}

// startPanel serves one product's API over TLS.
func startPanel(t testing.TB, ca *servers.CA, product func(*panel, http.ResponseWriter, *http.Request)) *panel {
	t.Helper()
	p := &panel{passwords: map[string]string{}, cut: map[string]bool{}}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		product(p, w, r)
	}))
	p.server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue().TLS}, MinVersion: tls.VersionTLS12}
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

func (p *panel) port() uint16 { return uint16(p.server.Listener.Addr().(*net.TCPAddr).Port) }

func (p *panel) add(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passwords[address] = oldPassword
}

func (p *panel) opens(address, password string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passwords[address] == password
}

// set stores a password, and hangs up where a test wants that.
func (p *panel) set(address, password string) {
	p.passwords[address] = password
	if p.cut[address] {
		panic(http.ErrAbortHandler)
	}
}

func answer(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document)
}

func read(r *http.Request, into any) bool { return json.NewDecoder(r.Body).Decode(into) == nil }

type object = map[string]any

// mailcow answers 200 to whatever it understands, refusals among it; a
// successful result has the type success, others danger (data/web/json_api.php).
func mailcow(p *panel, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-API-Key") != panelSecret {
		answer(w, http.StatusUnauthorized, object{"type": "error", "msg": "authentication failed"})
		return
	}
	if address, ok := strings.CutPrefix(r.URL.Path, "/api/v1/get/app-passwd/all/"); ok {
		answer(w, http.StatusOK, []object{{"id": 1, "name": "phone of " + address}, {"id": 2, "name": "scanner"}})
		return
	}
	var asked struct {
		Items []string
		Attr  struct{ Password, Password2 string }
	}
	if r.URL.Path != "/api/v1/edit/mailbox" || r.Method != http.MethodPost || !read(r, &asked) || len(asked.Items) != 1 {
		answer(w, http.StatusNotFound, object{"type": "error", "msg": "route not found"})
		return
	}
	result := func(kind string, msg any) {
		answer(w, http.StatusOK, []object{{"type": kind, "log": []any{"mailbox", "edit", "mailbox", object{"password": "*"}}, "msg": msg}})
	}
	_, known := p.passwords[asked.Items[0]]
	switch {
	case !known:
		result("danger", "access_denied")
	case asked.Attr.Password != asked.Attr.Password2:
		result("danger", "password_mismatch")
	case len(asked.Attr.Password) < shortest:
		result("danger", "password_complexity")
	default:
		p.set(asked.Items[0], asked.Attr.Password)
		result("success", []string{"mailbox_modified", asked.Items[0]})
	}
}

// cpanel is UAPI's Email::passwd_pop.
func cpanel(p *panel, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "cpanel api:"+panelSecret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path != "/execute/Email/passwd_pop" || r.ParseForm() != nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	result := func(status int, errs []string) {
		answer(w, http.StatusOK, object{"status": status, "errors": errs, "messages": nil, "warnings": nil, "metadata": object{}, "data": nil})
	}
	address := r.PostForm.Get("email") + "@" + r.PostForm.Get("domain")
	password := r.PostForm.Get("password")
	_, known := p.passwords[address]
	switch {
	case r.URL.RawQuery != "":
		result(0, []string{"the password would stand in a log"})
	case !known:
		result(0, []string{"You do not have an email account named “" + address + "”."})
	case len(password) < shortest:
		result(0, []string{"Sorry, the password you selected cannot be used because it is too weak: " + password})
	default:
		p.set(address, password)
		result(1, nil)
	}
}

func migadu(p *panel, w http.ResponseWriter, r *http.Request) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("api:"+panelSecret))
	if r.Header.Get("Authorization") != basic {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	parts := strings.Split(r.URL.Path, "/")
	var asked struct{ Password string }
	if r.Method != http.MethodPut || len(parts) != 6 || r.Header.Get("Content-Type") != "application/json" || !read(r, &asked) {
		answer(w, http.StatusBadRequest, object{"error": "bad request"})
		return
	}
	address := parts[5] + "@" + parts[3]
	_, known := p.passwords[address]
	switch {
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case len(asked.Password) < shortest:
		answer(w, http.StatusBadRequest, object{"error": "Password is too short"})
	default:
		p.set(address, asked.Password)
		answer(w, http.StatusOK, object{"address": address, "local_part": parts[5], "domain": parts[3]})
	}
}

// mailu has no rules for passwords (core/admin/mailu/api/v1/user.py).
func mailu(p *panel, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+panelSecret {
		answer(w, http.StatusForbidden, object{"message": "Invalid API token"})
		return
	}
	address, ok := strings.CutPrefix(r.URL.Path, "/api/v1/user/")
	_, known := p.passwords[address]
	var asked struct {
		RawPassword string `json:"raw_password"`
	}
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case !known:
		answer(w, http.StatusNotFound, object{"code": 404, "message": "User " + address + " cannot be found"})
	case r.Method == http.MethodGet:
		answer(w, http.StatusOK, object{"email": address, "forward_enabled": true, "forward_destination": []string{"out@elsewhere.example"}})
	case r.Method == http.MethodPatch && read(r, &asked):
		p.set(address, asked.RawPassword)
		answer(w, http.StatusOK, object{"code": 200, "message": "User " + address + " has been updated"})
	default:
		answer(w, http.StatusBadRequest, object{"message": "Input payload validation failed"})
	}
}

// stalwart is its management by JMAP, of version 0.16 and later.
func stalwart(p *panel, w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+panelSecret {
		answer(w, http.StatusUnauthorized, object{"type": "about:blank", "status": 401, "detail": "You have to authenticate first."})
		return
	}
	var asked struct {
		Using       []string
		MethodCalls [][]json.RawMessage
	}
	if r.URL.Path != "/jmap/" || !read(r, &asked) || len(asked.MethodCalls) != 1 || len(asked.Using) != 2 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var method string
	var arguments struct {
		Filter struct {
			Operator   string
			Name       string
			Conditions []struct{ Name, DomainID string }
		}
		IDs    []string
		Update map[string]map[string]string
	}
	json.Unmarshal(asked.MethodCalls[0][0], &method)
	json.Unmarshal(asked.MethodCalls[0][1], &arguments)
	reply := func(result object) {
		answer(w, http.StatusOK, object{"methodResponses": []any{[]any{method, result, "c"}}})
	}
	switch method {
	case "x:Domain/query":
		ids := []string{}
		if arguments.Filter.Name == "firm.example" {
			ids = append(ids, "d7")
		}
		reply(object{"ids": ids})
	case "x:Account/query":
		ids := []string{}
		if f := arguments.Filter; f.Operator == "AND" && len(f.Conditions) == 2 && f.Conditions[1].DomainID == "d7" {
			if _, known := p.passwords[f.Conditions[0].Name+"@firm.example"]; known {
				ids = append(ids, "id-"+f.Conditions[0].Name)
			}
		}
		reply(object{"ids": ids})
	case "x:Account/get":
		address := strings.TrimPrefix(arguments.IDs[0], "id-") + "@firm.example"
		reply(object{"list": []any{object{"id": arguments.IDs[0], "emailAddress": address, "credentials": object{"0": object{"@type": "Password"}}}}})
	case "x:Account/set":
		for id, update := range arguments.Update {
			if len(update["credentials/0/secret"]) < shortest {
				reply(object{"updated": nil, "notUpdated": object{id: object{
					"type": "invalidProperties", "properties": []string{"secret"}, "description": "Password is too weak.",
				}}})
				return
			}
			p.set(strings.TrimPrefix(id, "id-")+"@firm.example", update["credentials/0/secret"])
			reply(object{"updated": object{id: nil}})
		}
	}
}

// zimbra is its administration by SOAP, in JSON. It sets a password that breaks
// the rules all the same, and says so (SetPasswordResponse's message).
func zimbra(p *panel, w http.ResponseWriter, r *http.Request) {
	type text struct {
		Content string `json:"_content"`
	}
	var asked struct {
		Header struct{ Context struct{ AuthToken text } }
		Body   struct {
			AuthRequest        *struct{ Name, Password string }
			GetAccountRequest  *struct{ Account text }
			SetPasswordRequest *struct{ ID, NewPassword string }
		}
	}
	fault := func(code, reason string) {
		answer(w, http.StatusInternalServerError, object{"Body": object{"Fault": object{
			"Code": object{"Value": "soap:Sender"}, "Reason": object{"Text": reason},
			"Detail": object{"Error": object{"Code": code, "_jsns": "urn:zimbra"}},
		}}})
	}
	reply := func(name string, of object) { answer(w, http.StatusOK, object{"Body": object{name: of}}) }
	if r.URL.Path != "/service/admin/soap" || !read(r, &asked) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	const token = "0_token-of-the-session_0123456789"
	switch b := asked.Body; {
	case b.AuthRequest != nil && b.AuthRequest.Password != panelSecret:
		fault("account.AUTH_FAILED", "authentication failed for ["+b.AuthRequest.Name+"] with "+b.AuthRequest.Password)
	case b.AuthRequest != nil:
		reply("AuthResponse", object{"authToken": []any{text{token}}, "lifetime": 43199999})
	case asked.Header.Context.AuthToken.Content != token:
		fault("service.AUTH_REQUIRED", "no valid authtoken present")
	case b.GetAccountRequest != nil:
		address := b.GetAccountRequest.Account.Content
		if _, known := p.passwords[address]; !known {
			fault("account.NO_SUCH_ACCOUNT", "no such account: "+address)
			return
		}
		reply("GetAccountResponse", object{"account": []any{object{"id": "id-" + address, "name": address}}})
	case b.SetPasswordRequest != nil:
		p.set(strings.TrimPrefix(b.SetPasswordRequest.ID, "id-"), b.SetPasswordRequest.NewPassword)
		of := object{"_jsns": "urn:zimbraAdmin"}
		if len(b.SetPasswordRequest.NewPassword) < shortest {
			of["message"] = []any{text{"invalid password: too short"}}
		}
		reply("SetPasswordResponse", of)
	}
}
