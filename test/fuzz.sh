#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzz target for the time given, such as 20m.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m}

git grep -l '^func Fuzz' -- '*_test.go' | while read -r file; do
	dir=$(dirname "$file")
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x "./$dir"
	done
done
