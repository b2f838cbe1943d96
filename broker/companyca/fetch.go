// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"
)

const (
	// DefaultInterval is how often a URL is asked when the configuration does not
	// say; retryInterval how soon after a failure, if that is sooner.
	DefaultInterval = 10 * time.Minute
	retryInterval   = time.Minute
	// fetchTimeout bounds one request.
	fetchTimeout = time.Minute
	// clockInterval is how often lists are compared with the clock.
	clockInterval = time.Second
	// pollInterval is how often files are read that cannot be watched.
	pollInterval = 5 * time.Second
)

// fetchAll asks a URL again and again, until ctx ends.
func (s *CAs) fetchAll(ctx context.Context, c *source) {
	client := &http.Client{
		Timeout: fetchTimeout,
		// A list is where the configuration says, or it is not there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DisableKeepAlives: true},
	}
	for {
		wait := c.authority.Revocation.Interval
		if err := s.fetch(ctx, client, c); err != nil && ctx.Err() == nil {
			wait = min(wait, retryInterval)
			s.metrics.failures.WithLabelValues(c.authority.Name).Inc()
			s.logger.Error("a revocation list was not fetched; the one before stays",
				zap.String("authority", c.authority.Name), zap.String("url", c.url), zap.Error(err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// fetch asks once. The list's signature makes it good, not the way that it came.
func (s *CAs) fetch(ctx context.Context, client *http.Client, c *source) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	b, err := io.ReadAll(io.LimitReader(response.Body, s.config.MaxList+1))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.take(c, b); err != nil {
		return err
	}
	return c.keep(b, s.config.MaxList)
}
