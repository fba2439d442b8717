#!/usr/bin/env bash
# Runs CRIU's own tests, zdtm, with thawd in the place of CRIU's lazy-pages daemon: zdtm.sh [-a] [-f FLAVOR]... [MODE...]
#
# Each test runs twice: with CRIU's daemon, then with ours. What fails with both in the same way is CRIU's or this machine's,
# and so is what fails when CRIU dumps; all else that fails with ours is our failure, and makes the exit code 1. The tests
# are those that have to do with memory, processes and threads; -a takes all that there are (hours). Flavors are CRIU's: h
# on the host, ns in namespaces, uns in a user namespace as well; all by default. Modes, lazy, store and remote by default:
#
#   lazy       the pages come from the images
#   pre        the same, after two dumps in advance: the images have parents
#   store      the images become a snapshot in a store, whose skeleton CRIU restores
#   store-pre  both
#   remote     the pages come from CRIU's page server
#   tls        the same, over TLS
#   migrate    the pages come from a lazy dump
#
# CRIU's sources are fetched from Debian, are used where they lie, and are no part of Thaw.
. "$(dirname "$0")/lib.sh"

tests=(
	static/{env00,cmdlinenv00,busyloop00,wait00,zombie00,zombie01,zombie_leader,pstree,session00,session01}
	static/{child_opened_proc,child_subreaper,child_subreaper_and_reparent,vfork00,stopped,stopped01,stopped03,stopped12}
	static/{futex,futex-rl,pthread00,pthread01,pthread_timers,rseq00,membarrier,sigaltstack,fpu00,fpu01,fpu02}
	static/{maps00,maps01,maps02,maps03,maps04,maps05,maps06,maps09,maps10,maps11,maps12,maps_file_prot,mem-touch,mprotect00}
	static/{grow_map,grow_map02,grow_map03,cow00,cow01,mlock_setuid,thp_disable,uffd-events,unlink_mmap00,unlink_mmap01}
	static/{shm,shm-mp,shmemfd,shmemfd-priv,memfd00,memfd01,memfd02,memfd03,memfd04,vdso01,vdso02,aio00,aio01}
	static/{seccomp_filter_threads,ptrace_sig,timens_for_kids,pidfd_child,selfexe00}
	transition/{fork,fork2,thread-bomb,stack,lazy-thp,maps007,maps008,rseq01,rseq03,pid_reuse,ptrace,shmem,ipc,epoll,file_aio}
	transition/{pipe_loop00,pipe_shared00,file_read,socket_loop00}
)
# Left out, as in CRIU's own runs: maps02 where CRIU has changed flags of mappings by dumping in advance, ptrace_sig where
# the process is in two places at once.
declare -A mode_options=(
	[lazy]="--lazy-pages"
	[pre]="--lazy-pages --pre 2 -x maps02"
	[store]="--lazy-pages"
	[store-pre]="--lazy-pages --pre 2 -x maps02"
	[remote]="--remote-lazy-pages"
	[tls]="--remote-lazy-pages --tls"
	[migrate]="--lazy-migrate -x ptrace_sig"
)
packages=(gcc make pkg-config python3 python3-protobuf python3-yaml protobuf-compiler libprotobuf-dev libcap-dev libaio-dev
	libnl-3-dev libnl-route-3-dev uuid-dev iproute2 iptables procps xz-utils)

all= flavors=() modes=()
while [ $# -gt 0 ]; do
	case $1 in
	-a) all=1 ;;
	-f) flavors+=("$2"); shift ;;
	*) [ -n "${mode_options[$1]:-}" ] || die "no mode $1; there are: ${!mode_options[*]}"; modes+=("$1") ;;
	esac
	shift
