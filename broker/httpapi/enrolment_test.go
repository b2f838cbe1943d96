// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func requestOf(t *testing.T, key *ecdsa.PrivateKey) (text string) {
	t.Helper()
	if err := json.Unmarshal([]byte(request(t, key)), &text); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestEnrolment: a code makes one workstation, and what is wrong with a request
// costs no code.
func TestEnrolment(t *testing.T) {
	c := start(t)
	code := ok[httpapi.EnrolmentCodeCreated](c, "POST", "/v1/workstations/codes", `{"name":"goa-01","class":"software","groups":["night"]}`)
	key := newKey(t)
	good := httpapi.Enrolment{Code: code.Code, CSR: requestOf(t, key), Class: broker.ClassSoftware}

	wrongClass, wrongCSR, unknown := good, good, good
	wrongClass.Class, wrongCSR.CSR, unknown.Code = broker.ClassHardware, "hello", code.Code[:len(code.Code)-4]+"0000"
	c.refused("POST", "/v1/enrolments", jsonOf(t, wrongClass), http.StatusUnprocessableEntity, broker.Invalid)
	c.refused("POST", "/v1/enrolments", jsonOf(t, wrongCSR), http.StatusUnprocessableEntity, broker.Invalid)
	c.refused("POST", "/v1/enrolments", jsonOf(t, unknown), http.StatusForbidden, broker.Denied)

	e := ok[httpapi.Enrolled](c, "POST", "/v1/enrolments", jsonOf(t, good))
	if e.Name != "goa-01" || e.Class != broker.ClassSoftware {
		t.Errorf("enrolled as %+v", e)
	}
	w := ok[httpapi.Workstation](c, "GET", "/v1/workstations/goa-01", "")
	if len(w.KeyPins) != 1 || len(w.Groups) != 1 || w.Groups[0] != "night" {
		t.Errorf("the workstation is %+v", w)
	}
	// The certificate is on record.
	page := ok[httpapi.LogPage](c, "GET", "/v1/events?type=workstation.certified", "")
	var record struct {
		WorkstationID broker.ID                   `json:"workstation_id"`
		Actor         broker.Actor                `json:"actor"`
		Data          broker.WorkstationCertified `json:"data"`
	}
	if len(page.Items) != 1 {
		t.Fatalf("%d certificates are on record", len(page.Items))
	}
	if err := json.Unmarshal(page.Items[0].Record, &record); err != nil {
		t.Fatal(err)
	}
	if record.WorkstationID != w.ID || record.Actor.Kind != "workstation" || record.Data.KeyPin != w.KeyPins[0] || record.Data.Serial == "" {
		t.Errorf("on record is %+v", record)
	}
	again := good
	again.CSR = requestOf(t, newKey(t))
	c.refused("POST", "/v1/enrolments", jsonOf(t, again), http.StatusForbidden, broker.Denied)
	c.refused("POST", "/v1/workstations/codes", `{"name":"goa-01","class":"software"}`, http.StatusConflict, broker.Conflict)

	// Never 1: the code itself is kept nowhere.
	_, _, events := c.do("GET", "/v1/events", "")
	for place, text := range map[string]string{"events": string(events), "log": c.world.Log.String()} {
		if strings.Contains(text, strings.TrimPrefix(code.Code, "postern_enrol_")) {
			t.Errorf("the %s hold the code", place)
		}
	}
}

