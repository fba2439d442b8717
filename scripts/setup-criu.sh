#!/usr/bin/env bash
# Puts a CRIU that is new enough at $deps/bin/criu: the system's where it is 4.2 or newer, else Debian sid's
# packages, unpacked to a folder of their own and run through their own loader (their libc is newer than the
# system's, so the binary cannot run by itself).
. "$(dirname "$0")/lib.sh"

want=4.2
criu_version() { "$1" --version 2>/dev/null | sed -n 's/^Version: *//p'; }
new_enough() { [ -n "$1" ] && [ "$(printf '%s\n' "$want" "$1" | sort -V | head -n1)" = "$want" ]; }

mkdir -p "$deps/bin"
wrapper=$deps/bin/criu
if [ -x "$wrapper" ] && new_enough "$(criu_version "$wrapper")"; then exit 0; fi

for system in /usr/sbin/criu /usr/local/sbin/criu /usr/bin/criu; do
	if [ -x "$system" ] && new_enough "$(criu_version "$system")"; then
		ln -sfn "$system" "$wrapper"
		say "CRIU $(criu_version "$system") of the system"
		exit 0
	fi
done

need_root "setting up CRIU" "unpacks Debian packages with mmdebstrap"
[ "$(dpkg --print-architecture)" = amd64 ] || die "CRIU is set up for amd64 only; install CRIU >= $want by hand"
tree=$deps/criu
rm -rf --one-file-system "$tree"
say "CRIU >= $want: Debian sid's packages, unpacked to $tree"
mirror=${THAW_MIRROR:-$(debian_mirror)}
# A bad signature stays an error.
valid=()
until=$(sid_expired "$mirror")
if [ -n "$until" ]; then
	warn "the mirror's index of sid expired on $until; its signature is still checked, its age is not"
	valid=(--aptopt='Acquire::Check-Valid-Until "false"')
fi
step criu mmdebstrap --variant=extract --include=criu --format=directory "${valid[@]}" sid "$tree" "$mirror"

binary=$tree/usr/sbin/criu
loader=$tree/usr/lib64/ld-linux-x86-64.so.2
[ -x "$binary" ] && [ -x "$loader" ] || die "the unpacked packages hold no CRIU or no loader: look into $tree"
# CRIU execs itself through /proc/self/exe in some modes; none of those is used by dump, restore, check or swrk.
cat >"$wrapper.tmp" <<WRAP
#!/bin/sh
exec '$loader' --library-path '$tree/usr/lib/x86_64-linux-gnu' '$binary' "\$@"
WRAP
chmod 755 "$wrapper.tmp"
mv "$wrapper.tmp" "$wrapper"
v=$(criu_version "$wrapper")
new_enough "$v" || die "the unpacked CRIU says version '$v', and $want or newer is needed"
say "CRIU $v ready"
