// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// renewFlags are those of workstation renew.
type renewFlags struct {
	csr, certificate, generate, class, saveTo string
	replace                                   bool
}

func newWorkstationRenewCommand(a *app) *cobra.Command {
	var f renewFlags
	cmd := &cobra.Command{
		Use:   "renew WORKSTATION (--csr FILE | --certificate FILE | --generate-key DIR)",
		Short: "Give a workstation a new certificate, or a new key",
		Long: `Give a workstation a new certificate, or a new key:

  --csr FILE          the server's own CA certifies the key of a request
  --certificate FILE  the key of a certificate of a CA that the server trusts
  --generate-key DIR  a new key made here, into DIR/NAME.key (mode 0600), with its
                      certificate in DIR/NAME.crt

With the key that it has (a request made of it anew), the workstation gets a
certificate, and nothing else changes.

A new key takes the place of all that it had: they open nothing more, and their
sessions end within a second. That is the default because a laptop may be
re-keyed since somebody has its old key; one that stayed by oversight would open
mailboxes unseen, whereas one that went too soon shows at once. Where the
workstation must go on with its old key until the new one is installed, use
--replace=false, and afterwards renew with the new key again and --replace.`,
		Example: `  postern workstation renew pune-07 --csr pune-07.csr --out pune-07.crt
  postern workstation renew laptop-3 --generate-key ./laptop-3-new
  postern workstation renew pune-07 --csr new.csr --class hardware --replace=false`,
		Args: exactly("WORKSTATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("out") && f.csr == "" {
				return usagef("--out is for the certificate that a --csr gets")
			}
			in := httpapi.WorkstationRenewal{Class: broker.WorkstationClass(f.class)}
			if cmd.Flags().Changed("replace") {
				in.Replace = &f.replace
			}
			if f.generate != "" {
				return f.renewWithNewKey(cmd, a, args[0], in)
			}
			return f.renew(cmd, a, args[0], in)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.csr, "csr", "", "a PKCS #10 request in PEM, in this `file`")
	flags.StringVar(&f.certificate, "certificate", "", "a certificate in PEM, in this `file`")
	flags.StringVar(&f.generate, "generate-key", "", "make a key in this `directory`")
	flags.StringVar(&f.class, "class", "", "how well a new key is kept: hardware or software (without it: software); it must be the workstation's class")
	flags.BoolVar(&f.replace, "replace", false, "remove its other keys, ending their sessions (without it: when the key is new; =false: they stay)")
	flags.StringVar(&f.saveTo, "out", "", "write the certificate into this `file` (without it: to standard output)")
	cmd.MarkFlagsOneRequired("csr", "certificate", "generate-key")
	cmd.MarkFlagsMutuallyExclusive("csr", "certificate", "generate-key")
	return cmd
}

func (f *renewFlags) renew(cmd *cobra.Command, a *app, workstation string, in httpapi.WorkstationRenewal) (err error) {
	if err := checkOut(f.saveTo); err != nil {
		return err
	}
	if in.CSR, err = readOptional("csr", f.csr); err != nil {
		return err
	}
	if in.Certificate, err = readOptional("certificate", f.certificate); err != nil {
		return err
	}
	raw, renewed, err := call[httpapi.WorkstationRenewed](cmd, a, http.MethodPost, path("workstations", workstation, "renew"), in)
	if err != nil {
		return err
	}
	if f.saveTo != "" {
		if err := writeNew(f.saveTo, []byte(renewed.Certificate), 0o644); err != nil {
			return fmt.Errorf("the workstation is renewed, but its certificate was not saved; renew it again with the same request: %w", err)
		}
	}
	return a.showUpdated(cmd, raw, "workstation renewed", renewed.Ended, func(out io.Writer) {
		writeWorkstation(out, &renewed.Workstation, "Certificate", f.saveTo)
		if f.saveTo == "" {
			fmt.Fprint(out, renewed.Certificate)
		}
	})
}

// renewWithNewKey makes a key on this machine and has the server certify it.
func (f *renewFlags) renewWithNewKey(cmd *cobra.Command, a *app, workstation string, in httpapi.WorkstationRenewal) error {
	if f.class != "" && f.class != string(broker.ClassSoftware) {
		return usagef("a key in a file is of class software: for hardware, make the key in the TPM and use --csr")
	}
	_, w, err := call[httpapi.Workstation](cmd, a, http.MethodGet, path("workstations", workstation), nil)
	if err != nil {
		return err
	}
	if w.Class != broker.ClassSoftware {
		return usagef("%s is of class %s, and a key in a file is not: make the key in its TPM and use --csr, or remove the workstation and add it anew", w.Name, w.Class)
	}
	key, err := makeKey(f.generate, w.Name)
	if err != nil {
		return err
	}
	in.CSR, in.Class = key.csr, broker.ClassSoftware
	raw, renewed, err := call[httpapi.WorkstationRenewed](cmd, a, http.MethodPost, path("workstations", string(w.ID), "renew"), in)
	if err != nil {
		return key.failed(err)
	}
	if err := writeNew(key.certificateFile, []byte(renewed.Certificate), 0o644); err != nil {
		return fmt.Errorf("the workstation is renewed, but its certificate was not saved; renew it again with another directory: %w", err)
	}
	return a.showUpdated(cmd, raw, "workstation renewed", renewed.Ended, func(out io.Writer) {
		writeWorkstation(out, &renewed.Workstation, "Key", key.keyFile, "Certificate", key.certificateFile)
	})
}
