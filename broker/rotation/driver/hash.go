// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/GehirnInc/crypt/sha512_crypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/postern-mail/postern/broker"
)

// Work factors. What a rotation sets is random, of far more bits than anybody
// can try: a slow hash protects what people choose, and only costs here. They
// are what Dovecot itself would take, so that a table looks like one.
const (
	bcryptCost    = bcrypt.MinCost + 1 // Dovecot's default, 5
	argonPasses   = 3
	argonMemory   = 32 << 10 // KiB: Dovecot's login processes have little room
	argonThreads  = 1
	argonKey      = 32
	saltOctets    = 16
	sha512Rounds  = 5000
	bcryptLongest = 72 // octets; bcrypt would drop the rest
)

// hashes are Dovecot's password schemes, each without its prefix.
func hashes() map[string]func(secret []byte) (string, error) {
	return map[string]func([]byte) (string, error){
		"BLF-CRYPT":    blfCrypt,
		"SHA512-CRYPT": sha512Crypt,
		"ARGON2ID":     argon2ID,
		"SSHA512":      ssha512,
	}
}

func schemes() []string { return slices.Sorted(maps.Keys(hashes())) }

// hash returns a password's hash in one of Dovecot's schemes.
func hash(scheme string, secret broker.Secret) (string, error) {
	return hashes()[scheme](secret.Reveal())
}

func salt() ([]byte, error) {
	b := make([]byte, saltOctets)
	_, err := rand.Read(b)
	return b, err
}

func blfCrypt(secret []byte) (string, error) {
	if len(secret) > bcryptLongest {
		return "", fmt.Errorf("BLF-CRYPT takes %d octets at most", bcryptLongest)
	}
	if bytes.IndexByte(secret, 0) >= 0 {
		return "", fmt.Errorf("BLF-CRYPT takes no NUL")
	}
	b, err := bcrypt.GenerateFromPassword(secret, bcryptCost)
	if err != nil {
		return "", err
	}
	// $2a and $2y are the same for what Go makes; crypt(3) prefers the second.
	return "$2y" + string(b[len("$2a"):]), nil
}

func sha512Crypt(secret []byte) (string, error) {
	s, err := salt()
	if err != nil {
		return "", err
	}
	const letters = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for i := range s {
		s[i] = letters[s[i]%64] // 64 divides 256
	}
	return sha512_crypt.New().Generate(secret, fmt.Appendf(nil, "$6$rounds=%d$%s", sha512Rounds, s))
}

func argon2ID(secret []byte) (string, error) {
	s, err := salt()
	if err != nil {
		return "", err
	}
	key := argon2.IDKey(secret, s, argonPasses, argonMemory, argonThreads, argonKey)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonPasses, argonThreads, b64.EncodeToString(s), b64.EncodeToString(key)), nil
}

// ssha512 is what OpenLDAP's pw-sha2 has as well.
func ssha512(secret []byte) (string, error) {
	s, err := salt()
	if err != nil {
		return "", err
	}
	h := sha512.New()
	h.Write(secret)
	h.Write(s)
	return base64.StdEncoding.EncodeToString(append(h.Sum(nil), s...)), nil
}
