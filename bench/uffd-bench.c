// SPDX-License-Identifier: GPL-2.0
/*
 * What filling memory through userfaultfd costs, per 4 KiB page.
 *
 * Under QEMU's -icount shift=0 the TSC counts instructions, and two runs print the
 * same bytes. With -t it is nanoseconds. Prints, tab separated:
 *
 *	NAME MEDIAN LOWEST HIGHEST FOLIO-KIB PMD-MAPPED-KIB PAGES
 *	NAME - why this kernel cannot
 *
 * Each test runs in a process of its own. It fills 8 MiB (or 64) of fresh memory several
 * times over; set-up and tear-down are outside of the measurement, the allocation of
 * the last level of the page table is in it. FOLIO-KIB is the size of the folio found
 * in the first page, PAGES how many a sample fills.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>

#define PAGE		4096UL
#define KIB		(1UL << 10)
#define MIB		(1UL << 20)
#define PMD		(2 * MIB)
#define SAMPLE		(8 * MIB)
#define MAX_SAMPLES	15
#define FAULTS		64	/* per sample */
#define FIRST_FAULTS	8

/* Fixed, so that nothing depends on where the libc maps things. */
#define DST		((char *)0x200000000UL)
#define SRC		((char *)0x300000000UL)
#define ALIAS		((char *)0x400000000UL)
#define BELOW		((char *)0x100000000UL)
#define ABOVE		((char *)0x500000000UL)

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define CGROUP		"/sys/fs/cgroup/"

enum op { COPY, ZEROPAGE, CONTINUE, POISON, WRITEPROTECT, MOVE, FAULT,
	  VCPU, TOUCH, POPULATE, PWRITE, MEMCPY, MEMSET, NR_OPS };
enum mem { ANON, SHMEM, HUGETLB, HUGEPRIV, GMEM, NR_MEMS };
enum policy { SMALL, M64, HUGE, WITHIN, ADVISE, NR_POLICIES };
enum variant { PLAIN, COLD, MEMCG, FALLOC, PTES, MINOR, NR_VARIANTS };

static const char *const op_names[] = { "copy", "zeropage", "continue", "poison", "wp", "move",
	"fault", "vcpu", "touch", "populate", "pwrite", "memcpy", "memset" };
static const char *const mem_names[] = { "anon", "shmem", "hugetlb", "hugepriv", "gmem" };
static const char *const policy_names[] = { "", "-64k", "-thp", "-within", "-advise" };
static const char *const variant_names[] = { "", "-cold", "-memcg", "-falloc", "-ptes", "-minor" };
static const struct { const char *name; size_t size; } calls[] = {
	{ "4K", PAGE }, { "64K", 64 * KIB }, { "2M", PMD }, { "64M", 64 * MIB } };

/* How the ioctl of an operation is made: its structs are arrays of 64-bit fields. */
static const struct uffd_op {
	unsigned long cmd;
	unsigned int nr;	/* bit in uffdio_register.ioctls */
	int src, len;		/* index of the field; src 0 is none */
	uint64_t mode;
} uffd_ops[] = {
	[COPY] = { UFFDIO_COPY, _UFFDIO_COPY, 1, 2 },
	[ZEROPAGE] = { UFFDIO_ZEROPAGE, _UFFDIO_ZEROPAGE, 0, 1 },
	[CONTINUE] = { UFFDIO_CONTINUE, _UFFDIO_CONTINUE, 0, 1 },
	[POISON] = { UFFDIO_POISON, _UFFDIO_POISON, 0, 1 },
	[WRITEPROTECT] = { UFFDIO_WRITEPROTECT, _UFFDIO_WRITEPROTECT, 0, 1, UFFDIO_WRITEPROTECT_MODE_WP },
	[MOVE] = { UFFDIO_MOVE, _UFFDIO_MOVE, 1, 2 },
};

