# Shared by the set-up scripts: where things are kept, and how they speak.
# Sourced, not run.

set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that set-up downloads or unpacks lies below this folder, and nothing else does,
# so that removing it (make clean-deps) leaves the machine as it was, system packages apart.
deps=${THAW_DEPS:-$repo/.deps}

say()  { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
warn() { printf 'thaw: warning: %s\n' "$*" >&2; }
die()  { printf 'thaw: %s\n' "$*" >&2; exit 1; }

# step NAME COMMAND...: runs a long command, shows how long it has been running, keeps its output in
# $deps/log/NAME.log and shows the end of that output if the command fails.
step() {
	local name=$1; shift
	mkdir -p "$deps/log"
	local log=$deps/log/$name.log start=$SECONDS rc=0
	"$@" >"$log" 2>&1 &
	local pid=$!
	while kill -0 "$pid" 2>/dev/null; do
		if [ -t 2 ]; then printf '\r    %s: %ds ' "$name" $((SECONDS - start)) >&2; fi
		# Wait for the command, or a second, whichever is first.
		timeout 1 tail --pid="$pid" -f /dev/null 2>/dev/null || true
	done
	wait "$pid" || rc=$?
	if [ -t 2 ]; then printf '\r' >&2; fi
	if [ $rc -ne 0 ]; then
		tail -n 25 "$log" >&2
		die "$name failed (exit $rc); the whole output is in $log"
	fi
	printf '    %s: done in %ds\n' "$name" $((SECONDS - start)) >&2
}

# python_with MODULE: a Python that has a module: the one on the path, or Debian's, whose packages set-up installs. Nothing if neither has.
python_with() {
	local python
	for python in python3 /usr/bin/python3; do
		if command -v "$python" >/dev/null && "$python" -c "import $1" 2>/dev/null; then printf '%s\n' "$python"; return; fi
	done
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "$1 needs root: it $2. Run it again as root (for example: sudo make ...)."
}

# debian_mirror: the archive this machine already trusts, read from its own apt configuration.
debian_mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $3 == "main" && $2 !~ /security/ { print $2; exit }')
	[ -n "$uri" ] || die "apt knows no Debian archive: run 'apt-get update' first, or set THAW_MIRROR to one"
	printf '%s\n' "${uri%/}"
}

# sid_expired MIRROR: since when the mirror's index of Debian sid has been out of date; nothing if it is not. The index is
# valid for a week. A mirror that lags behind is still signed by Debian, only not fresh.
sid_expired() {
	local until
	until=$(curl -fsS "$1/dists/sid/InRelease" 2>/dev/null | sed -n 's/^Valid-Until: //p' || true)
	if [ -n "$until" ] && [ "$(date -d "$until" +%s)" -lt "$(date +%s)" ]; then printf '%s\n' "$until"; fi
}
