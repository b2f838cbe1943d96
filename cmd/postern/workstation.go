// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

func newWorkstationCommand(a *app) *cobra.Command {
	return newGroup("workstation", "Workstations, from which agents may come",
		newWorkstationAddCommand(a), newWorkstationListCommand(a), newWorkstationShowCommand(a),
		newWorkstationUpdateCommand(a), newWorkstationRenewCommand(a), newWorkstationRemoveCommand(a),
		newWorkstationCodeCommand(a), newWorkstationTPMCommand(a), newWorkstationEnrolCommand(a), newWorkstationRefreshCommand(a), newWorkstationConnectCommand(a),
		newWorkstationExportCommand(),
		newWorkstationOffBoardCommand(a))
}

// workstationFlags are those of workstation add.
type workstationFlags struct {
	class, site, agent                 string
	groups, pins                       []string
	csr, certificate, generate, saveTo string
	named                              httpapi.CertificateNameInput
}

func newWorkstationAddCommand(a *app) *cobra.Command {
	var f workstationFlags
	cmd := &cobra.Command{
		Use:   "add NAME (--csr FILE | --certificate FILE | --generate-key DIR | --key-pin HEX | --certificate-name NAME)",
		Short: "Add a workstation",
		Long: `Add a workstation. Its key comes in one of these ways:

  --csr FILE          the server's own CA certifies the key of a request, made on
                      the workstation (with its key in a TPM: --class hardware)
  --certificate FILE  the key of a certificate of a CA that the server trusts
  --generate-key DIR  a key made here, into DIR/NAME.key (mode 0600), with its
                      certificate in DIR/NAME.crt; only the request leaves this
                      machine. Always of class software
  --key-pin HEX       a SHA-256 hash of a certificate's SubjectPublicKeyInfo
  --certificate-name NAME
                      no key: the name by which certificates of a company's own CA
                      are its, whatever their keys. What in a certificate is read as
                      the name, the server's configuration says for each --authority

Mail clients that want key and certificate in one file take what 'postern
workstation export --certificate DIR/NAME.crt --key DIR/NAME.key' makes.`,
		Example: `  postern workstation add pune-07 --csr pune-07.csr --class hardware --site Pune --out pune-07.crt
  postern workstation add laptop-3 --generate-key ./laptop-3 --group night-shift
  postern workstation add goa-11 --authority head-office --certificate-name goa-11.corp.example`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("out") && f.csr == "" {
				return usagef("--out is for the certificate that a --csr gets")
			}
			if f.generate != "" {
				return f.addWithNewKey(cmd, a, args[0])
			}
			return f.add(cmd, a, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.csr, "csr", "", "a PKCS #10 request in PEM")
	flags.StringVar(&f.certificate, "certificate", "", "a certificate in PEM")
	flags.StringVar(&f.generate, "generate-key", "", "make a key in this `directory`")
	flags.StringSliceVar(&f.pins, "key-pin", nil, "a key's SHA-256 `hash`, in hex; may be repeated")
	flags.StringVar(&f.class, "class", string(broker.ClassSoftware), "how well the key is kept: hardware (TPM or system store, not exportable) or software (a file)")
	flags.StringVar(&f.site, "site", "", "bind it to a `site`'s networks")
	flags.StringSliceVar(&f.groups, "group", nil, "a `group` that app passwords can be limited to; may be repeated")
	flags.StringVar(&f.agent, "agent", "", agentHelp)
	registerCertificateName(cmd, &f.named, "")
	flags.StringVar(&f.saveTo, "out", "", "write the certificate into this `file` (without it: to standard output)")
	cmd.MarkFlagsOneRequired("csr", "certificate", "generate-key", "key-pin", "certificate-name")
	cmd.MarkFlagsMutuallyExclusive("csr", "certificate", "generate-key", "key-pin")
	return cmd
}

func (f *workstationFlags) input(name string) httpapi.WorkstationInput {
	in := httpapi.WorkstationInput{
		Name: name, Class: broker.WorkstationClass(f.class),
		Site: f.site, Groups: f.groups, KeyPins: f.pins, Agent: f.agent,
	}
	if f.named != (httpapi.CertificateNameInput{}) {
		in.CertificateName = &f.named
	}
	return in
}

// registerCertificateName adds the flags for a name in a company's certificates.
func registerCertificateName(cmd *cobra.Command, in *httpapi.CertificateNameInput, more string) {
	cmd.Flags().StringVar(&in.Name, "certificate-name", "", "its `name` in certificates of a company's own CA"+more)
	cmd.Flags().StringVar(&in.Authority, "authority", "", "which `CA` that is, as the server's configuration calls it (without: the only one)")
}

const agentHelp = "whose machine it is: this `agent` may sign in by its certificate alone"

func (f *workstationFlags) add(cmd *cobra.Command, a *app, name string) error {
	if err := checkOut(f.saveTo); err != nil {
		return err
	}
	in := f.input(name)
	var err error
	if in.CSR, err = readOptional("csr", f.csr); err != nil {
		return err
	}
	if in.Certificate, err = readOptional("certificate", f.certificate); err != nil {
		return err
	}
	raw, created, err := call[httpapi.WorkstationCreated](cmd, a, http.MethodPost, path("workstations"), in)
	if err != nil {
		return err
	}
	if f.saveTo != "" {
		if err := writeNew(f.saveTo, []byte(created.Certificate), 0o644); err != nil {
			return fmt.Errorf("the workstation is added, but its certificate was not saved; remove and add it again: %w", err)
		}
	}
	return a.show(cmd, raw, func(out io.Writer) {
		writeWorkstation(out, &created.Workstation, "Certificate", f.saveTo)
		if f.saveTo == "" {
			fmt.Fprint(out, created.Certificate)
		}
	})
}

// checkOut refuses a file that is there, before a certificate is asked for.
func checkOut(file string) error {
	if _, err := os.Lstat(file); file != "" && !errors.Is(err, fs.ErrNotExist) {
		return usagef("--out: %s is there already", file)
	}
	return nil
}

func readOptional(flag, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", usagef("--%s: %v", flag, err)
	}
	return string(text), nil
}

