// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Lifetimes of enrolment codes.
const (
	CodeLifetime    = 24 * time.Hour
	MaxCodeLifetime = 30 * 24 * time.Hour
)

// EnrolmentCodeInput says what workstation a code makes.
type EnrolmentCodeInput struct {
	Name      string                  `json:"name" minLength:"1" doc:"The workstation's: unique." example:"pune-07"`
	Class     broker.WorkstationClass `json:"class" enum:"hardware,software" doc:"Where its key must be: hardware (the machine's TPM) or software (a file). A TPM proves it when the code is redeemed."`
	TPM       string                  `json:"tpm,omitempty" pattern:"^[0-9a-f]{64}$" doc:"The machine's TPM, by its fingerprint ('postern workstation tpm' on the machine). Without it, any whose maker the server trusts. For class hardware alone."`
	Site      string                  `json:"site,omitempty" doc:"Binds it to a site's networks, by the site's id or name; without it, it may roam."`
	Groups    []string                `json:"groups,omitempty" nullable:"false" doc:"What app passwords can be limited to."`
	Agent     string                  `json:"agent,omitempty" doc:"Whose machine it becomes, by id or name: he may log in by its certificate alone (SASL EXTERNAL). Without it, nobody may."`
	ExpiresAt *time.Time              `json:"expires_at,omitempty" doc:"Without it, in a day; at most in thirty."`
}

