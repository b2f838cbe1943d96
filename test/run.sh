#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every test. The packages that start real servers run one at a time:
# they share the machine's memory and its clock.
set -eu
cd "$(dirname "$0")/.."

echo "building Postern and its dependencies"
go build ./...
echo "building HashiCorp Vault's core for the tests (minutes, the first time)"
(cd test/vaultd && go build -o /dev/null .)
go test -timeout 20m -p 1 ./...