// writeWorkstation prints a workstation, and more fields below it.
func writeWorkstation(out io.Writer, w *httpapi.Workstation, more ...string) {
	site := w.Site
	if w.SiteID == "" {
		site = "any (it may roam)"
	}
	name := "none"
	if n := w.CertificateName; n != nil {
		name = n.Name + " (" + n.Authority + ")"
	}
	tpm := w.TPM
	if tpm == "" {
		tpm = "not proved"
	}
	fields := []string{
		"Workstation", w.Name, "Class", string(w.Class), "Site", site, "Groups", list(w.Groups),
		"Agent", nameOr(w.Agent, w.AgentID), "Key pins", list(w.KeyPins), "TPM", tpm, "Certificate name", name, "Created", stamp(w.CreatedAt), "Id", string(w.ID),
	}
	writeFields(out, append(fields, more...)...)
}

func newWorkstationListCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List workstations",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, all, err := call[httpapi.List[*httpapi.Workstation]](cmd, a, http.MethodGet, path("workstations"), nil)
			if err != nil {
				return err
			}
			return a.show(cmd, raw, func(out io.Writer) {
				var rows [][]string
				for _, w := range all.Items {
					rows = append(rows, []string{w.Name, string(w.Class), nameOr(w.Site, w.SiteID), list(w.Groups), string(w.ID)})
				}
				writeTable(out, []string{"NAME", "CLASS", "SITE", "GROUPS", "ID"}, rows,
					"There are no workstations. Add one with 'postern workstation add NAME'.")
			})
		},
	}
}

func newWorkstationShowCommand(a *app) *cobra.Command {
	return newShowCommand(a, showCommand[httpapi.Workstation]{
		use: "show WORKSTATION", short: "Show a workstation",
		example: "  postern workstation show pune-07",
		path:    func(arg string) string { return path("workstations", arg) },
		write:   func(out io.Writer, w *httpapi.Workstation) { writeWorkstation(out, w) },
	})
}

func newWorkstationUpdateCommand(a *app) *cobra.Command {
	var name, site, agent string
	var groups []string
	var named httpapi.CertificateNameInput
	cmd := &cobra.Command{
		Use:   "update WORKSTATION",
		Short: "Change a workstation; sessions that it can no longer open end",
		Long: `Change a workstation; what no flag names stays as it is. A certificate that it has
bears its old name and stays good. For a new certificate or key, see
'postern workstation renew'.`,
		Example: `  postern workstation update pune-07 --site Pune --group day --group night
  postern workstation update pune-07 --name goa-01 --site ""
  postern workstation update pune-07 --agent asha`,
		Args: exactly("WORKSTATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch httpapi.WorkstationPatch
			if cmd.Flags().Changed("name") {
				patch.Name = &name
			}
			if cmd.Flags().Changed("site") {
				patch.Site = &site
			}
			if cmd.Flags().Changed("group") {
				patch.Groups = &groups
			}
			if cmd.Flags().Changed("agent") {
				patch.Agent = &agent
			}
			if cmd.Flags().Changed("certificate-name") {
				if patch.CertificateName = &named; named.Name == "" {
					patch.CertificateName = &httpapi.CertificateNameInput{}
				}
			}
			if patch == (httpapi.WorkstationPatch{}) {
				return usagef("nothing to change: give --name, --site, --group, --agent or --certificate-name")
			}
			raw, updated, err := call[httpapi.WorkstationUpdated](cmd, a, http.MethodPatch, path("workstations", args[0]), patch)
			if err != nil {
				return err
			}
			return a.showUpdated(cmd, raw, "workstation changed", updated.Ended, func(out io.Writer) { writeWorkstation(out, &updated.Workstation) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "a new `name`")
	cmd.Flags().StringVar(&site, "site", "", "bind it to a `site`'s networks (empty: it may roam)")
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a `group` that app passwords can be limited to, in place of all before; may be repeated (empty: none)")
	cmd.Flags().StringVar(&agent, "agent", "", agentHelp+" (empty: nobody may)")
	registerCertificateName(cmd, &named, " (empty: none any more)")
	return cmd
}

func newWorkstationRemoveCommand(a *app) *cobra.Command {
	return newEndingCommand(a, endingCommand{
		use: "remove WORKSTATION", short: "Remove a workstation, ending its sessions",
		example: "  postern workstation remove pune-07", question: "Remove the workstation %s?",
		method: http.MethodDelete, path: func(arg string) string { return path("workstations", arg) },
		done: "workstation %s removed",
	})
}
