#!/usr/bin/env bash
# Installs Debian packages that are missing: setup-system.sh PACKAGE...
. "$(dirname "$0")/lib.sh"

missing=()
for p in "$@"; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || die "these Debian packages are needed and there is no apt-get: ${missing[*]}"
need_root "installing packages" "runs apt-get install ${missing[*]}"
say "system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
step apt-update apt-get update
step apt-install apt-get install -y --no-install-recommends "${missing[@]}"