// EnrolmentCodeCreated is a new code and, this once, the code itself.
type EnrolmentCodeCreated struct {
	Code      string    `json:"code" doc:"For 'postern workstation enrol' on the machine, to redeem once. It is shown this once, and not kept."`
	Name      string    `json:"name"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Enrolment makes its sender a workstation.
type Enrolment struct {
	Code  string                  `json:"code" minLength:"1" writeOnly:"true"`
	CSR   string                  `json:"csr" minLength:"1" doc:"A PKCS #10 request in PEM for the key that was made on the machine."`
	Class broker.WorkstationClass `json:"class" enum:"hardware,software" doc:"Where that key is: it must be what the code demands."`
	TPM   *broker.TPMAnswer       `json:"tpm,omitempty" doc:"For class hardware: proof that the key is in a TPM."`
}

// TPMChallengeInput asks for what only a TPM with the key can answer.
type TPMChallengeInput struct {
	Code string        `json:"code" minLength:"1" writeOnly:"true"`
	TPM  broker.TPMKey `json:"tpm"`
}

// Attestor proves that keys are in TPMs: broker/attest.
type Attestor interface {
	// TrustsMakers reports whether a maker's certificate can prove a TPM.
	TrustsMakers() bool
	// Challenge is for the key in the TPM pinned; empty: of a trusted maker. The
	// error is Invalid, or Refused when it is another TPM or nobody's.
	Challenge(code []byte, pinned string, k *broker.TPMKey) (*broker.TPMChallenge, error)
	// Verify returns the fingerprint of the TPM that has the key public, a
	// SubjectPublicKeyInfo in DER. The error is Invalid, or Refused.
	Verify(code []byte, pinned string, public []byte, a *broker.TPMAnswer) (tpm string, err error)
}

// Enrolled is a workstation as its own machine learns of it.
type Enrolled struct {
	Name        string                  `json:"name"`
	Class       broker.WorkstationClass `json:"class"`
	Certificate string                  `json:"certificate" doc:"In PEM: it is not kept."`
	CA          string                  `json:"ca" doc:"The issuing CA's certificate, in PEM."`
}

// CertificateRenewal asks for a new certificate for the key of the present one.
type CertificateRenewal struct {
	Certificate string `json:"certificate" minLength:"1" doc:"The present certificate, in PEM, which must be valid still."`
	CSR         string `json:"csr" minLength:"1" doc:"A PKCS #10 request in PEM for the same key, signed by it."`
}

func (a *api) registerEnrolment() {
	route(a, http.MethodPost, "/v1/workstations/codes", "create-enrolment-code",
		"Make a one-time code by which a machine becomes a workstation, in place of one for the same name that was not redeemed", a.createEnrolmentCode)
	route(a, http.MethodPost, "/v1/enrolments/challenges", "challenge-tpm",
		"Get what only the TPM that has a key can answer, to prove it when an enrolment code of class hardware is redeemed", a.challengeTPM)
	route(a, http.MethodPost, "/v1/enrolments", "enrol",
		"Redeem an enrolment code, once: its sender becomes the workstation, and gets its certificate", a.enrol)
	route(a, http.MethodPost, "/v1/enrolments/renew", "renew-certificate",
		"Renew the certificate of the sender's own key, before it expires", a.renewCertificate)
}

func (a *api) createEnrolmentCode(ctx context.Context, in *struct{ Body EnrolmentCodeInput }) (*answer[EnrolmentCodeCreated], error) {
	code, c, err := a.newEnrolmentCode(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	return &answer[EnrolmentCodeCreated]{EnrolmentCodeCreated{Code: code, Name: c.Name, ExpiresAt: c.ExpiresAt}}, nil
}

// newEnrolmentCode makes a code and stores its hash.
func (a *api) newEnrolmentCode(ctx context.Context, b *EnrolmentCodeInput) (code string, c *broker.EnrolmentCode, err error) {
	if a.WorkstationCA == nil {
		return "", nil, broker.Errorf(broker.Conflict, "this server has no CA of its own: add workstations with certificates of the CA that it trusts")
	}
	now := a.Now()
	switch {
	case b.Class != broker.ClassHardware && b.TPM != "":
		return "", nil, broker.InvalidField("tpm", "a key of class %s is in no TPM", b.Class)
	case b.Class == broker.ClassHardware && b.TPM == "" && !a.Attestor.TrustsMakers():
		return "", nil, broker.InvalidField("tpm", "nothing could prove the class: name the machine's TPM (run 'postern workstation tpm' on it), or have the server trust TPMs' makers (workstations.tpm_ca_files)")
	}
	c = &broker.EnrolmentCode{Name: b.Name, Class: b.Class, TPM: b.TPM, Groups: b.Groups, ExpiresAt: now.Add(CodeLifetime)}
	if b.ExpiresAt != nil {
		c.ExpiresAt = b.ExpiresAt.UTC()
		if !c.ExpiresAt.After(now) || c.ExpiresAt.After(now.Add(MaxCodeLifetime)) {
			return "", nil, broker.InvalidField("expires_at", "not within the next thirty days")
		}
	}
	if b.Site != "" {
		s, err := a.findSite(ctx, "site", b.Site)
		if err != nil {
			return "", nil, err
		}
		c.SiteID = s.ID
	}
	if b.Agent != "" {
		w := &broker.Workstation{Class: b.Class}
		if err := a.bind(ctx, w, b.Agent); err != nil {
			return "", nil, err
		}
		c.AgentID = w.AgentID
	}
	code, c.Hash = a.EnrolmentCodes.New()
	return code, c, a.Enrolments.CreateEnrolmentCode(ctx, actor(ctx), c)
}

// enrolmentCode returns a code that can be redeemed, and its hash, for a key of
// that class.
func (a *api) enrolmentCode(ctx context.Context, code string, class broker.WorkstationClass) (hash []byte, c *broker.EnrolmentCode, err error) {
	hash, ok := a.EnrolmentCodes.Hash(code)
	if !ok || a.WorkstationCA == nil {
		return nil, nil, a.failed(ctx, errUnknownCode())
	}
	c, err = a.Enrolments.EnrolmentCode(ctx, hash, a.Now())
	if broker.CodeOf(err) == broker.NotFound {
		return nil, nil, a.failed(ctx, errUnknownCode())
	}
	if err == nil && class != c.Class {
		err = broker.InvalidField("class", "the code is for a key of class %s, and this one is of class %s", c.Class, class)
	}
	return hash, c, err
}

func errUnknownCode() *broker.Error {
	return broker.Errorf(broker.Denied, "the code is not good: it is unknown, expired, or was used already; ask the administrator for another")
}

func (a *api) challengeTPM(ctx context.Context, in *struct{ Body TPMChallengeInput }) (*answer[broker.TPMChallenge], error) {
	hash, c, err := a.enrolmentCode(ctx, in.Body.Code, broker.ClassHardware)
	if err != nil {
		return nil, err
	}
	challenge, err := a.Attestor.Challenge(hash, c.TPM, &in.Body.TPM)
	if err != nil {
		return nil, err
	}
	return &answer[broker.TPMChallenge]{*challenge}, nil
}

// proved returns the fingerprint of the TPM that has the key of a request, where
// the code demands one.
func (a *api) proved(hash []byte, c *broker.EnrolmentCode, in *Enrolment) (tpm string, err error) {
	if c.Class != broker.ClassHardware {
		return "", nil
	}
	if in.TPM == nil {
		return "", broker.InvalidField("tpm", "missing: the code is for a key whose TPM proves it")
	}
	block, _ := pem.Decode([]byte(in.CSR))
	if block == nil {
		return "", broker.InvalidField("csr", "is no request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", broker.InvalidField("csr", "cannot be read").WithCause(err)
	}
	return a.Attestor.Verify(hash, c.TPM, csr.RawSubjectPublicKeyInfo, in.TPM)
}

func (a *api) enrol(ctx context.Context, in *struct{ Body Enrolment }) (*answer[Enrolled], error) {
	hash, c, err := a.enrolmentCode(ctx, in.Body.Code, in.Body.Class)
	if err != nil {
		return nil, err
	}
	// Signed before the code is used up: a request that is no good costs none.
	// What is signed in vain opens nothing, since nobody pinned its key.
	w := &broker.Workstation{ID: broker.NewID(), Name: c.Name}
	if w.TPM, err = a.proved(hash, c, &in.Body); err != nil {
		return nil, err
	}
	var certificate string
	if w.KeyPins, certificate, err = a.keyPins(ctx, machine(w), workstationKey{csr: in.Body.CSR}, w); err != nil {
		return nil, &undoneError{err}
	}
	err = a.Enrolments.RedeemEnrolmentCode(ctx, hash, w)
	if broker.CodeOf(err) == broker.NotFound {
		return nil, a.failed(ctx, errUnknownCode())
	}
	if err != nil {
		return nil, err
	}
	return a.enrolled(w, certificate), nil
}

func (a *api) enrolled(w *broker.Workstation, certificate string) *answer[Enrolled] {
	return &answer[Enrolled]{Enrolled{
		Name: w.Name, Class: w.Class, Certificate: certificate, CA: string(a.WorkstationCA.CertificatePEM()),
	}}
}

// renewCertificate takes the request's signature for proof that its sender has
// the key. Somebody who repeats another's request gets a certificate that is of
// no use without it. One that has expired is not renewed, so that a machine
// that was lost and forgotten is shut out for good.
func (a *api) renewCertificate(ctx context.Context, in *struct{ Body CertificateRenewal }) (*answer[Enrolled], error) {
	unknown := broker.Errorf(broker.Denied, "the certificate cannot be renewed: it has expired, its workstation was removed, or the key is another; ask the administrator to enrol this machine again")
	block, _ := pem.Decode([]byte(in.Body.Certificate))
	if block == nil || a.WorkstationCA == nil {
		return nil, a.failed(ctx, unknown)
	}
	present, err := x509.ParseCertificate(block.Bytes)
	if err != nil || a.WorkstationCA.Verify(present) != nil {
		return nil, a.failed(ctx, unknown)
	}
	pin := broker.KeyPin(present)
	w, err := a.State.WorkstationByKeyPin(ctx, pin)
	if broker.CodeOf(err) == broker.NotFound {
		return nil, a.failed(ctx, unknown)
	}
	if err != nil {
		return nil, err
	}
	locks, err := a.State.Locks(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range locks {
		if l.Target == broker.LockWorkstation && l.TargetID == w.ID && (l.Until.IsZero() || a.Now().Before(l.Until)) {
			return nil, broker.Errorf(broker.Refused, "this workstation is locked: %s", l.Message)
		}
	}
	if wait := a.renewals.take(pin, a.Now()); wait > 0 {
		return nil, broker.Errorf(broker.Limit, "this certificate was renewed often a moment ago: try again in %s", wait.Round(time.Second))
	}
	pins, certificate, err := a.keyPins(ctx, machine(w), workstationKey{csr: in.Body.CSR}, w)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(pins, []string{pin}) {
		return nil, a.failed(ctx, unknown)
	}
	a.Logger.Info("a workstation renewed its certificate", zap.String("workstation", w.Name), zap.String("key_pin", pin))
	return a.enrolled(w, certificate), nil
}
