# SPDX-License-Identifier: GPL-2.0
# Shared by the scripts here: paths, messages, package installation.
# shellcheck shell=bash

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
OUT=${OUT:-$TOP/out}
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/uffd-ops}
JOBS=${JOBS:-$(nproc)}

{ read -r BASE_FILE BASE_PKG; read -r BASE_SHA; } < "$TOP/base"
BASE_VERSION=${BASE_FILE#linux_}
BASE_VERSION=${BASE_VERSION%.orig.tar.xz}
TREE=${TREE:-$OUT/tree}

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

say() { printf '[%3d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

# need PACKAGE...: install the Debian packages that are missing.
need() {
	local p miss=() sudo=

	command -v dpkg-query >/dev/null ||
		die "this machine has no dpkg; install by hand the equivalents of: $*"
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null |
			grep -qx installed || miss+=("$p")
	done
	[ ${#miss[@]} -eq 0 ] && return 0
	if [ "$(id -u)" -ne 0 ]; then
		sudo=sudo
		sudo -n true 2>/dev/null ||
			die "packages are missing and there is no root or sudo; run: apt-get install ${miss[*]}"
	fi
	mkdir -p "$OUT"
	say "installing ${miss[*]}"
	{ $sudo apt-get update -qq &&
	  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends "${miss[@]}"; } > "$OUT/apt.log" 2>&1 ||
		die "apt-get install failed (see $OUT/apt.log); needed: ${miss[*]}"
}

# need_disk GIB: refuse early rather than fill the disk.
need_disk() {
	local free

	mkdir -p "$OUT"
	free=$(df -Pk "$OUT" | awk 'NR == 2 { print int($4 / 1048576) }')
	[ "$free" -ge "$1" ] ||
		die "$OUT has $free GiB free and $1 are needed; free some or set OUT to a larger disk"
}

# base_tree: the kernel without the series, in $OUT/base.
base_tree() {
	[ "$(git -C "$OUT/base" rev-parse -q HEAD 2>/dev/null)" != "$(git -C "$TREE" rev-parse base)" ] ||
		return 0
	# Renamed into place: a checkout that is cut off is not used.
	rm -rf "$OUT/base" "$OUT/base.tmp"
	{ git -C "$TREE" worktree prune &&
	  git -C "$TREE" worktree add --detach "$OUT/base.tmp" base &&
	  git -C "$TREE" worktree move "$OUT/base.tmp" "$OUT/base"; } > "$OUT/base.log" 2>&1 ||
		die "cannot check out the base, see $OUT/base.log"
}

# kernel_arg NAME=BZIMAGE FLAVOUR: is it a kernel, one that scripts/build FLAVOUR makes?
kernel_arg() {
	[[ $1 =~ ^[a-zA-Z0-9_.]+=. ]] || die "--kernel wants NAME=BZIMAGE, not ${1:-nothing}"
	[ -r "${1#*=}" ] || die "no kernel image ${1#*=}; build it first (scripts/build $2)"
}

# uapi_headers: those of $TREE, for programs of ours, in $OUT/headers/include.
uapi_headers() {
	need gcc make libc6-dev rsync
	make -s -C "$TREE" O="$OUT/build/headers" ARCH=x86_64 headers_install \
		INSTALL_HDR_PATH="$OUT/headers" > "$OUT/headers.log" 2>&1 ||
		die "the headers of $TREE were not installed, see $OUT/headers.log"
}

# vm_results VM JOBS STATUS LOG: one line, as of scripts/results, per result that the jobs of
# the list JOBS (columns as in tests/base.list) had in the VM of this name; scripts/vm ended
# with STATUS and has printed LOG.
vm_results() {
	local verdicts=$OUT/vm/$1/verdict name kind verdict code log lines

	lines=$(while IFS=$'\t' read -r name _ _ kind _; do
		read -r verdict code < <(awk -v name="$name" '$1 == "JOB" && $2 == name { print $3, $5; found = 1 }
			END { if (!found) print "none 0" }' "$verdicts")
		log=$OUT/vm/$1/jobs/$name.log
		[ -r "$log" ] || log=/dev/null
		"$TOP/scripts/results" -v job="$name" -v kind="$kind" -v verdict="$verdict" -v code="$code" "$log"
	done < "$2"
	# One failure per job whose kernel log is dirty; the lines are printed by scripts/vm.
	awk '/^DIRTY / { job = $2; sub(/^DIRTY [^ ]+ /, ""); if (!seen[job]++) printf "fail\t%s\tkernel log: %s\n", job, $0 }' \
		"$verdicts")
	if [ "$3" -ne 0 ] && ! grep -q '^fail' <<< "$lines"; then
		lines+=$(printf '\nfail\tthe VM\t%s' "$({ grep '^vm ' "$4" || cat "$4"; } | tail -n 1)")
	fi
	echo "$lines"
}

# debian_apt HINT TYPE SUITE...: make $apt, a directory that goes away with the script; in
# it apt.conf, to be named by APT_CONFIG, for these suites, and dl/ to download to.
debian_apt() {
	local type=$2 mirror suite key=/usr/share/keyrings/debian-archive-keyring.gpg

	# The mirror is the one this machine already uses for Debian itself.
	mirror=$(apt-get indextargets --format '$(SITE) $(SUITE) $(ORIGIN)' 2>/dev/null |
		awk '$3 == "Debian" && $2 !~ /security/ { print $1; exit }') || :
	[ -n "$mirror" ] || mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+) +(bookworm|trixie|forky|sid|stable|testing) +.*main.*/\2/p' | head -n 1) || :
	[ -n "$mirror" ] || mirror=$(awk '/^URIs:/ { u = $2 } /^Suites:/ && / (bookworm|trixie|forky|sid|stable|testing)( |$)/ { print u; exit }' \
		/etc/apt/sources.list.d/*.sources 2>/dev/null) || :
	[ -n "$mirror" ] || die "no Debian mirror in this machine's apt sources; $1"
	[ -r "$key" ] || need debian-archive-keyring >&2
	mkdir -p "$CACHE"
	apt=$(mktemp -d "$CACHE/apt.XXXXXX")
	trap 'rm -rf "$apt"' EXIT
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts" "$apt/dl"
	# apt drops root for downloads.
	chmod 755 "$apt"; chmod 777 "$apt/dl" "$apt/lists/partial"
	for suite in "${@:3}"; do
		echo "$type [signed-by=$key] $mirror $suite main"
	done > "$apt/sources.list"
	cat > "$apt/apt.conf" <<-EOF
	Dir::Etc::SourceList "$apt/sources.list";
	Dir::Etc::SourceParts "$apt/parts";
	Dir::State::Lists "$apt/lists";
	Dir::Cache "$apt/cache";
	APT::Get::List-Cleanup "false";
	EOF
}
