# SPDX-License-Identifier: Apache-2.0

GO ?= go
FUZZTIME ?= 1m

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

# Benchmarks: medians beside each other, in one run.
bench:
	$(GO) test -run '^$$' -bench . -benchtime 1s ./policy/... ./proxy/... ./broker/...

# Each fuzz target in turn, for FUZZTIME.
fuzz:
	test/fuzz.sh $(FUZZTIME)
