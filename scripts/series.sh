# SPDX-License-Identifier: GPL-2.0
# Shared by check and bisect: kernels in the variants of config/variants/.  Whoever
# sources it sets $builds, what the names of its build directories begin with.
# shellcheck shell=bash disable=SC2154

export CCACHE_DIR=$CACHE/ccache CCACHE_BASEDIR=$OUT CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}

variant_arch() { sed -n 's/^# arch: //p' "$TOP/config/variants/$1.config"; }

kmake() { # VARIANT TREE TARGET...
	local arch cross=

	arch=$(variant_arch "$1")
	[ "$arch" != arm64 ] || cross=aarch64-linux-gnu-
	make -s -C "$2" O="$OUT/build/$builds-$1" ARCH="$arch" -j"$JOBS" \
		CROSS_COMPILE="$cross" CC="ccache ${cross}gcc" "${@:3}"
}

variant_config() { # VARIANT TREE
	"$TOP/scripts/mkconfig" "$2" "$OUT/build/$builds-$1" "$(variant_arch "$1")" \
		"$TOP/config/build.config" "$TOP/config/variants/$1.config"
}

# The neighbours of what the series touches, and what it touches, where it is configured.
near=(ipc/shm.o lib/xarray.o)
for o in memory filemap mremap mprotect madvise vma mmap rmap swap shmem; do
	near+=("mm/$o.o")
done
variant_objects() { # VARIANT
	local symbol objects

	while read -r symbol objects; do
		! grep -qx "CONFIG_$symbol=y" "$OUT/build/$builds-$1/.config" || echo "$objects"
	done <<-EOT
		HUGETLBFS mm/hugetlb.o
		USERFAULTFD mm/userfaultfd.o fs/userfaultfd.o
		MEMCG mm/memcontrol.o
		NUMA mm/mempolicy.o
		TRANSPARENT_HUGEPAGE mm/huge_memory.o mm/khugepaged.o
	EOT
}