struct test {
	char name[64];
	enum op op;
	enum mem mem;
	enum policy policy;
	enum variant variant;
	size_t call;
};

/* State of the one test of this process. */
static struct {
	const struct test *t;
	size_t span;		/* bytes per sample */
	int fd, uffd;
	int vm, vcpu;
	struct kvm_run *run;
} b = { .vm = -1 };

static bool use_ns;

/* Marks for count-plugin.c, and nothing to everybody else: the bytes are "UFF" and X. */
#define MARK(x)	asm volatile("nopl %c0(%%rax)" : : "i"(0x464655 | (x) << 24) : "memory")

static inline uint64_t now(void)
{
	struct timespec ts;

	if (!use_ns)
		return __builtin_ia32_rdtsc();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000UL + ts.tv_nsec;
}

static inline long ioctl_raw(long fd, unsigned long cmd, void *arg)
{
	long ret;

	asm volatile("syscall" : "=a"(ret) : "0"(SYS_ioctl), "D"(fd), "S"(cmd), "d"(arg)
		     : "rcx", "r11", "memory");
	return ret;
}

/* Word by word, and counted so: what the C library does depends on the CPU. */
static inline void copy_words(void *dst, const void *src, size_t len)
{
	len /= 8;
	asm volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

static inline void set_words(void *dst, uint64_t value, size_t len)
{
	len /= 8;
	asm volatile("rep stosq" : "+D"(dst), "+c"(len) : "a"(value) : "memory");
}

/* --- the end of a test's process --- */

enum { OK, CANNOT = 4, FAILED };

__attribute__((format(printf, 2, 3), noreturn))
static void quit(int status, const char *fmt, ...)
{
	va_list ap;

	printf("%s\t%s\t", b.t ? b.t->name : "uffd-bench", status == CANNOT ? "-" : "FAILED");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(status);
}

#define fail(...)	quit(FAILED, __VA_ARGS__)
#define cannot(...)	quit(CANNOT, __VA_ARGS__)

/* --- the kernel's settings --- */

static bool set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	if (fd >= 0)
		close(fd);
	return ok;
}

static void set_policy(enum mem mem, enum policy policy)
{
	static const char *const shmem[] = { "never", "never", "always", "within_size", "advise" };
	bool anon = mem == ANON;

	if (!set(THP "enabled", anon && policy == HUGE ? "always" : "never") ||
	    !set(THP "shmem_enabled", anon ? "never" : shmem[policy]) ||
	    !set(THP "hugepages-64kB/enabled", anon && policy == M64 ? "always" : "never") ||
	    !set(THP "hugepages-64kB/shmem_enabled", !anon && policy == M64 ? "always" : "never"))
		cannot("no " THP " or not root");
}

static void settle(void)
{
	/* khugepaged looks once when this is written, then sleeps for weeks. */
	set(THP "khugepaged/scan_sleep_millisecs", "4000000000");
	set(THP "khugepaged/alloc_sleep_millisecs", "4000000000");
	set("/sys/kernel/mm/ksm/run", "0");
	/*
	 * The per-CPU lists of the page allocator keep all that a sample frees for the
	 * next one. From behind them a page is 120 instructions more, and whether it is
	 * would depend on the tests before.
	 */
	set("/proc/sys/vm/percpu_pagelist_high_fraction", "8");
	set(CGROUP "cgroup.subtree_control", "+memory");
	mkdir(CGROUP "uffd-bench", 0755);
	usleep(100000);
}

/* --- memory --- */

static void need_vm(void)
{
	if (b.vm < 0)
		b.vm = ioctl(open("/dev/kvm", O_RDWR | O_CLOEXEC), KVM_CREATE_VM, 0);
	if (b.vm < 0)
		cannot("no KVM: %s", strerror(errno));
}

