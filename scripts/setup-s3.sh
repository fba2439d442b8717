#!/usr/bin/env bash
# Builds the S3 server of the tests, versitygw, from its module at the pinned version to $deps/bin/versitygw. It is a program of its own: nothing of it is in go.mod.
. "$(dirname "$0")/lib.sh"

module=github.com/versity/versitygw
version=v1.8.0
binary=$deps/bin/versitygw
built() { go version -m "$binary" 2>/dev/null | awk '$1 == "mod" { print $2 "@" $3 }'; }

if [ -x "$binary" ] && [ "$(built)" = "$module@$version" ]; then exit 0; fi
say "versitygw $version, the S3 server of the tests"
# Built beside it, then renamed: another run may be using the old one.
tmp=$deps/bin/versitygw.tmp
mkdir -p "$tmp"
step versitygw env GOBIN="$tmp" GOFLAGS=-mod=mod CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "$module/cmd/versitygw@$version"
mv -f "$tmp/versitygw" "$binary"
rmdir "$tmp"
[ "$(built)" = "$module@$version" ] || die "$binary says that it is $(built)"
