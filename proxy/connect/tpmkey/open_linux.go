// SPDX-License-Identifier: Apache-2.0

package tpmkey

import (
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// DefaultDevice is the kernel's resource manager, which keeps programs apart.
const DefaultDevice = "/dev/tpmrm0"

// At returns the opener of a TPM's device, or of an emulator's Unix socket.
func At(path string) Opener {
	return func() (transport.TPMCloser, error) {
		info, err := os.Stat(path)
		if err == nil && info.Mode()&fs.ModeSocket != 0 {
			return linuxudstpm.Open(path)
		}
		return linuxtpm.Open(path)
	}
}
