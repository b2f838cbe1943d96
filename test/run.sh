#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test. What needs minutes says so first.
set -eu
cd "$(dirname "$0")/.."

step() { printf '\n== %s  %s\n' "$(date -u +%H:%M:%S)" "$1"; }

step "building Postern"
go build ./...
step "building HashiCorp Vault's core for the tests (minutes, the first time)"
go test -timeout 30m -run '^TestVaultBuilds$' ./test/servers
# One package at a time: real servers share the machine's memory and clock.
step "running the tests"
go test -timeout 40m -p 1 ./...
step "all tests passed"
