// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tpmkey

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"
)

// DefaultDevice is empty: only Linux' TPMs are used.
const DefaultDevice = ""

// At returns an opener that fails.
func At(string) Opener {
	return func() (transport.TPMCloser, error) { return nil, errors.New("a TPM is used on Linux alone") }
}
