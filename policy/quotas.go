// SPDX-License-Identifier: Apache-2.0

package policy

// Quotas limit what is opened under one assignment, over all its sessions.
type Quotas struct {
	// Messages whose bodies are opened, Octets of those bodies, and Headers:
	// messages of which header fields alone are.
	Messages Rate `json:"messages,omitzero"`
	Octets   Rate `json:"octets,omitzero"`
	Headers  Rate `json:"headers,omitzero"`
}

// Rate is a limit for an hour and one for a day; 0: none.
type Rate struct {
	Hour int64 `json:"hour,omitempty"`
	Day  int64 `json:"day,omitempty"`
}

// IsZero reports whether there is no limit.
func (q Quotas) IsZero() bool { return q == Quotas{} }

// IsZero reports whether there is no limit.
func (r Rate) IsZero() bool { return r == Rate{} }

func (q Quotas) validate() (field, reason string) {
	for _, r := range []struct {
		name string
		Rate
	}{{"messages", q.Messages}, {"octets", q.Octets}, {"headers", q.Headers}} {
		switch {
		case r.Hour < 0:
			return r.name + ".hour", "is negative"
		case r.Day < 0:
			return r.name + ".day", "is negative"
		case r.Day > 0 && r.Hour > r.Day:
			return r.name + ".hour", "is more than a whole day's"
		}
	}
	return "", ""
}

func (q Quotas) within(inner Quotas) bool {
	return q.Messages.within(inner.Messages) && q.Octets.within(inner.Octets) && q.Headers.within(inner.Headers)
}

func (q Quotas) narrow(inner Quotas) Quotas {
	return Quotas{
		Messages: q.Messages.narrow(inner.Messages),
		Octets:   q.Octets.narrow(inner.Octets),
		Headers:  q.Headers.narrow(inner.Headers),
	}
}

func (r Rate) within(inner Rate) bool {
	// A day's limit limits each hour of it as well.
	return atMost(r.Hour, smaller(inner.Hour, inner.Day)) && atMost(r.Day, inner.Day)
}

func (r Rate) narrow(inner Rate) Rate {
	both := Rate{Hour: smaller(r.Hour, inner.Hour), Day: smaller(r.Day, inner.Day)}
	if both.Day > 0 && both.Hour > both.Day {
		both.Hour = both.Day
	}
	return both
}

// number is what limits are.
type number interface{ ~int | ~int64 }

// smaller returns the smaller of two limits, of which 0 is the largest.
func smaller[N number](a, b N) N {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// atMost reports that inner is no more than outer; 0 is the most.
func atMost[N number](outer, inner N) bool { return outer == 0 || (inner != 0 && inner <= outer) }
