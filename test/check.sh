#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Static checks. Prints what is wrong and fails; prints nothing else.
set -eu
cd "$(dirname "$0")/.."

unformatted=$(git ls-files '*.go' | xargs go tool -modfile=test/tools/go.mod gofumpt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted (run: go tool -modfile=test/tools/go.mod gofumpt -w FILE):"
	echo "$unformatted"
	exit 1
fi
missing=$(git ls-files '*.go' | xargs grep -L 'SPDX-License-Identifier: Apache-2.0' || true)
if [ -n "$missing" ]; then
	echo "no SPDX line:"
	echo "$missing"
	exit 1
fi
go vet ./...
go tool -modfile=test/tools/go.mod staticcheck ./...