// TestNever5AClassOfHardwareIsProved: the word of whoever redeems the code does
// not do. broker/attest has the proof's own tests.
func TestNever5AClassOfHardwareIsProved(t *testing.T) {
	c := start(t)
	const tpm = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	c.refused("POST", "/v1/workstations/codes", `{"name":"goa-01","class":"hardware"}`, http.StatusUnprocessableEntity, broker.Invalid)
	c.refused("POST", "/v1/workstations/codes", `{"name":"goa-01","class":"software","tpm":"`+tpm+`"}`, http.StatusUnprocessableEntity, broker.Invalid)
	code := ok[httpapi.EnrolmentCodeCreated](c, "POST", "/v1/workstations/codes", `{"name":"goa-01","class":"hardware","tpm":"`+tpm+`"}`)

	key := newKey(t)
	endorsement, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	claimed := httpapi.Enrolment{Code: code.Code, CSR: requestOf(t, key), Class: broker.ClassHardware}
	c.refused("POST", "/v1/enrolments", jsonOf(t, claimed), http.StatusUnprocessableEntity, broker.Invalid)
	claimed.TPM = &broker.TPMAnswer{TPMKey: broker.TPMKey{Key: []byte("key"), EndorsementKey: endorsement}, Answer: make([]byte, 32), ExpiresAt: time.Now().Add(time.Minute)}
	c.refused("POST", "/v1/enrolments", jsonOf(t, claimed), http.StatusForbidden, broker.Refused)
	c.refused("POST", "/v1/enrolments/challenges", jsonOf(t, httpapi.TPMChallengeInput{Code: code.Code, TPM: claimed.TPM.TPMKey}), http.StatusForbidden, broker.Refused)
	c.refused("POST", "/v1/enrolments/challenges", jsonOf(t, httpapi.TPMChallengeInput{Code: "postern_enrol_0", TPM: claimed.TPM.TPMKey}), http.StatusForbidden, broker.Denied)
	if list := ok[httpapi.List[*httpapi.Workstation]](c, "GET", "/v1/workstations", ""); len(list.Items) > 0 {
		t.Errorf("it became %+v", list.Items[0])
	}
}

// TestCertificatesAreRenewedByTheirOwnKey, while the workstation stands.
func TestCertificatesAreRenewedByTheirOwnKey(t *testing.T) {
	c := start(t)
	key := newKey(t)
	created := ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations",
		jsonOf(t, httpapi.WorkstationInput{Name: "goa-02", Class: broker.ClassSoftware, CSR: requestOf(t, key)}))
	in := httpapi.CertificateRenewal{Certificate: created.Certificate, CSR: requestOf(t, key)}
	renewed := ok[httpapi.Enrolled](c, "POST", "/v1/enrolments/renew", jsonOf(t, in))
	if renewed.Certificate == created.Certificate || renewed.Name != "goa-02" {
		t.Errorf("renewed: %+v", renewed)
	}
	w := ok[httpapi.Workstation](c, "GET", "/v1/workstations/goa-02", "")
	if len(w.KeyPins) != 1 || w.KeyPins[0] != created.Workstation.KeyPins[0] {
		t.Errorf("the keys changed: %v", w.KeyPins)
	}

	stranger := in
	stranger.CSR = requestOf(t, newKey(t))
	c.refused("POST", "/v1/enrolments/renew", jsonOf(t, stranger), http.StatusForbidden, broker.Denied)
	foreign := in
	foreign.Certificate = selfSigned(t, key)
	c.refused("POST", "/v1/enrolments/renew", jsonOf(t, foreign), http.StatusForbidden, broker.Denied)

	lock := ok[httpapi.LockAdded](c, "POST", "/v1/locks", `{"target":"workstation","name":"goa-02","message":"Lost."}`)
	c.refused("POST", "/v1/enrolments/renew", jsonOf(t, in), http.StatusForbidden, broker.Refused)
	if status, _, answer := c.do("DELETE", "/v1/locks/"+string(lock.Lock.ID), ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	if status, _, answer := c.do("DELETE", "/v1/workstations/goa-02", ""); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	c.refused("POST", "/v1/enrolments/renew", jsonOf(t, in), http.StatusForbidden, broker.Denied)
}

// TestRenewalsAreBounded: each is signed, and on record for ever.
func TestRenewalsAreBounded(t *testing.T) {
	c := start(t)
	key := newKey(t)
	created := ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations",
		jsonOf(t, httpapi.WorkstationInput{Name: "goa-03", Class: broker.ClassSoftware, CSR: requestOf(t, key)}))
	in := jsonOf(t, httpapi.CertificateRenewal{Certificate: created.Certificate, CSR: requestOf(t, key)})
	renewed := 0
	for range 50 {
		status, _, _ := c.do("POST", "/v1/enrolments/renew", in)
		if status == http.StatusTooManyRequests {
			break
		}
		renewed++
	}
	if renewed < 5 || renewed > 30 {
		t.Errorf("%d certificates were renewed at once", renewed)
	}
}

// selfSigned is a certificate for a key that no CA issued.
func selfSigned(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
