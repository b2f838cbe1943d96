// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/test/servers"
)

// directory answers as Active Directory is documented to ([MS-ADTS]
// §3.1.1.3.1.5): unicodePwd is written alone, over TLS, as a quoted string in
// UTF-16, replaced by an administrator or deleted and added by whose it is.
type directory struct {
	port uint16

	mu sync.Mutex
	// passwords are by DN; cut are those whose change ends the connection.
	passwords map[string]string
	cut       map[string]bool
	admins    map[string]bool
	// answer replaces the answers to changes; 0: none.
	answer int
	// asked counts changes.
	asked int
}

const shortest = 12

func startDirectory(t *testing.T, ca *servers.CA) *directory {
	t.Helper()
	d := &directory{passwords: map[string]string{}, cut: map[string]bool{}, admins: map[string]bool{}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.Issue().TLS}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	d.port = uint16(l.Addr().(*net.TCPAddr).Port)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				d.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
	return d
}

// serve answers until a request ends the connection.
func (d *directory) serve(conn net.Conn) {
	who := ""
	for {
		request, err := ber.ReadPacket(conn)
		if err != nil || len(request.Children) < 2 {
			return
		}
		d.mu.Lock()
		answers := d.handle(&who, request.Children[1])
		d.mu.Unlock()
		if answers == nil {
			return
		}
		for _, a := range answers {
			envelope := ber.NewSequence("")
			envelope.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, request.Children[0].Value, ""))
			envelope.AppendChild(a)
			if _, err := conn.Write(envelope.Bytes()); err != nil {
				return
			}
		}
	}
}

func result(tag ber.Tag, code int, words string) []*ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, "", ""))
	p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, words, ""))
	return []*ber.Packet{p}
}

// handle returns the answers, nil to hang up.
func (d *directory) handle(who *string, op *ber.Packet) []*ber.Packet {
	switch op.Tag {
	case ldap.ApplicationBindRequest:
		name, password := op.Children[1].Value.(string), op.Children[2].Data.String()
		if d.passwords[name] != password || password == "" {
			return result(ldap.ApplicationBindResponse, ldap.LDAPResultInvalidCredentials,
				"80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data 52e, v4563")
		}
		*who = name
		return result(ldap.ApplicationBindResponse, ldap.LDAPResultSuccess, "")
	case ldap.ApplicationSearchRequest:
		filter, err := ldap.DecompileFilter(op.Children[6])
		if err != nil || *who == "" {
			return result(ldap.ApplicationSearchResultDone, ldap.LDAPResultOperationsError, "000004DC: a successful bind must be completed")
		}
		var answers []*ber.Packet
		wanted := strings.TrimSuffix(strings.TrimPrefix(filter, "(userPrincipalName="), ")")
		for dn := range d.passwords {
			if dn == dnOf(wanted) {
				entry := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
				entry.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, dn, ""))
				entry.AppendChild(ber.NewSequence(""))
				answers = append(answers, entry)
			}
		}
		return append(answers, result(ldap.ApplicationSearchResultDone, ldap.LDAPResultSuccess, "")...)
	case ldap.ApplicationModifyRequest:
		d.asked++
		return d.modify(*who, op)
	}
	return nil // an unbind
}

func dnOf(address string) string {
	local, _, _ := strings.Cut(address, "@")
	return "CN=" + local + ",OU=Mail,DC=firm,DC=example"
}

// modify changes a password, or says why not.
func (d *directory) modify(who string, op *ber.Packet) []*ber.Packet {
	answer := func(code int, words string) []*ber.Packet { return result(ldap.ApplicationModifyResponse, code, words) }
	dn := op.Children[0].Value.(string)
	if d.answer != 0 {
		return answer(d.answer, "as the test says")
	}
	if d.cut[dn] {
		return nil
	}
	old, known := d.passwords[dn]
	if !known {
		return answer(ldap.LDAPResultNoSuchObject, "0000208D: NameErr: DSID-03100241, problem 2001 (NO_OBJECT), data 0")
	}
	values := map[int64]string{}
	for _, change := range op.Children[1].Children {
		attribute := change.Children[1]
		if attribute.Children[0].Value.(string) != "unicodePwd" || len(attribute.Children[1].Children) != 1 {
			return answer(ldap.LDAPResultUnwillingToPerform, "0000001F: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0")
		}
		password, ok := unquoteUTF16(attribute.Children[1].Children[0].Data.Bytes())
		if !ok {
			return answer(ldap.LDAPResultUnwillingToPerform, "0000001F: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0")
		}
		values[change.Children[0].Value.(int64)] = password
	}
	to, reset := values[ldap.ReplaceAttribute]
	switch {
	case reset && !d.admins[who]:
		return answer(ldap.LDAPResultInsufficientAccessRights, "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0")
	case !reset && values[ldap.DeleteAttribute] != old:
		return answer(ldap.LDAPResultConstraintViolation, "00000056: AtrErr: DSID-03191083, #1: 0: 00000056: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)")
	case !reset:
		to = values[ldap.AddAttribute]
	}
	if len(to) < shortest {
		if reset {
			return answer(ldap.LDAPResultUnwillingToPerform, "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0")
		}
		return answer(ldap.LDAPResultConstraintViolation, "0000052D: AtrErr: DSID-03191083, #1: 0: 0000052D: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)")
	}
	d.passwords[dn] = to
	return answer(ldap.LDAPResultSuccess, "")
}

func unquoteUTF16(b []byte) (string, bool) {
	if len(b)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i < len(b); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	quoted := string(utf16.Decode(units))
	if len(quoted) < 3 || quoted[0] != '"' || quoted[len(quoted)-1] != '"' {
		return "", false
	}
	return quoted[1 : len(quoted)-1], true
}

func (d *directory) set(dn, password string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.passwords[dn] = password
}

func (d *directory) opens(dn, password string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passwords[dn] == password
}