static int open_memory(void)
{
	struct kvm_create_guest_memfd gmem = {
		.size = b.span,
		.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	int fd, huge = b.t->mem == HUGETLB ? MFD_HUGETLB | MFD_HUGE_2MB : 0;

	switch (b.t->mem) {
	case SHMEM:
	case HUGETLB:
		fd = memfd_create("bench", MFD_CLOEXEC | huge);
		if (fd < 0 || ftruncate(fd, b.span))
			cannot("memfd: %s", strerror(errno));
		return fd;
	case GMEM:
		need_vm();
		fd = ioctl(b.vm, KVM_CREATE_GUEST_MEMFD, &gmem);
		if (fd < 0)
			cannot("no guest_memfd: %s", strerror(errno));
		return fd;
	default:
		return -1;
	}
}

static void map(char *at, size_t len, int flags, int fd)
{
	flags |= MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	if (b.t->mem == HUGEPRIV && at == DST)
		flags |= MAP_HUGETLB;
	if (mmap(at, len, PROT_READ | PROT_WRITE, flags, fd, 0) != at)
		cannot("mmap: %s", strerror(errno));
}

static uint64_t pattern(size_t off)
{
	return 0x0123456789abcdefUL ^ off / PAGE * 0x9e3779b97f4a7c15UL;
}

static void fill_pattern(char *p, size_t len)
{
	for (size_t off = 0; off < len; off += PAGE)
		set_words(p + off, pattern(off), PAGE);
}

/* The folio of the page at p in KiB; 0 for none and for the zero page. */
static unsigned int folio_kib(const char *p)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	uint64_t e = 0, f, nr = 0;

	if (pread(pagemap, &e, 8, (uintptr_t)p / PAGE * 8) != 8 || !(e >> 63))
		goto out;
	for (uint64_t pfn = e & ((1UL << 55) - 1); pread(flags, &f, 8, (pfn + nr) * 8) == 8; nr++) {
		if (!nr && f >> 24 & 1)		/* KPF_ZERO_PAGE */
			break;
		if (nr && !(f >> 16 & 1))	/* KPF_COMPOUND_TAIL */
			break;
	}
out:
	close(pagemap);
	close(flags);
	return nr * 4;
}

/* KiB that are mapped by a huge entry in the VMA at p. */
static unsigned long pmd_kib(const char *p)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib, sum = 0;
	char line[256], key[64];
	bool in = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			in = start == (unsigned long)p;
		else if (in && sscanf(line, "%63[^:]: %lu", key, &kib) == 2 &&
			 (!strcmp(key, "AnonHugePages") || !strcmp(key, "ShmemPmdMapped") ||
			  !strcmp(key, "FilePmdMapped") || strstr(key, "_Hugetlb")))
			sum += kib;
	}
	if (f)
		fclose(f);
	return sum;
}

static bool wants_folio(unsigned int kib)
{
	if (b.t->policy == M64)
		return kib == 64;
	if (b.t->policy == SMALL && b.t->mem != HUGETLB && b.t->mem != HUGEPRIV)
		return kib == 4;
	return kib == 2048;
}

/* Put pages where the test needs them beforehand, in folios of the wanted size. */
static void populate(char *p)
{
	unsigned int kib;

	if (b.t->policy == ADVISE)
		madvise(p, b.span, MADV_HUGEPAGE);
	fill_pattern(p, b.span);
	kib = folio_kib(p);
	if (!wants_folio(kib))
		fail("set-up: folios of %u KiB", kib);
}

