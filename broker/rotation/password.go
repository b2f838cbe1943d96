// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"crypto/rand"
	"math/big"
	"strings"

	"github.com/postern-mail/postern/broker"
)

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
	// usualLength is a generated password's, in characters: 190 bits of letters
	// and digits. leastLength is what no provider's rules may go below.
	usualLength = 32
	leastLength = 12
	mostLength  = 256
)

// generate makes a password after a provider's rules.
func generate(p broker.PasswordPolicy) broker.Secret {
	classes := make([]string, 0, len(p.Classes))
	for _, c := range p.Classes {
		if c != "" && strings.Trim(c, printable) == "" {
			classes = append(classes, c)
		}
	}
	if len(classes) == 0 {
		classes = []string{lower, upper, digits}
	}
	length := p.Length
	if length == 0 {
		length = usualLength
	}
	length = min(max(length, leastLength, len(classes)), mostLength)
	all := strings.Join(classes, "")
	b := make([]byte, length)
	for i := range b {
		from := all
		if i < len(classes) {
			from = classes[i] // one of each
		}
		b[i] = from[below(len(from))]
	}
	for i := length - 1; i > 0; i-- {
		j := below(i + 1)
		b[i], b[j] = b[j], b[i]
	}
	return broker.NewSecret(b)
}

// printable is visible ASCII (RFC 20): what every login can carry.
const printable = lower + upper + digits + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// below returns a random number from 0 to n-1.
func below(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // never (crypto/rand): the program ends before
	}
	return int(i.Int64())
}
