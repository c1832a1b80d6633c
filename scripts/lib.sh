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

# uapi_headers: those of $TREE, for programs of ours, in $OUT/headers/include.
uapi_headers() {
	need gcc make libc6-dev rsync
	make -s -C "$TREE" O="$OUT/build/headers" ARCH=x86_64 headers_install \
		INSTALL_HDR_PATH="$OUT/headers" > "$OUT/headers.log" 2>&1 ||
		die "the headers of $TREE were not installed, see $OUT/headers.log"
}