static void set_up_memory(void)
{
	const struct test *t = b.t;

	b.fd = open_memory();
	if (t->op != POPULATE)
		map(DST, b.span, 0, b.fd);
	if (t->policy == ADVISE)
		madvise(DST, b.span, MADV_HUGEPAGE);
	if (t->variant == PTES)
		madvise(DST, b.span, MADV_NOHUGEPAGE);

	if (t->op == CONTINUE || t->variant == MINOR) {
		if (t->variant == FALLOC) {
			if (fallocate(b.fd, FALLOC_FL_KEEP_SIZE, 0, b.span))
				fail("fallocate: %s", strerror(errno));
		} else {
			map(ALIAS, b.span, 0, b.fd);
			populate(ALIAS);
			munmap(ALIAS, b.span);
		}
	}
	if (t->op == WRITEPROTECT)
		populate(DST);
	if (t->op == MEMCPY || t->op == MEMSET)
		fill_pattern(DST, b.span);
	if (t->op == MOVE) {
		map(SRC, b.span, 0, -1);
		populate(SRC);
	} else if (t->op == COPY || t->op == PWRITE || t->op == MEMCPY || t->op == FAULT) {
		map(SRC, b.span, 0, -1);
		madvise(SRC, b.span, MADV_NOHUGEPAGE);
		if (t->variant != COLD)
			fill_pattern(SRC, b.span);
	}
}

/* A vCPU, in protected mode without paging, that writes to one page after the other. */
#define CODE_GPA	0x1000UL
#define MEM_GPA		(16 * MIB)

static void set_memslot(unsigned int slot, uint64_t gpa, size_t size, char *at)
{
	struct kvm_userspace_memory_region2 r = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (uintptr_t)at,
	};

	if (slot && b.t->mem == GMEM) {
		r.flags = KVM_MEM_GUEST_MEMFD;
		r.guest_memfd = b.fd;
	}
	if (ioctl(b.vm, KVM_SET_USER_MEMORY_REGION2, &r))
		cannot("memslot: %s", strerror(errno));
}

static void set_up_vcpu(void)
{
	static const unsigned char code[] = {
		0xc6, 0x03, 0x01,			/* 1: movb $1, (%ebx) */
		0x81, 0xc3, 0x00, 0x10, 0x00, 0x00,	/* addl $4096, %ebx */
		0x49,					/* decl %ecx */
		0x75, 0xf4,				/* jnz 1b */
		0xf4,					/* hlt */
	};
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rbx = MEM_GPA, .rcx = b.span / PAGE, .rflags = 2,
	};
	struct kvm_segment *s;
	struct kvm_sregs sregs;
	char *page;

	need_vm();
	if (!b.run) {
		b.vcpu = ioctl(b.vm, KVM_CREATE_VCPU, 0);
		b.run = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b.vcpu, 0);
		if (b.run == MAP_FAILED)
			cannot("no vCPU: %s", strerror(errno));
		page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(page, code, sizeof(code));
		set_memslot(0, CODE_GPA, PAGE, page);

		ioctl(b.vcpu, KVM_GET_SREGS, &sregs);
		s = &sregs.cs;
		s->base = 0;
		s->limit = ~0U;
		s->g = s->db = 1;
		s->type = 11;
		sregs.ds = *s;
		sregs.ds.type = 3;
		sregs.es = sregs.ss = sregs.ds;
		sregs.cr0 |= 1;
		if (ioctl(b.vcpu, KVM_SET_SREGS, &sregs))
			cannot("KVM_SET_SREGS: %s", strerror(errno));
	}
	set_memslot(1, MEM_GPA, b.span, DST);
	if (ioctl(b.vcpu, KVM_SET_REGS, &regs))
		cannot("KVM_SET_REGS: %s", strerror(errno));
}

static void tear_down(void)
{
	if (b.t->op == VCPU)
		set_memslot(1, MEM_GPA, 0, DST);
	munmap(DST, b.span);
	munmap(SRC, b.span);
	if (b.fd >= 0)
		close(b.fd);
	if (b.t->op <= FAULT)
		close(b.uffd);
}

