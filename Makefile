# SPDX-License-Identifier: Apache-2.0

GO ?= go
FUZZTIME ?= 1m
BENCHFLAGS ?=

.PHONY: demo check test bench fuzz

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

# Each fuzz target in turn, for FUZZTIME.
fuzz:
	test/fuzz.sh $(FUZZTIME)
