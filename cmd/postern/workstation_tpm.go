// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/connect/tpmkey"
)

// localTPM is this machine's TPM, as workstation tpm shows it.
type localTPM struct {
	Fingerprint string `json:"fingerprint"`
	// Maker is who issued the certificate that it holds; empty: it holds none.
	Maker string `json:"maker,omitempty"`
}

func newWorkstationTPMCommand(a *app) *cobra.Command {
	device := tpmkey.DefaultDevice
	cmd := &cobra.Command{
		Use:   "tpm",
		Short: "Show what this machine's TPM is known by",
		Long: `Show what this machine's TPM is known by: the fingerprint that an administrator
gives to 'postern workstation code --tpm', and who its maker's certificate, if it
holds one, was issued by. Nothing is asked of the server.

Read it on the machine yourself, or take it from its maker: who says that a
fingerprint is a TPM's is believed.`,
		Example: `  postern workstation tpm`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			endorsed, err := tpmkey.Endorse(tpmkey.At(device))
			if err != nil {
				return err
			}
			shown := localTPM{Fingerprint: broker.TPMFingerprint(endorsed.Key)}
			if endorsed.Certificate != nil {
				c, err := x509.ParseCertificate(endorsed.Certificate)
				if err != nil {
					return fmt.Errorf("the certificate of the TPM's maker: %w", err)
				}
				shown.Maker = c.Issuer.String()
			}
			raw, err := json.Marshal(shown)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				maker := shown.Maker
				if maker == "" {
					maker = "it holds no certificate"
				}
				writeFields(out, "TPM", shown.Fingerprint, "Maker", maker)
			})
		},
	}
	cmd.Flags().StringVar(&device, "tpm-device", device, "the TPM's `device`")
	return cmd
}

// tpmMakers are the CAs that certify TPMs; nil: none is configured.
func (c *WorkstationsConfig) tpmMakers() (*x509.CertPool, error) {
	if len(c.TPMCAFiles) == 0 {
		return nil, nil
	}
	makers := x509.NewCertPool()
	for i, file := range c.TPMCAFiles {
		key := fmt.Sprintf("workstations.tpm_ca_files[%d]", i)
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, keyError(key, err)
		}
		if !makers.AppendCertsFromPEM(b) {
			return nil, keyError(key, fmt.Errorf("%s holds no certificate", file))
		}
	}
	return makers, nil
}
