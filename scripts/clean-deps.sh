#!/usr/bin/env bash
# Removes everything that set-up made. A failed restore can leave bind mounts, of this machine's root file system even,
# below these folders: nothing is deleted while something is mounted there.
. "$(dirname "$0")/lib.sh"

mounted=$(awk -v d="$deps/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo)
[ -z "$mounted" ] || die "still mounted, unmount first:"$'\n'"$mounted"
[ -d "$deps" ] || exit 0
rm -rf --one-file-system "$deps"
say "removed $deps; these system packages stay, remove them with apt-get if nothing else needs them: runc mmdebstrap podman, and those that scripts/zdtm.sh names"
