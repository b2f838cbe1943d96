# SPDX-License-Identifier: Apache-2.0

GO ?= go
FUZZTIME ?= 1m
FUZZ ?= .
BENCHFLAGS ?=
SOAK_HOURS ?= 24

.PHONY: demo check test bench fuzz soak

# Everything embedded, on this machine alone: see the account settings it prints.
demo:
	$(GO) run ./cmd/postern demo

# What needs no server: format, vet, staticcheck.
check:
	test/check.sh

# Every test, real servers and mail clients included; installs what is missing
# on Debian, for which it must be root.
test:
	test/install.sh
	test/run.sh

# Postern's figures beside nginx's and Dovecot's, in one run: as root, on a
# machine that does nothing else. BENCHFLAGS=-quick takes minutes.
bench:
	test/install.sh
	$(GO) run ./test/bench $(BENCHFLAGS)

# Each fuzz target in turn, or those that FUZZ matches, for FUZZTIME.
fuzz:
	test/fuzz.sh $(FUZZTIME) '$(FUZZ)'

# So many hours' work of 50 agents, without its pauses: some ten minutes for a
# day, on a machine that does little else. As root, like test.
soak:
	test/install.sh
	SOAK_HOURS=$(SOAK_HOURS) $(GO) test -count=1 -timeout 1h -v -run '^TestSoak$$' ./test/faults
