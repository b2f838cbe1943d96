// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"

	"go.uber.org/zap"
)

// serviceManager tells systemd, or what speaks its protocol, how the server
// fares (sd_notify(3), Type=notify). Without NOTIFY_SOCKET it tells nobody.
type serviceManager struct {
	socket string
	logger *zap.Logger
}

func newServiceManager(logger *zap.Logger) *serviceManager {
	return &serviceManager{socket: os.Getenv("NOTIFY_SOCKET"), logger: logger}
}

func (m *serviceManager) ready() { m.tell("READY=1") }

// reloading is followed by ready.
func (m *serviceManager) reloading() { m.tell("RELOADING=1") }

func (m *serviceManager) stopping() { m.tell("STOPPING=1") }

// tell sends one datagram. A manager that does not take it takes its own
// measures: there is nothing to be done here but to say so.
func (m *serviceManager) tell(state string) {
	if m.socket == "" {
		return
	}
	// A leading @ is an abstract socket, to package net as well.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte(state))
	}
	if err != nil {
		m.logger.Warn("the service manager was not told", zap.String("state", state), zap.Error(err))
	}
}
