#!/usr/bin/env bash
# Runs uffdbench and keeps what it measured: bench.sh [FLAG...]. The flags are those of "uffdbench run", which docs/cli
# lists.
. "$(dirname "$0")/lib.sh"
cd "$repo"

[ "$(id -u)" -eq 0 ] || die "the benchmarks fault in processes of their own, which needs root: run 'sudo make bench'"
if [ -x "$deps/bin/criu" ]; then export THAW_CRIU=${THAW_CRIU:-$deps/bin/criu}; fi
out=out/bench
for flag in "$@"; do
	# A run that says nothing about speed must not replace one that does.
	if [ "$flag" = --quick ]; then out=out/bench-smoke; fi
done
mkdir -p "$out"
bin/uffdbench run --json "$out/run.json" --html "$out/report.html" "$@" >"$out/run.txt"
echo "report: $out/report.html; for benchstat: $out/run.txt; for uffdbench compare: $out/run.json"
