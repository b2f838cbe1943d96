#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzz target for the time given, such as 20m, one after the other,
# and says at the end what came of each. A second argument picks targets:
# test/fuzz.sh 5m 'FuzzLexer|FuzzFilter'. Inputs that fail are left in
# testdata/fuzz beside the target: keep them with what mends them.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m}
pick=${2:-.}

summary=$(mktemp)
log=$(mktemp)
trap 'rm -f "$summary" "$log"' EXIT
git grep -o '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' | sed 's/func //' | grep -E ":($pick)" | sort >"$summary.list"
trap 'rm -f "$summary" "$summary.list" "$log"' EXIT
if [ ! -s "$summary.list" ]; then
	echo "no fuzz target is called $pick: it is an extended regular expression for how a name begins, such as FuzzLexer" >&2
	exit 1
fi
failed=0
while IFS=: read -r file target; do
	dir=$(dirname "$file")
	echo "== $dir $target"
	result=pass
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x "./$dir" >"$log" 2>&1 || result=FAIL failed=1
	if [ "$result" = FAIL ]; then cat "$log"; fi
	last=$(grep '^fuzz: elapsed' "$log" | tail -n 1 | sed 's/^fuzz: //; s/ ([0-9]*\/sec)//')
	echo "$result $dir $target: $last" | tee -a "$summary"
done <"$summary.list"
echo
cat "$summary"
exit $failed