static void set_up_uffd(void)
{
	const struct test *t = b.t;
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)DST, b.span },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	enum op op = t->op == FAULT ? t->variant == MINOR ? CONTINUE : COPY : t->op;

	b.uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (b.uffd < 0 || ioctl(b.uffd, UFFDIO_API, &api))
		cannot("userfaultfd: %s", strerror(errno));
	if (op == CONTINUE)
		reg.mode = UFFDIO_REGISTER_MODE_MINOR;
	else if (op == WRITEPROTECT)
		reg.mode = UFFDIO_REGISTER_MODE_WP;
	if (ioctl(b.uffd, UFFDIO_REGISTER, &reg))
		cannot("register: %s", strerror(errno));
	if (!(reg.ioctls >> uffd_ops[op].nr & 1))
		cannot("not offered for this memory");
}

/* --- what is measured --- */

static uint64_t sample_ioctl(void)
{
	const struct uffd_op *op = &uffd_ops[b.t->op];
	uint64_t a[5] = {}, start, end;
	size_t call = b.t->call;
	long ret = 0;

	a[0] = (uintptr_t)DST;
	end = a[0] + b.span;
	if (op->src)
		a[op->src] = (uintptr_t)SRC;
	a[op->len] = call;
	a[op->len + 1] = op->mode;

	start = now();
	do {
		ret = ioctl_raw(b.uffd, op->cmd, a);
		if (ret)
			break;
		a[0] += call;
		if (op->src)
			a[op->src] += call;
	} while (a[0] != end);
	start = now() - start;
	if (ret)
		fail("ioctl at %#zx: %s, reported %lld", (size_t)(a[0] - (uintptr_t)DST),
		     strerror(-ret), (long long)a[op->len + 2]);
	return start;
}

static uint64_t sample_vcpu(void)
{
	uint64_t start = now();
	long ret;

	do
		ret = ioctl_raw(b.vcpu, KVM_RUN, NULL);
	while (ret == -EINTR);
	start = now() - start;
	if (ret || b.run->exit_reason != KVM_EXIT_HLT)
		fail("KVM_RUN: %s, exit reason %u", strerror(-ret), b.run->exit_reason);
	return start;
}

