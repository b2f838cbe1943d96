// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/proxy/connect"
)

// Where workstation connect listens, unless it is told otherwise: ports that
// need no privilege.
const (
	defaultLocalIMAP       = "127.0.0.1:1143"
	defaultLocalSubmission = "127.0.0.1:1587"
	defaultIMAPSPort       = "993"
	defaultSubmissionsPort = "465"
)

// connectFlags are those of workstation connect.
type connectFlags struct {
	dir, certificate, key        string
	imapServer, submissionServer string
	listenIMAP, listenSubmission string
	beyondLoopback, anyUser      bool
	connections                  int
}

func newWorkstationConnectCommand(a *app) *cobra.Command {
	var f connectFlags
	cmd := &cobra.Command{
		Use:   "connect",
		Short: "Carry this machine's mail clients to Postern",
		Long: `Carry this machine's mail clients to Postern, with the workstation's key. Mail
clients connect to this machine without encryption, and need not know of client
certificates:

  IMAP        127.0.0.1, port 1143, connection security: none
  submission  127.0.0.1, port 1587, connection security: none

with the mailbox's address as user name and the app password, sent as normal
password. What leaves the machine is encrypted, and Postern's certificate is
verified. It runs until it is interrupted; deployments/systemd has a unit of the
user's own.

The key is the one that 'postern workstation enrol' made, or that of
--certificate and --key. On Linux, only connections of the user who runs it are
carried.`,
		Example: `  postern workstation connect
  postern workstation connect --certificate pune-07.crt --key pune-07.key --ca ca.pem \
      --imap-server mail.bpo.example:993 --submission-server mail.bpo.example:465`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, a) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultProfileDir(), "the `directory` that 'workstation enrol' made")
	flags.StringVar(&f.certificate, "certificate", "", "the workstation's certificate in PEM, in this `file`, in place of the directory's")
	flags.StringVar(&f.key, "key", "", "its key in PEM, in this `file` of mode 0600")
	flags.StringVar(&f.imapServer, "imap-server", "", "Postern's `HOST[:PORT]` for IMAP with TLS (without it: the enrolled server's, port 993)")
	flags.StringVar(&f.submissionServer, "submission-server", "", "Postern's `HOST[:PORT]` for submission with TLS (without it: the enrolled server's, port 465)")
	flags.StringVar(&f.listenIMAP, "listen-imap", defaultLocalIMAP, "where mail clients find IMAP (empty: nowhere)")
	flags.StringVar(&f.listenSubmission, "listen-submission", defaultLocalSubmission, "where mail clients find submission (empty: nowhere)")
	flags.BoolVar(&f.beyondLoopback, "beyond-loopback", false, "allow an address that other machines can reach; app passwords then cross the network in plain text")
	flags.BoolVar(&f.anyUser, "any-user", false, "carry connections of other users of this machine too")
	flags.IntVar(&f.connections, "connections", connect.DefaultConnections, "how many connections to carry at once, for each of the two")
	cmd.MarkFlagsRequiredTogether("certificate", "key")
	return cmd
}

func (f *connectFlags) run(cmd *cobra.Command, a *app) error {
	hardened := harden()
	logger, err := newLogger(LogConfig{Level: defaultLogLevel, Format: "console"}, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if hardened != nil {
		logger.Warn("memory is less protected than it could be", zap.Error(hardened))
	}
	w, err := f.workstation(a)
	if err != nil {
		return err
	}
	if _, err := w.identity(); err != nil {
		return err
	}
	var forwarders []*connect.Forwarder
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // closed already by a forwarder that ran
		}
	}()
	for _, leg := range []struct {
		protocol       connect.Protocol
		flag, listen   string
		server, port   string
		enrolledServer string
	}{
		{connect.IMAP, "imap", f.listenIMAP, f.imapServer, defaultIMAPSPort, w.MailServer},
		{connect.Submission, "submission", f.listenSubmission, f.submissionServer, defaultSubmissionsPort, w.MailServer},
	} {
		if leg.listen == "" {
			continue
		}
		server := withPort(leg.server, leg.port)
		if leg.server == "" {
			server = withPort(leg.enrolledServer, leg.port)
		}
		if server == "" {
			return usagef("--%s-server is missing: name Postern's HOST:PORT", leg.flag)
		}
		if !f.beyondLoopback && !connect.Loopback(leg.listen) {
			return usagef("--listen-%s %s can be reached by other machines, and app passwords would cross the network in plain text: use 127.0.0.1 or, if you must, --beyond-loopback", leg.flag, leg.listen)
		}
		l, err := net.Listen("tcp", leg.listen)
		if err != nil {
			return fmt.Errorf("--listen-%s: %w", leg.flag, err)
		}
		listeners = append(listeners, l)
		forwarder, err := connect.New(connect.Config{
			Protocol: leg.protocol, Listener: l, Server: server, Roots: w.roots, Identity: w.identity,
			AnyUser: f.anyUser, Connections: f.connections, Logger: logger.Named(string(leg.protocol)),
		})
		if err != nil {
			return err
		}
		forwarders = append(forwarders, forwarder)
		fmt.Fprintf(cmd.OutOrStdout(), "%-10s  %s -> %s\n", leg.protocol, l.Addr(), server)
	}
	if len(forwarders) == 0 {
		return usagef("nothing to carry: give --listen-imap or --listen-submission")
	}
	renew := func(context.Context) error { return nil }
	if f.certificate == "" {
		renew = (&connect.Renewer{
			Identity: w.identity,
			Renew:    func(ctx context.Context) error { return w.renewed(ctx, a) },
			Logger:   logger.Named("certificate"),
		}).Run
	}
	return runAll(cmd.Context(), forwarders, renew)
}

// runAll runs forwarders until one fails or ctx ends, and renew beside them.
func runAll(ctx context.Context, forwarders []*connect.Forwarder, renew func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make([]error, len(forwarders)+1)
	var running sync.WaitGroup
	running.Go(func() { failed[len(forwarders)] = renew(ctx) })
	for i, f := range forwarders {
		running.Go(func() {
			defer cancel()
			failed[i] = f.Run(ctx)
		})
	}
	running.Wait()
	return errors.Join(failed...)
}

// withPort adds a port where an address has none.
func withPort(address, port string) string {
	if address == "" {
		return ""
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, port)
}

// workstation finds the key to work with.
func (f *connectFlags) workstation(a *app) (*localWorkstation, error) {
	if f.certificate == "" {
		w, err := loadProfile(f.dir)
		if err != nil || a.ca == "" {
			return w, err
		}
		w.roots, err = readRoots(a.ca)
		return w, err
	}
	w := &localWorkstation{certificateFile: f.certificate, keyFile: f.key}
	if a.ca == "" {
		return w, nil
	}
	var err error
	w.roots, err = readRoots(a.ca)
	return w, err
}

// readRoots reads what verifies Postern's certificate.
func readRoots(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("--ca: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, usagef("--ca: %s holds no certificate in PEM form", file)
	}
	return roots, nil
}
