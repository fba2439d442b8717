#!/usr/bin/env bash
# gofmt, go vet, golangci-lint (built once from its module, at the pinned version, into $deps/bin), and mypy where it is installed.
. "$(dirname "$0")/lib.sh"
cd "$repo"

version=v2.5.0
unformatted=$(gofmt -l $(git ls-files '*.go'))
[ -z "$unformatted" ] || die "gofmt would change:"$'\n'"$unformatted"
go vet ./...
linter=$deps/bin/golangci-lint-$version
if [ ! -x "$linter" ]; then
	mkdir -p "$deps/bin"
	step golangci-lint env GOBIN="$deps/bin" GOFLAGS=-mod=mod go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
	mv "$deps/bin/golangci-lint" "$linter"
fi
"$linter" run ./...
python=$(python_with mypy)
if [ -n "$python" ]; then
	(cd python && "$python" -m mypy --cache-dir=/dev/null --config-file pyproject.toml)
else
	warn "no mypy: the types of the Python package are not checked (apt-get install python3-mypy)"
fi