static void *monitor(void *arg)
{
	const struct uffd_op *op = &uffd_ops[b.t->variant == MINOR ? CONTINUE : COPY];
	size_t size = b.t->mem == HUGETLB ? PMD : PAGE;
	struct uffd_msg msg;
	uint64_t a[5] = {};

	(void)arg;
	while (read(b.uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		a[0] = msg.arg.pagefault.address & -size;
		if (op->src)
			a[op->src] = (uintptr_t)SRC;
		a[op->len] = size;
		a[op->len + 1] = 0;
		if (ioctl_raw(b.uffd, op->cmd, a))
			fail("cannot resolve a fault");
	}
	fail("read: %s", strerror(errno));
}

static uint64_t touch(char *p, size_t step, size_t len)
{
	uint64_t start = now();

	for (char *end = p + len; p != end; p += step)
		*(volatile char *)p = 1;
	return now() - start;
}

static uint64_t sample(void)
{
	uint64_t start;
	ssize_t ret;

	switch (b.t->op) {
	case FAULT:
		return touch(DST, b.t->call, b.span);
	case VCPU:
		return sample_vcpu();
	case TOUCH:
		return touch(DST, PAGE, b.span);
	case POPULATE:
		start = now();
		map(DST, b.span, MAP_POPULATE, b.fd);
		return now() - start;
	case PWRITE:
		start = now();
		ret = pwrite(b.fd, SRC, b.span, 0);
		start = now() - start;
		if (ret != (ssize_t)b.span)
			fail("pwrite: %s", strerror(errno));
		return start;
	case MEMCPY:
		start = now();
		for (size_t off = 0; off < b.span; off += PAGE)
			copy_words(DST + off, SRC + off, PAGE);
		return now() - start;
	case MEMSET:
		start = now();
		for (size_t off = 0; off < b.span; off += PAGE)
			set_words(DST + off, 0, PAGE);
		return now() - start;
	default:
		return sample_ioctl();
	}
}

/* The figures mean nothing if the memory is not what it should be. */
static void verify(void)
{
	const struct test *t = b.t;
	bool zero = t->op == ZEROPAGE || t->variant == COLD || t->variant == FALLOC;

	if ((t->op > CONTINUE && t->op != MOVE) || t->variant == MINOR)
		return;
	for (size_t off = 0; off < b.span; off += PAGE) {
		uint64_t want = zero ? 0 : pattern(off);
		const volatile uint64_t *p = (void *)(DST + off);

		if (p[0] != want || p[PAGE / 8 - 1] != want)
			fail("wrong contents at %#zx", off);
	}
}

static int by_value(const void *a, const void *c)
{
	const uint64_t *x = a, *y = c;

	return *x < *y ? -1 : *x > *y;
}

static void run(const struct test *t)
{
	uint64_t v[MAX_SAMPLES];
	unsigned long pmd = 0;
	unsigned int kib = 0;
	pthread_t thread;
	double pages;
	int nr;

	MARK('T');
	b.t = t;
	b.span = t->call > SAMPLE ? t->call : SAMPLE;
	if (t->op == FAULT)
		b.span = t->call * (t->call == PAGE ? FAULTS : FIRST_FAULTS);
	pages = t->op == FAULT ? b.span / t->call : b.span / PAGE;
	nr = b.span > SAMPLE ? 3 : use_ns ? MAX_SAMPLES : 5;

	set_policy(t->mem, t->policy);
	if (t->variant == MEMCG && !set(CGROUP "uffd-bench/cgroup.procs", "0"))
		cannot("no memory cgroup");
	/* Tear-down leaves all but the last level of the page table, because of this. */
	map(DST - PMD, PAGE, 0, -1);
	*(volatile char *)(DST - PMD) = 1;
	/* A VMM has more than a few VMAs to search. */
	for (int i = 0; i < 100; i++)
		map((i % 2 ? BELOW : ABOVE) + i * PAGE, PAGE, 0, -1);

	for (int i = -1; i < nr; i++) {		/* the first is not counted */
		set_up_memory();
		if (t->op <= FAULT)
			set_up_uffd();
		if (t->op == VCPU)
			set_up_vcpu();
		if (t->op == FAULT && pthread_create(&thread, NULL, monitor, NULL))
			fail("pthread_create");
		usleep(20000);		/* let the kernel do what it has put off */
		MARK('B');
		v[i < 0 ? 0 : i] = sample();
		MARK('E');
		kib = t->op == PWRITE ? 0 : folio_kib(DST);
		pmd = pmd_kib(DST);
		verify();
		if (t->op == FAULT && (pthread_cancel(thread) || pthread_join(thread, NULL)))
			fail("cannot end the monitor");
		tear_down();
	}
	qsort(v, nr, sizeof(v[0]), by_value);
	printf("%s\t%.2f\t%.2f\t%.2f\t%u\t%lu\t%.0f\n", t->name, v[nr / 2] / pages, v[0] / pages,
	       v[nr - 1] / pages, kib, pmd, pages);
	fflush(stdout);
	_exit(OK);
}

/* --- which tests there are --- */

static bool exists(const struct test *t)
{
	bool file = t->mem == SHMEM || t->mem == GMEM;
	bool hugetlb = t->mem == HUGETLB || t->mem == HUGEPRIV;
	bool small = t->policy == SMALL, huge = t->policy == HUGE;

	if ((t->policy == WITHIN || t->policy == ADVISE) && t->mem != SHMEM)
		return false;
	if (!small && t->mem != ANON && t->mem != SHMEM)
		return false;
	if (hugetlb && t->call < PMD)
		return false;
	if (t->op > POISON && t->call == 64 * MIB)
		return false;

	switch (t->variant) {
	case COLD:
		return t->op == COPY && t->call == PMD && (small || huge);
	case MEMCG:
		if (t->op > POISON || t->call != PMD || !(small || huge))
			return false;
		break;
	case FALLOC:
		return t->op == CONTINUE && file && small;
	case PTES:
		return t->op == CONTINUE && t->mem == SHMEM && huge;
	case MINOR:
		return (t->op == FAULT || (t->op == VCPU && t->mem == GMEM)) && file && small &&
		       t->call == PAGE;
	default:
		break;
	}

	switch (t->op) {
	case CONTINUE:
		return t->mem != ANON && t->mem != HUGEPRIV;
	case POISON:
		return small;
	case WRITEPROTECT:
		return t->mem != GMEM && t->mem != HUGEPRIV && (small || huge) && t->call != 64 * KIB;
	case MOVE:
		return t->mem == ANON && (huge ? t->call == PMD : small && t->call != 64 * KIB);
	case FAULT:
		if (hugetlb)
			return t->mem == HUGETLB && t->call == PMD;
		return small ? t->call == PAGE : huge && t->mem == ANON && t->call == PMD;
	case VCPU:
		return file && small && t->call == PAGE;
	case TOUCH:
	case POPULATE:
		return t->call == PMD && t->mem != GMEM && (small || huge);
	case PWRITE:
		return t->call == PMD && t->mem == SHMEM && (small || huge);
	case MEMCPY:
	case MEMSET:
		return t->call == PMD && t->mem == ANON && small;
	default:
		return true;
	}
}

/* What a tick of the TSC is: a loop of two instructions, a hundred thousand times. */
static void calibrate(void)
{
	uint64_t start = now();
	long n = 100000;

	asm volatile("1: dec %0; jnz 1b" : "+r"(n));
	printf("ticks-per-instruction\t%.3f\n", (now() - start) / 200000.0);
	fflush(stdout);
}

/* Run or list one test; false if it failed. */
static bool consider(struct test *t, const char *call, const regex_t *re, bool list)
{
	int status;

	if (!exists(t))
		return true;
	snprintf(t->name, sizeof(t->name), "%s-%s%s%s-%s", op_names[t->op], mem_names[t->mem],
		 policy_names[t->policy], variant_names[t->variant], call);
	if (regexec(re, t->name, 0, NULL, 0))
		return true;
	if (list) {
		puts(t->name);
		return true;
	}
	if (!fork()) {
		alarm(120);
		run(t);
	}
	wait(&status);
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == OK || WEXITSTATUS(status) == CANNOT;
	printf("%s\tFAILED\tkilled by signal %d\n", t->name, WTERMSIG(status));
	fflush(stdout);
	return false;
}

int main(int argc, char **argv)
{
	const int nr_calls = sizeof(calls) / sizeof(calls[0]);
	bool list = false, ok = true;
	struct test t;
	regex_t re;
	int c;

	while ((c = getopt(argc, argv, "lt")) != -1) {
		list |= c == 'l';
		use_ns |= c == 't';
		if (c == '?') {
			fputs("usage: uffd-bench [-l] [-t] [REGEX]; -l: list the tests, -t: time\n", stderr);
			return 2;
		}
	}
	if (regcomp(&re, argv[optind] ?: ".", REG_EXTENDED | REG_NOSUB)) {
		fprintf(stderr, "uffd-bench: bad regular expression %s\n", argv[optind]);
		return 2;
	}
	if (!list) {
		settle();
		if (!use_ns)
			calibrate();
	}
	for (int i = 0; i < NR_OPS * NR_MEMS * NR_POLICIES * NR_VARIANTS * nr_calls; i++) {
		int n = i / nr_calls;

		t.call = calls[i % nr_calls].size;
		t.variant = n % NR_VARIANTS;
		t.policy = n / NR_VARIANTS % NR_POLICIES;
		t.mem = n / NR_VARIANTS / NR_POLICIES % NR_MEMS;
		t.op = n / NR_VARIANTS / NR_POLICIES / NR_MEMS;
		ok &= consider(&t, calls[i % nr_calls].name, &re, list);
	}
	return !ok;
}