done
[ ${#flavors[@]} -gt 0 ] || flavors=(h ns uns)
[ ${#modes[@]} -gt 0 ] || modes=(lazy store remote)

need_root "running CRIU's tests" "freezes and restores processes, and makes namespaces"
[ -x "$repo/bin/thawd" ] && [ -x "$repo/bin/thaw" ] || die "bin/thawd or bin/thaw is missing: make build"
zdtm=$deps/zdtm
mkdir -p "$zdtm"
zdtm=$(cd "$zdtm" && pwd -P)
version=$("$deps/bin/criu" --version | sed -n 's/^Version: *//p')
source=$zdtm/criu-$version
export PATH=/usr/sbin:/usr/bin:/sbin:/bin # the Python that the packages are for

# fetch gets CRIU's sources, of the version that is tested, from Debian sid: through apt, with its check of signatures,
# and with lists of its own.
fetch() {
	local mirror=${THAW_MIRROR:-$(debian_mirror)} apt=$zdtm/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	local options=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$apt/lists"
		-o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
	if [ -n "$(sid_expired "$mirror")" ]; then options+=(-o Acquire::Check-Valid-Until=false); fi
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	printf 'deb-src [signed-by=%s] %s sid main\n' "$keyring" "$mirror" >"$apt/sources.list"
	step zdtm-sources-index apt-get "${options[@]}" update
	(cd "$zdtm" && step zdtm-sources apt-get "${options[@]}" source --download-only --tar-only criu)
	ls "$zdtm"/criu_"$version".orig.tar.* >/dev/null 2>&1 ||
		die "$mirror has no sources of CRIU $version any more: remove $deps/criu and $deps/bin/criu, and run again"
	rm -rf --one-file-system "$source"
	tar -xf "$zdtm"/criu_"$version".orig.tar.* -C "$zdtm"
	[ -e "$source/test/zdtm.py" ] || die "there is no test/zdtm.py in $source"
}

# bindings makes what zdtm.py needs of CRIU's Python package. CRIU's own rules for it want all that CRIU is built with.
bindings() {
	cd "$source"
	local py=lib/pycriu m
	protoc -I=images --python_out=$py images/rpc.proto
	find images -name '*.proto' ! -name rpc.proto -exec protoc -I=images -I=/usr/include --python_out=$py/images {} +
	python3 scripts/magic-gen.py criu/include/magic.h $py/images/magic.py
	for m in "$py"/images/*_pb2.py; do
		m=$(basename "$m" .py)
		[ "$m" = opts_pb2 ] || printf 'from .%s import *\n' "$m"
	done >$py/images/pb.py
	printf '__version__ = "%s"\n' "$version" >$py/version.py
}

# build builds the tests. With -a some may need libraries that are not there: they are left out.
build() {
	local t
	make -C "$source/test/zdtm/lib"
	if [ -n "$all" ]; then
		make -k -j"$(nproc)" -C "$source/test/zdtm/static" all || true
		make -k -j"$(nproc)" -C "$source/test/zdtm/transition" all || true
		return
	fi
	for t in static transition; do
		make -j"$(nproc)" -C "$source/test/zdtm/$t" $(printf '%s\n' "${tests[@]}" | sed -n "s,^$t/,,p")
	done
}

# as_root has the tests run as root where CRIU may not read the limits of other users' processes: without CAP_SYS_RESOURCE.
as_root() {
	cd "$source/test"
	[ -e zdtm.py.as-fetched ] || cp zdtm.py zdtm.py.as-fetched
	local effective=$((16#$(sed -n 's/^CapEff:\t*//p' /proc/self/status)))
	if (((effective >> 24) & 1)); then
		cat zdtm.py.as-fetched >zdtm.py
	else
		warn "without CAP_SYS_RESOURCE the tests run as root, which some of them do not expect"
		sed 's/"18943"/"0"/; s/"58467"/"0"/' zdtm.py.as-fetched >zdtm.py
	fi
}

# set_sysctl NAME VALUE: for the length of the run.
undo=()
set_sysctl() {
	local file=/proc/sys/${1//.//}
	[ -e "$file" ] || return 0
	undo+=("$file" "$(cat "$file")")
	printf '%s\n' "$2" >"$file"
}
clean_up() {
	local i running
	running=$(jobs -p)
	[ -z "$running" ] || kill $running # an interrupt from the terminal does not reach it
	for ((i = 0; i < ${#undo[@]}; i += 2)); do printf '%s\n' "${undo[i + 1]}" >"${undo[i]}"; done
}

# run_zdtm WHO MODE FLAVOR: one run of the suite, with its results in $zdtm/report/MODE-FLAVOR-WHO.
run_zdtm() {
	local report=$zdtm/report/$2-$3-$1 criu=$zdtm/$1/criu select=(-a) status=0
	case $1-$2 in thaw-store*)
		criu=$zdtm/thaw/criu-store
		rm -rf --one-file-system "$zdtm/store"
	esac
	# Each test by its name: zdtm leaves out what is marked as "manual" where it chooses itself.
	[ -n "$all" ] || mapfile -t select < <(printf -- '-t\nzdtm/%s\n' "${tests[@]}")
	rm -rf --one-file-system "$report"
	cd "$source/test"
	TMPDIR=$zdtm/tmp python3 zdtm.py run "${select[@]}" -f "$3" ${mode_options[$2]} --criu-bin "$criu" \
		--pycriu-search-path ../lib --keep-going --ignore-taint -p "$(nproc)" --report "$report" &
	trap "kill $!" INT TERM
	wait $! || status=$?
	# 1 is a test that failed. There is a result for each test in any case.
	[ $status -le 1 ] && [ -s "$report/criu-testreport.tap" ] && [ "$(sed -n 's/^1\.\.//p' "$report/criu-testreport.tap")" = "$(grep -cE '^(not )?ok ' "$report/criu-testreport.tap")" ]
}

# results FILE: "passed NAME", "skipped NAME REASON" or "failed NAME at STEP" for each test of a report.
results() {
	awk '
		/^(not )?ok / { if (failed != "") print "failed " failed " " step; failed = step = "" }
		/^ok / { sub(/^zdtm\//, "", $4); if ($6 == "SKIP") { $1 = "skipped"; $2 = $4; $3 = $4 = $5 = $6 = ""; print } else print "passed " $4 }
		/^not ok / { sub(/^zdtm\//, "", $5); failed = $5 }
		/# Test .* FAIL at .* #/ && failed != "" { step = $0; sub(/.* FAIL/, "", step); sub(/ *#+.*/, "", step) }
		END { if (failed != "") print "failed " failed " " step }' "$1" | tr -s ' ' | LC_ALL=C sort -k2,2
}

"$repo/scripts/setup-system.sh" "${packages[@]}"
[ -e "$source/test/zdtm.py" ] || fetch
[ -e "$source/lib/pycriu/version.py" ] || step zdtm-bindings bindings
step zdtm-build build
as_root
for d in "$zdtm/tmp" "$source/test"; do
	mkdir -p "$d"
	setpriv --reuid 65534 --clear-groups test -x "$d" ||
		die "some tests run as other users, who may not enter $d: set THAW_DEPS to a folder that all may enter"
done
mkdir -p "$zdtm/criu" "$zdtm/thaw" "$zdtm/report"
ln -sfn "$deps/bin/criu" "$zdtm/criu/criu"
cat >"$zdtm/thaw/criu" <<WRAP
#!/bin/sh
[ "\$1" = lazy-pages ] && exec '$repo/bin/thawd' "\$@"
exec '$deps/bin/criu' "\$@"
WRAP
# For the modes with a store: the pages leave the images, for both who read them.
cat >"$zdtm/thaw/criu-store" <<WRAP
#!/bin/bash
set -e
[ "\$1" = lazy-pages ] || [ "\$1" = restore ] || exec '$deps/bin/criu' "\$@"
args=("\$@")
for ((i = 0; i < \$#; i++)); do
	[ "\${args[i]}" != --images-dir ] || at=\$((i + 1))
done
images=\${args[at]}
name=\$(realpath "\$images" | sha256sum | cut -c1-16)
args[at]=$zdtm/store/namespaces/default/snapshots/\$name/skeleton
args+=(--work-dir "\$images")
[ "\$1" = restore ] && exec '$deps/bin/criu' "\${args[@]}"
'$repo/bin/thaw' snapshot rm "\$name" --store '$zdtm/store' --quiet >/dev/null 2>&1 || true # of a process with the same pid
'$repo/bin/thaw' snapshot import "\$images" --name "\$name" --store '$zdtm/store' --quiet
exec '$repo/bin/thawd' "\${args[@]}"
WRAP
chmod 755 "$zdtm/thaw/criu" "$zdtm/thaw/criu-store"

trap clean_up EXIT
set_sysctl vm.unprivileged_userfaultfd 1 # restores in user namespaces
[ "$(cat /proc/sys/fs/pipe-max-size)" -ge 4194304 ] || set_sysctl fs.pipe-max-size 4194304 # CRIU's page server
set_sysctl vm.nr_hugepages "$(cat /proc/sys/vm/nr_hugepages)" # zdtm sets it, and does not put it back when it is stopped

summary=$zdtm/report/summary
: >"$summary"
for mode in "${modes[@]}"; do
	case $mode in *pre)
		if ! "$deps/bin/criu" check --feature mem_dirty_track >/dev/null 2>&1; then
			warn "mode $mode is left out: this kernel does not track which pages are written to, which dumps in advance need"
			continue
		fi
	esac
	for flavor in "${flavors[@]}"; do
		for who in criu thaw; do
			step "zdtm-$mode-$flavor-$who" run_zdtm "$who" "$mode" "$flavor"
			results "$zdtm/report/$mode-$flavor-$who/criu-testreport.tap" >"$zdtm/report/$mode-$flavor-$who.results"
		done
		LC_ALL=C join -j 2 "$zdtm/report/$mode-$flavor-thaw.results" "$zdtm/report/$mode-$flavor-criu.results" |
			sed "s/^/$mode $flavor /" >>"$summary"
	done
done

# A line of the summary is: mode, flavor, test, result with thawd and why, result with CRIU's daemon and why.
say "CRIU $version's tests with thawd lazy-pages"
awk '
	function list(kind, what) { lists[kind] = lists[kind] "\n  " what }
	{
		run = $1 " " $2; got = $4; test = run " " $3; why = want = ""
		if (!(run in seen)) { seen[run]; order[++runs] = run }
		for (i = 5; i <= NF && $i !~ /^(passed|failed|skipped)$/; i++) why = why " " $i
		theirs = $i
		for (i++; i <= NF; i++) want = want " " $i
		before = "^ at (CRIU (pre-)?dump|start)"
		if (got == "failed") {
			if (why ~ before) got = "dump"
			else if (theirs == "failed" && why == want) got = "both"
			else { got = "ours"; bad = 1 }
		}
		n[run, got]++
		if (got == "skipped") skips[why]++
		if (got == "both") list("failed with both, in the same way", test ":" why)
		if (got == "dump") list("failed before the restore", test ":" why)
		if (got == "passed" && theirs == "failed" && want !~ before) list("passed with thawd alone", test ": CRIU fails" want)
		if (got == "ours") list("FAILED with thawd", test ":" why "; with CRIU " theirs want)
	}
	END {
		printf "%-12s %7s %8s %13s %12s %11s\n", "", "passed", "skipped", "failed: ours", "both", "CRIU dump"
		for (i = 1; i <= runs; i++) { r = order[i]; printf "%-12s %7d %8d %13d %12d %11d\n", r, n[r, "passed"], n[r, "skipped"], n[r, "ours"], n[r, "both"], n[r, "dump"] }
		for (w in skips) print "skipped:" w ": " skips[w]
		for (k in lists) print k ":" lists[k]
		exit bad
	}' "$summary" || die "some tests fail with thawd; their logs are in $zdtm/report/MODE-FLAVOR-thaw"
