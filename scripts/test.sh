#!/usr/bin/env bash
# Runs the tests: test.sh [-race] [PACKAGE...]; without packages all, those of the Python package too. Installs what they need first, as far as it can, and says what it left out.
. "$(dirname "$0")/lib.sh"
cd "$repo"

race=()
if [ "${1:-}" = -race ]; then race=(-race); shift; fi
packages=("$@")
all=
[ ${#packages[@]} -gt 0 ] || { packages=(./...); all=1; }

command -v go >/dev/null || die "Go is needed to build the tests: see go.mod for the version"
if [ "$(id -u)" -eq 0 ]; then
	make -s test-deps
	# Nothing may be left out on a machine that has been set up: a missing piece is a failure, not a skip.
	export THAW_REQUIRE=${THAW_REQUIRE:-1}
else
	warn "not root: the tests of real restores, userfaultfd and containers are left out; run 'sudo make test' for all of them"
fi
export THAW_CRIU=${THAW_CRIU:-$deps/bin/criu} THAW_ROOTFS=${THAW_ROOTFS:-$deps/rootfs}

# The Python package first: its tests take seconds, and the summary of the others is to be the last thing to see.
if [ -n "$all" ]; then
	python=$(python_with pytest)
	if [ -n "$python" ]; then
		PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=python "$python" -m pytest -q -c python/pyproject.toml --rootdir python python/tests
	elif [ -n "${THAW_REQUIRE:-}" ]; then
		die "there is no pytest for the tests of the Python package: apt-get install python3-pytest"
	else
		warn "no pytest: the tests of the Python package are left out (apt-get install python3-pytest)"
	fi
fi

# One package at a time: the end-to-end tests restore processes of hundreds of MiB, and two cores are few.
exec go tool gotestsum --format pkgname-and-test-fails -- "${race[@]}" -p 1 -timeout 20m -count=1 "${packages[@]}"
