#!/usr/bin/env bash
# Runs every fuzz target for a time: fuzz.sh [TIME]
. "$(dirname "$0")/lib.sh"
cd "$repo"
time=${1:-1m}
grep -rl --include='*_test.go' '^func Fuzz' . | sort | while read -r f; do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$f"); do
		say "$target in $(dirname "$f") for $time"
		go test "$(dirname "$f")" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
	done
done
