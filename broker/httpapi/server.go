// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"go.uber.org/zap"
)

// Server serves the API on listeners, each with the time limits of this
// package.
type Server struct {
	handler http.Handler
	logger  *zap.Logger
	// uid is the user beside root who may use Unix sockets.
	uid uint32
}

// NewServer returns a server for New's handler.
//
// Peers of a Unix socket are told from the kernel's word: root and the
// server's own user are the BPO's admins unless they show a token of somebody
// else's, anyone else is nobody. Over another kind of listener, which must be
// TLS's, a token is all that counts.
func NewServer(handler http.Handler, logger *zap.Logger) (*Server, error) {
	if handler == nil || logger == nil {
		return nil, errors.New("httpapi: NewServer needs a handler and a logger")
	}
	return &Server{handler: handler, logger: logger, uid: uint32(os.Geteuid())}, nil
}

// Serve answers requests on l until ctx ends; then it lets running requests
// end for up to 10 s, and closes what is left. It closes l. The error is nil
// when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	errorLog, err := zap.NewStdLogAt(s.logger, zap.WarnLevel)
	if err != nil {
		return errors.Join(fmt.Errorf("httpapi: %w", err), l.Close())
	}
	server := &http.Server{
		Handler:           s.handler,
		ConnContext:       s.origin,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("httpapi: %w", err), server.Close())
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	err = server.Shutdown(bounded)
	if err != nil {
		s.logger.Warn("management requests were cut off by the stop", zap.Error(err))
		err = server.Close()
	}
	<-served
	return err
}
