// SPDX-License-Identifier: GPL-2.0
/*
 * What userfaultfd's fill ioctls answer, and what they leave behind: a line per case.
 * With ONLY=PREFIX in the environment, only of the cases whose names start so.
 *
 * A line is "NAME: RESULT; ... STATE". A RESULT is "RET ERRNO FIELD" of an ioctl, FIELD
 * being what it says it did. "[a,b,c]" is what the process has mapped: "-" nothing, "S"
 * a page with what the source has there, "F" what the page had before, "Z" zeros, "?"
 * anything else, "*" not looked at; then "s" swap entry or marker, "w" write-protected,
 * "f" page of the file. "file=abc" is what read() finds, "$" being past end of file, "<"
 * a short page, "!" an error. Then come the changes of st_blocks, of HugetlbPages of the
 * process and of the huge page pool, and after "left:" those that outlive the process;
 * "stored: file=abc" is what the file has after the process has written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/quota.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define K4		4096UL
#define M2		(2UL << 20)
#define G1		(1UL << 30)
#define OUT_SIZE	(4 * K4)
#define CASE_SECONDS	(mem->psz == G1 ? 240 : 60)	/* on a busy machine */
#define POOL		8	/* huge pages that the cases have */
#define DIR		"/tmp/uffd-abi"
#define CGROUP		"/sys/fs/cgroup/uffd-abi"
#define SHMEM_THP	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define WP		UFFDIO_REGISTER_MODE_WP
#define FEATURES	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_HUGETLBFS | \
			 UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS | \
			 UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | \
			 UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_POISON)

#define NR(array)	(sizeof(array) / sizeof((array)[0]))

enum kind { ANON, MEMFD, SYSV, DEVZERO, FS };
static const struct mem {
	const char *name;
	enum kind kind;
	size_t psz;
	int flags;
	int first;	/* page of the file that is mapped first */
} mems[] = {
	{ "anon", ANON, K4, MAP_PRIVATE, 0 },
	{ "shmem", MEMFD, K4, MAP_SHARED, 0 },
	{ "shmem-private", MEMFD, K4, MAP_PRIVATE, 0 },
	{ "sysv", SYSV, K4, MAP_SHARED, 0 },
	{ "devzero", DEVZERO, K4, MAP_SHARED, 0 },
	{ "tmpfs", FS, K4, MAP_SHARED, 1 },
	{ "tmpfs-private", FS, K4, MAP_PRIVATE, 1 },
	{ "2M", MEMFD, M2, MAP_SHARED, 0 },
	{ "2M-private", MEMFD, M2, MAP_PRIVATE, 0 },
	{ "2M-anon", ANON, M2, MAP_PRIVATE, 0 },
	{ "2M-sysv", SYSV, M2, MAP_SHARED, 0 },
	{ "2M-noreserve", MEMFD, M2, MAP_SHARED | MAP_NORESERVE, 1 },
	{ "2M-noreserve-private", MEMFD, M2, MAP_PRIVATE | MAP_NORESERVE, 1 },
	{ "hugetlbfs", FS, M2, MAP_SHARED | MAP_NORESERVE, 1 },
	{ "1G", MEMFD, G1, MAP_SHARED, 0 },
	{ "1G-private", MEMFD, G1, MAP_PRIVATE, 0 },
	{ "1G-anon", ANON, G1, MAP_PRIVATE, 0 },
	{ "1G-sysv", SYSV, G1, MAP_SHARED, 0 },
	{ "1G-noreserve", MEMFD, G1, MAP_SHARED | MAP_NORESERVE, 1 },
	{ "1G-noreserve-private", MEMFD, G1, MAP_PRIVATE | MAP_NORESERVE, 1 },
};

enum op { COPY, COPY_WP, ZEROPAGE, CONTINUE, CONTINUE_WP, POISON, PROTECT, UNPROTECT, NR_OPS };
static const char * const op_names[] = {
	"COPY", "COPY+WP", "ZEROPAGE", "CONTINUE", "CONTINUE+WP", "POISON", "WRITEPROTECT", "UNPROTECT",
};

#define ALL	((1 << NR_OPS) - 1)
#define FILLS	(1 << COPY | 1 << ZEROPAGE | 1 << CONTINUE | 1 << POISON)

/* The case; set before the fork. */
static const struct mem *mem;
static int modes;	/* to register with */
static enum op op;
static char state;	/* of a page, see prepare() */
static int variant, count, ops = ALL;

/* What it has made. */
static char *area;
static size_t area_len;
static int uffd = -1, fd = -1;
static const char *fs_dir = "/tmp";

static char *out;	/* its lines; shared with the parent */
static bool in_case;	/* in the child */

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	size_t len = strlen(out);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out + len, OUT_SIZE - len, fmt, ap);
	va_end(ap);
}

/* A case that cannot be set up says so. */
#define must(expr) ({						\
	long _ret = (long)(expr);				\
								\
	if (_ret == -1) {					\
		say(" " #expr ": %m");				\
		if (!in_case)					\
			puts(out);				\
		_exit(fflush(stdout) | 1);			\
	}							\
	_ret;							\
})

/* A child that dies with us. */
static pid_t fork_child(void)
{
	pid_t pid = must(fork());

	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static const char *err(int ret)
{
	return ret ? strerrorname_np(errno) : "-";
}

static void write_to(const char *path, const char *what)
{
	int f = must(open(path, O_WRONLY | O_CLOEXEC));

	must(write(f, what, strlen(what)));
	close(f);
}

/* --- the pools of huge pages --- */

static const char * const counts[] = { "nr", "free", "resv", "surplus" };
enum { NR_PAGES, FREE, RESV, SURPLUS };
struct pool { long n[NR(counts)]; };

static void pool_path(char *path, size_t size, const char *file)
{
	sprintf(path, "/sys/kernel/mm/hugepages/hugepages-%lukB/%s_hugepages", size >> 10, file);
}

static struct pool pool(size_t size)
{
	static int fds[2][NR(counts)];
	struct pool p = { 0 };
	char path[128], buf[32];

	for (size_t i = 0; i < NR(counts) && size > K4; i++) {
		int *f = &fds[size == G1][i];

		pool_path(path, size, counts[i]);
		if (!*f)
			*f = open(path, O_RDONLY);
		memset(buf, 0, sizeof(buf));
		if (*f >= 0 && pread(*f, buf, sizeof(buf) - 1, 0) > 0)
			p.n[i] = atol(buf);
	}
	return p;
}

static void set_pool(size_t size, const char *file, int nr)
{
	char path[128], buf[32];

	pool_path(path, size, file);
	sprintf(buf, "%d", nr);
	write_to(path, buf);
}

static void say_change(const char *what, long change)
{
	if (change)
		say(" %s%+ld", what, change);
}

static void say_pool(struct pool was, size_t size)
{
	struct pool is = pool(size);

	for (size_t i = 0; i < NR(counts); i++)
		say_change(counts[i], is.n[i] - was.n[i]);
}

/* --- content --- */

/* One word in so many bytes is written and looked at; of 1 GiB, less. */
static size_t step(size_t len)
{
	return len == G1 ? K4 : 512;
}

static uint64_t word(char class, size_t page, size_t off)
{
	return (uint64_t)class << 56 | page << 48 | off % M2 | 1;
}

static void fill(char *p, char class, size_t page, size_t len)
{
	for (size_t off = 0; off < len; off += step(len))
		*(volatile uint64_t *)(p + off) = word(class, page, off);
}

static char classify(char *p, size_t page, size_t len)
{
	uint64_t first = *(volatile uint64_t *)p;
	char class = first >> 56;

	for (size_t off = 0; off < len; off += step(len))
		if (*(volatile uint64_t *)(p + off) != (first ? word(class, page, off) : 0))
			return '?';
	return !first ? 'Z' : class == 'S' || class == 'F' ? class : '?';
}

/* --- memory --- */

static int huge_flag(size_t psz)
{
	return psz == M2 ? MFD_HUGE_2MB : psz == G1 ? MFD_HUGE_1GB : 0;
}

static void *map_fixed(void *p, size_t len, int flags, int f, off_t off)
{
	return (void *)must(mmap(p, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, f, off));
}

#define map_anon(p, len, flags)	map_fixed(p, len, MAP_PRIVATE | MAP_ANONYMOUS | (flags), -1, 0)
#define map_huge(p, len)	map_anon(p, len, MAP_HUGETLB | MFD_HUGE_2MB)

/* Address space, aligned, between pages that are no one's. */
static char *reserve(size_t len, size_t align)
{
	uintptr_t p = must(mmap(NULL, len + 2 * align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	return (char *)((p + 2 * align - 1) & -align);
}

static size_t in_file(size_t page)
{
	return (mem->first + page) * mem->psz;
}

static void map(int pages)
{
	size_t psz = mem->psz;
	int huge = huge_flag(psz), id;
	char path[64];

	area_len = pages * psz;
	area = reserve(area_len, psz > M2 ? psz : M2);
	switch (mem->kind) {
	case ANON:
		map_anon(area, area_len, huge ? MAP_HUGETLB | huge : 0);
		break;
	case SYSV:
		id = must(shmget(IPC_PRIVATE, area_len, 0600 | (huge ? SHM_HUGETLB | huge : 0)));
		must(shmat(id, area, SHM_REMAP));
		must(shmctl(id, IPC_RMID, NULL));
		break;
	case DEVZERO:
		map_fixed(area, area_len, mem->flags, must(open("/dev/zero", O_RDWR)), 0);
		break;
	case MEMFD:
	case FS:
		fd = mem->kind == FS ? must(open(fs_dir, O_TMPFILE | O_RDWR, 0600)) :
			must(memfd_create("abi", huge ? MFD_HUGETLB | huge : 0));
		must(ftruncate(fd, in_file(pages)));
		map_fixed(area, area_len, mem->flags, fd, in_file(0));
	}
	if (fd < 0 && (huge || mem->kind != ANON)) {	/* there is a file all the same */
		sprintf(path, "/proc/self/map_files/%lx-%lx", (long)area, (long)area + area_len);
		fd = must(open(path, O_RDWR));
	}
}

static void clean_up(void)
{
	if (area)
		munmap(area, area_len);
	close(fd);
	close(uffd);
	area = NULL;
	fd = -1;
	uffd = -1;
}

static void ignore(__attribute__((unused)) int sig)
{
}

static void hwpoison_page(char *p)
{
	signal(SIGBUS, ignore);		/* SIG_IGN is not enough */
	must(madvise(p, K4, MADV_HWPOISON));
	signal(SIGBUS, SIG_DFL);
}

/* A page of the file through another mapping. */
static void write_file(int page, bool hwpoison)
{
	size_t psz = mem->psz;
	char *p = map_fixed(reserve(psz, psz), psz, MAP_SHARED | MAP_NORESERVE, fd, in_file(page));

	fill(p, 'F', page, psz);
	if (hwpoison)
		hwpoison_page(p);
	munmap(p, psz);
}

/*
 * Bring a page into a state:
 *  .  hole            p  written to       r  read from        c  in the file only
 *  f  fallocate()d    s  swapped out      w  uffd-wp marker   x  UFFDIO_POISON marker
 *  h  hwpoison, in the file only          H  hwpoison, was mapped
 *  e  file ends before it                 E  file ends inside, and has a hole there
 *  G  file ends inside (hugetlb)
 * w and x are made by mark() when userfaultfd is there.
 */
static bool has_state(char s)
{
	bool huge = mem->psz > K4;

	switch (s) {
	case 'c': case 'f': case 'e':
		return huge || mem->kind != ANON;
	case 'E':
		return mem->kind == MEMFD || (!huge && mem->kind != ANON);
	case 'G':
		return huge && mem->kind == MEMFD;
	case 's':
		return !huge;
	}
	return true;
}

static void prepare(char s, int page)
{
	size_t psz = mem->psz, off = in_file(page);
	char *p = area + page * psz;

	if (strchr("psH", s))
		fill(p, 'F', page, psz);
	switch (s) {
	case 'r':
		(void)*(volatile char *)p;
		break;
	case 'c':
	case 'h':
		write_file(page, s == 'h');
		break;
	case 'f':
		must(fallocate(fd, 0, off, psz));
		break;
	case 's':
		must(madvise(p, psz, MADV_PAGEOUT));
		break;
	case 'H':
		hwpoison_page(p);
		break;
	case 'e':
		must(ftruncate(fd, off));
		break;
	case 'E':
	case 'G':
		if (psz == K4) {
			must(ftruncate(fd, off + 100));
			break;
		}
		/* ftruncate() of hugetlbfs wants multiples, fallocate() does not. */
		must(ftruncate(fd, off));
		must(fallocate(fd, 0, 0, off + 5000));
		must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, off + (s == 'E' ? psz : 0)));
	}
}

/* --- userfaultfd --- */

static int new_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int f = must(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));

	must(ioctl(f, UFFDIO_API, &api));
	return f;
}

static int reg(int f, char *p, size_t len, int mode, uint64_t *ioctls)
{
	struct uffdio_register r = { { (uintptr_t)p, len }, mode, 0 };
	int ret = ioctl(f, UFFDIO_REGISTER, &r);

	if (ioctls)
		*ioctls = r.ioctls;
	return ret;
}

#define UNSET	0x5e5e5e5eL

/* All but WRITEPROTECT end in a field for what was done. */
static union {
	struct uffdio_copy copy;
	struct uffdio_zeropage zero;	/* and continue and poison: the same fields */
	struct uffdio_writeprotect wp;
	char page[K4];
} arg __attribute__((aligned(K4)));
static void *argp = &arg;
static bool readonly_arg;

static void do_op(enum op o, void *dst, void *src, size_t len, uint64_t mode)
{
	static const unsigned long cmds[] = {
		UFFDIO_COPY, UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE, UFFDIO_CONTINUE, UFFDIO_POISON,
		UFFDIO_WRITEPROTECT, UFFDIO_WRITEPROTECT,
	};
	struct uffdio_range range = { (uintptr_t)dst, len };
	long long done = UNSET;
	int ret;

	if (o <= COPY_WP)
		arg.copy = (struct uffdio_copy){ (uintptr_t)dst, (uintptr_t)src, len,
			mode | (o == COPY_WP ? UFFDIO_COPY_MODE_WP : 0), UNSET };
	else if (o <= POISON)
		arg.zero = (struct uffdio_zeropage){ range,
			mode | (o == CONTINUE_WP ? UFFDIO_CONTINUE_MODE_WP : 0), UNSET };
	else
		arg.wp = (struct uffdio_writeprotect){ range,
			mode | (o == PROTECT ? UFFDIO_WRITEPROTECT_MODE_WP : 0) };
	if (readonly_arg)
		must(mprotect(&arg, K4, PROT_READ));
	ret = ioctl(uffd, cmds[o], argp);
	if (o <= POISON)
		done = o <= COPY_WP ? arg.copy.copy : arg.zero.zeropage;
	say(" %d %s", ret, err(ret));
	if (o <= POISON && done == UNSET)
		say(" unset");
	else if (o <= POISON)
		say(" %lld", done);
	say(";");
	if (readonly_arg)
		must(mprotect(&arg, K4, PROT_READ | PROT_WRITE));
}

static void start(int mode)
{
	uffd = new_uffd(FEATURES);
	must(reg(uffd, area, area_len, mode, NULL));
}

static void mark(int page)
{
	size_t len = strlen(out);

	if (state == 'w' || state == 'x')
		do_op(state == 'w' ? PROTECT : POISON, area + page * mem->psz, NULL, mem->psz, 0);
	out[len] = 0;
}

/* --- what there is --- */

struct count {
	long blocks, mapped;	/* of the file, in 512 bytes; of huge pages, in KiB */
	struct pool pool;
};
static struct count was;

static struct count count_now(void)
{
	struct count is = { .pool = pool(mem->psz) };
	struct stat st = { 0 };
	char buf[4096] = "", *p;
	int f;

	if (fd >= 0)
		must(fstat(fd, &st));
	is.blocks = st.st_blocks;
	if (mem->psz > K4) {
		f = must(open("/proc/self/status", O_RDONLY));
		must(read(f, buf, sizeof(buf) - 1));
		close(f);
		p = strstr(buf, "HugetlbPages:");
		is.mapped = p ? atol(p + strlen("HugetlbPages:")) : -1;
	}
	return is;
}

static void before(void)
{
	was = count_now();
}

static uint64_t page_flags(int pagemap, char *p)
{
	uint64_t flags;

	must(pread(pagemap, &flags, sizeof(flags), (uintptr_t)p / K4 * sizeof(flags)));
	return flags;
}

static void say_pages(pid_t pid, size_t first, size_t pages)
{
	char path[64];
	int f;

	sprintf(path, "/proc/%d/pagemap", pid ?: getpid());
	f = must(open(path, O_RDONLY));
	for (size_t i = 0; i < pages; i++) {
		char *p = area + (first + i) * mem->psz;
		uint64_t flags = page_flags(f, p);
		bool present = flags >> 63;

		say("%s%c%s%s%s", i ? "," : " [", !present ? '-' : pid ? '*' : classify(p, i, mem->psz),
		    flags >> 62 & 1 ? "s" : "", flags >> 57 & 1 ? "w" : "", present && flags >> 61 & 1 ? "f" : "");
	}
	say("]");
	close(f);
}

static void say_file(size_t first, size_t pages)
{
	char buf[K4];

	say(" file=");
	for (size_t i = 0; i < pages; i++) {
		ssize_t n = pread(fd, buf, K4, in_file(first + i));

		say("%c", n < 0 ? '!' : !n ? '$' : n < (ssize_t)K4 ? '<' : classify(buf, i, K4));
	}
}

static void after(size_t first, size_t pages)
{
	struct count is = count_now();

	say_pages(0, first, pages);
	if (fd >= 0)
		say_file(first, pages);
	say_change("blocks", is.blocks - was.blocks);
	say_change("mapped", is.mapped - was.mapped);
	say_pool(was.pool, mem->psz);
}

/* Write to what is mapped of a private mapping: the file must not see it. */
static void after_store(size_t pages)
{
	int f = must(open("/proc/self/pagemap", O_RDONLY));

	for (size_t i = 0; i < pages; i++) {
		char *p = area + i * mem->psz;
		uint64_t flags = page_flags(f, p);

		if (flags >> 63 && !(flags >> 57 & 1))
			*(volatile uint64_t *)p = 1;
	}
	close(f);
	say(" stored:");
	say_file(0, pages);
}

/* --- sources --- */

static char *warm[2];	/* by size */
static int warm_fd[2], huge_fd;

static char *source(void)
{
	return warm[mem->psz > K4];
}

static void make_sources(void)
{
	for (int huge = 0; huge < 2; huge++) {
		size_t psz = huge ? M2 : K4;
		char *p = map_anon(reserve(3 * psz, psz), 3 * psz, 0);

		madvise(p, 3 * psz, MADV_HUGEPAGE);
		for (int i = 0; i < 3; i++)
			fill(p + i * psz, 'S', i, psz);
		warm[huge] = p;
		warm_fd[huge] = must(memfd_create("source", 0));
		must(write(warm_fd[huge], p, 3 * psz));
	}
	huge_fd = must(memfd_create("source", MFD_HUGETLB | MFD_HUGE_2MB));
	must(ftruncate(huge_fd, M2));
	fill(map_fixed(reserve(M2, M2), M2, MAP_SHARED, huge_fd, 0), 'S', 0, M2);
}

enum { WARM, COLD, HUGETLB, ODD, GONE, GONE_1, GONE_HALF, LOCKED, PAST_EOF };
static const char * const sources[] = {
	"warm", "cold", "hugetlb", "unaligned", "unmapped", "unmapped-from-second", "unmapped-inside-second",
	"inaccessible", "past-eof",
};

static char *make_source(int kind, int pages)
{
	size_t psz = mem->psz, len = pages * psz, gone = len, shift = 0;
	char *p = reserve(len + psz, psz);

	if (psz == G1) {	/* the same huge page over and over */
		for (size_t off = 0; off < len; off += M2)
			map_fixed(p + off, M2, MAP_SHARED | (kind == WARM ? MAP_POPULATE : 0), huge_fd, 0);
		return p;
	}
	switch (kind) {
	case WARM:
		return source();
	case HUGETLB:
		p = map_huge(reserve(pages * M2, M2), pages * M2);
		return memcpy(p, source(), len);
	case PAST_EOF:
		return map_fixed(p, len, MAP_SHARED, must(memfd_create("empty", 0)), 0);
	case ODD:
		shift = 8;
		break;
	case GONE_HALF:		/* the second small page spans two */
		shift = psz == K4 ? K4 / 2 : 0;
		gone = psz == K4 ? 2 * psz : psz + psz / 2;
		break;
	case GONE:
	case GONE_1:
		gone = kind == GONE ? 0 : psz;
	}
	if (shift)
		memcpy(map_anon(p, len + psz, 0) + shift, source(), len);
	else
		map_fixed(p, len, MAP_SHARED, warm_fd[psz > K4], 0);
	if (gone < len)
		must(munmap(p + gone, len - gone));
	if (kind == LOCKED)
		must(mprotect(p, len, PROT_NONE));
	return p + shift;
}

/* --- the cases --- */

static void do_register(void)
{
	struct uffdio_range range;
	uint64_t ioctls;
	int ret;

	map(1);
	range = (struct uffdio_range){ (uintptr_t)area, area_len };
	uffd = new_uffd(FEATURES);
	for (int mode = 0; mode <= 8; mode++) {
		ret = reg(uffd, area, area_len, mode, &ioctls);
		say(" %d: %d %s %llx;", mode, ret, err(ret), (long long)ioctls);
		if (!ret)
			must(ioctl(uffd, UFFDIO_UNREGISTER, &range));
	}
}

/* A hole, registered with some modes. */
static void do_modes(void)
{
	map(1);
	start(variant);
	before();
	do_op(op, area, source(), area_len, 0);
	after(0, 1);
}

/* Three pages, the second in a state; then that one. */
static void do_pages(void)
{
	size_t psz = mem->psz;
	int pages = psz == G1 ? 1 : 3, at = pages / 2;

	map(pages);
	prepare(state, at);
	start(modes);
	mark(at);
	before();
	if (at)
		do_op(op, area, source(), area_len, 0);
	do_op(op, area + at * psz, source() + at * psz, psz, 0);
	after(0, pages);
	if (mem->flags & MAP_PRIVATE && fd >= 0)
		after_store(pages);
}

static void do_source(void)
{
	size_t psz = mem->psz;
	char *src = make_source(variant, 3);

	map(3);
	prepare(state, 1);
	start(modes);
	mark(1);
	before();
	do_op(op, area, src, area_len, 0);
	do_op(op, area + psz, src + psz, psz, 0);
	after(0, 3);
}

/* Leave no more than count pages that are neither used nor reserved. */
static void shrink_pool(void)
{
	struct pool is = pool(mem->psz);
	long len = (is.n[FREE] - is.n[RESV] - count) * mem->psz;

	if (len > 0)	/* not to clear 1 GiB, it gets only reserved */
		must(mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
			  huge_flag(mem->psz) | (mem->psz == M2 ? MAP_POPULATE : 0), -1, 0));
}

static void do_pool(void)
{
	int pages = mem->psz == G1 ? 1 : 3;
	char *src = make_source(variant, pages);

	map(pages);
	shrink_pool();
	start(modes);
	mark(0);
	before();
	do_op(op, area, src, area_len, 0);
	if (pages > 1)
		do_op(op, area, src, mem->psz, 0);
	after(0, pages);
}

/* A child does not have the reservation of a private mapping. */
static void do_pool_child(void)
{
	map(3);
	shrink_pool();
	if (!fork_child()) {
		start(modes);
		before();
		do_op(op, area, make_source(variant, 3), area_len, 0);
		after(0, 3);
		_exit(0);
	}
	wait(NULL);
}

static void do_cgroup(void)
{
	char buf[32] = "";

	write_to(CGROUP "/cgroup.procs", "0");
	map(3);
	start(modes);
	before();
	do_op(op, area, make_source(variant, 3), area_len, 0);
	after(0, 3);
	must(pread(open(CGROUP "/hugetlb.2MB.current", O_RDONLY), buf, sizeof(buf) - 1, 0));
	say(" current=%ld", atol(buf));
}

/* sys/mount.h and linux/fs.h do not agree. */
static void mount_dir(const char *type, const char *options)
{
	mkdir(DIR, 0777);
	must(syscall(SYS_mount, "abi", DIR, type, 0, options));
	fs_dir = DIR;
}

static void unmount_dir(void)
{
	must(syscall(SYS_umount2, DIR, 2 /* MNT_DETACH */));
}

/* A file system with room for two pages, or an owner who may have two. */
static const char *options;
static void do_full(void)
{
	size_t psz = mem->psz;
	struct dqblk quota = { 0 };
	struct statfs was_fs, is_fs;
	char *src = make_source(variant, 3);

	mount_dir(psz > K4 ? "hugetlbfs" : "tmpfs", options);
	map(3);
	unmount_dir();
	must(fchown(fd, 1000, 1000));
	prepare(state, 1);
	start(modes);
	must(seteuid(1000));	/* root has no limits */
	must(fstatfs(fd, &was_fs));
	before();
	do_op(op, area, src, area_len, 0);
	do_op(op, area + 2 * psz, src + 2 * psz, psz, 0);
	must(seteuid(0));
	after(0, 3);
	must(fstatfs(fd, &is_fs));
	say_change("bfree", is_fs.f_bfree - was_fs.f_bfree);
	if (strstr(options, "quota")) {
		must(syscall(SYS_quotactl_fd, fd, QCMD(Q_GETQUOTA, USRQUOTA), 1000, &quota));
		say(" quota=%ld", (long)quota.dqb_curspace);
	}
}

/* Arguments that are wrong, or nearly. */
static const char * const args[] = {
	"dst+1", "dst+half", "dst+4K", "len=100", "len=half", "len=4K", "len=0", "len=2^46", "len=-page", "dst=0",
	"dst=kernel", "mode=bad", "src=0", "src=kernel", "src-wraps", "null", "readonly-argument", "past-end",
	"into-unregistered", "into-other-modes", "into-other-uffd", "into-readonly", "unregistered", "unmapped",
	"other-uffd", "was-registered", "no-api",
};

static void do_args(void)
{
#define is(what) (!strcmp(args[variant], what))
	size_t psz = mem->psz, len = 2 * psz;
	char *dst, *last, *src = source();
	int other = new_uffd(FEATURES);

	map(3);
	dst = area;
	last = area + 2 * psz;
	uffd = is("no-api") ? (int)must(syscall(SYS_userfaultfd, O_CLOEXEC)) : new_uffd(FEATURES);
	if (is("into-unregistered") || is("unregistered"))
		must(reg(uffd, area, 2 * psz, modes, NULL));
	else if (is("into-other-modes") || is("into-other-uffd"))
		must(reg(uffd, area, 2 * psz, modes, NULL) ?:
		     reg(is("into-other-uffd") ? other : uffd, last, psz, MISSING, NULL));
	else
		must(reg(is("no-api") || is("other-uffd") ? other : uffd, area, area_len, modes, NULL));
	if (is("into-readonly"))
		must(mprotect(last, psz, PROT_READ));
	if (is("was-registered"))
		must(ioctl(uffd, UFFDIO_UNREGISTER, &(struct uffdio_range){ (uintptr_t)area, area_len }));
	if (is("past-end") || is("unmapped"))
		must(munmap(last, psz));

	if (is("unregistered") || is("unmapped"))
		dst = last, len = psz;
	if (!strncmp(args[variant], "into-", 5) || is("past-end"))
		len = 3 * psz;
	dst += is("dst+1") ? 1 : is("dst+half") ? psz / 2 : is("dst+4K") ? K4 : 0;
	dst = is("dst=0") ? NULL : is("dst=kernel") ? (char *)(1UL << 63) : dst;
	len = is("len=100") ? 100 : is("len=half") ? psz / 2 : is("len=4K") ? K4 : is("len=0") ? 0 :
		is("len=2^46") ? 1UL << 46 : is("len=-page") ? -psz : len;
	src = is("src=0") ? NULL : is("src=kernel") ? (char *)(1UL << 63) : is("src-wraps") ? (char *)-psz : src;
	argp = is("null") ? NULL : &arg;
	readonly_arg = is("readonly-argument");
	before();
	do_op(op, dst, src, len, is("mode=bad") ? 1UL << 62 : 0);
	after(0, is("past-end") || is("unmapped") ? 2 : 3);
	close(other);
#undef is
}

/* Where the process may not write, or not even read. */
static void do_prot(void)
{
	map(3);
	if (mem->kind != ANON)
		prepare('c', 1);
	start(modes);
	must(mprotect(area, area_len, variant));
	before();
	do_op(op, area, source(), area_len, 0);
	do_op(op, area + mem->psz, source() + mem->psz, mem->psz, 0);
	must(mprotect(area, area_len, PROT_READ | PROT_WRITE));
	after(0, 3);
}

/* The memory of another process, or of one that was. */
static void do_remote(void)
{
	int fds[2], f;
	pid_t pid;

	map(3);
	if (mem->kind != ANON)
		prepare('c', 1);
	must(pipe(fds));
	pid = fork_child();
	if (!pid) {
		start(modes);
		must(write(fds[1], &uffd, sizeof(uffd)));
		pause();
	}
	must(read(fds[0], &f, sizeof(f)));
	uffd = must(syscall(SYS_pidfd_getfd, must(syscall(SYS_pidfd_open, pid, 0)), f, 0));
	if (variant)
		end_child(pid);
	before();
	do_op(op, area, source(), area_len, 0);
	do_op(op, area + mem->psz, source() + mem->psz, mem->psz, 0);
	if (!variant) {
		say_pages(pid, 0, 3);
		end_child(pid);
	}
	after(0, 3);
}

/* A thread waits for the first page. */
static _Atomic int waiter, waiter_done, waiter_errno;
static int waiter_pipe[2];

static void *wait_for_page(void *unused)
{
	waiter = gettid();
	waiter_errno = write(waiter_pipe[1], area, 1) < 0 ? errno : 0;
	waiter_done = 1;
	return unused;
}

static void say_waiter(void)
{
	char path[64], buf[128], *p;
	int f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", waiter);
	for (int asleep = 0; !waiter_done && asleep < 4; ) {
		usleep(5000);
		memset(buf, 0, sizeof(buf));
		f = open(path, O_RDONLY);
		p = f >= 0 && read(f, buf, sizeof(buf) - 1) > 0 ? strrchr(buf, ')') : NULL;
		close(f);
		asleep = p && p[2] == 'S' ? asleep + 1 : 0;
	}
	say(waiter_done ? " woken" : " asleep");
}

/* variant: 1 the op is done without waking first, 2 on the next page first */
static void do_wake(void)
{
	struct uffdio_range range;
	struct uffd_msg msg;
	pthread_t thread;

	map(3);
	for (int i = 0; i < 2 && op == CONTINUE; i++)
		prepare('c', i);
	start(modes);
	must(pipe(waiter_pipe));
	waiter_done = 0;
	must(pthread_create(&thread, NULL, wait_for_page, NULL) ? -1 : 0);
	must(poll(&(struct pollfd){ .fd = uffd, .events = POLLIN }, 1, -1));
	say_waiter();
	if (variant) {	/* DONTWAKE is bit 0 of each mode */
		do_op(op, area + (variant == 2 ? mem->psz : 0), source(), mem->psz, variant == 1);
		say_waiter();
	}
	do_op(op, area, source(), mem->psz, 0);
	say_waiter();
	range = (struct uffdio_range){ (uintptr_t)area, mem->psz };
	must(ioctl(uffd, UFFDIO_WAKE, &range));
	say_waiter();
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg))
		say(" event %d,%llx", msg.event, (long long)msg.arg.pagefault.flags);
	pthread_join(thread, NULL);
	errno = waiter_errno;
	say(" %s", err(errno));
}

/* While a change of mappings waits for the monitor. */
static void *discard(void *p)
{
	madvise(p, mem->psz, MADV_DONTNEED);
	return p;
}

static void do_changing(void)
{
	struct uffd_msg msg;
	pthread_t thread;

	map(3);
	if (op == CONTINUE && mem->kind != ANON)
		prepare('c', 0);
	uffd = new_uffd(FEATURES | UFFD_FEATURE_EVENT_REMOVE);
	must(reg(uffd, area, area_len, modes, NULL));
	must(pthread_create(&thread, NULL, discard, area + 2 * mem->psz) ? -1 : 0);
	must(poll(&(struct pollfd){ .fd = uffd, .events = POLLIN }, 1, -1));
	before();
	do_op(op, area, source(), mem->psz, 0);
	must(read(uffd, &msg, sizeof(msg)));
	pthread_join(thread, NULL);
	do_op(op, area, source(), mem->psz, 0);
	after(0, 1);
}

/* The page before a THP and the first two of it. */
static bool mapped_huge(char *p)
{
	struct page_region region;
	struct pm_scan_arg scan = {
		.size = sizeof(scan), .start = (uintptr_t)p, .end = (uintptr_t)p + K4, .vec = (uintptr_t)&region,
		.vec_len = 1, .category_mask = PAGE_IS_HUGE, .return_mask = PAGE_IS_HUGE,
	};
	int f = must(open("/proc/self/pagemap", O_RDONLY)), ret = must(ioctl(f, PAGEMAP_SCAN, &scan));

	close(f);
	return ret;
}

static void do_thp(void)
{
	char *huge;

	map(1024);
	huge = area + M2;
	must(madvise(area, area_len, MADV_HUGEPAGE));
	if (state == 'r')
		(void)*(volatile char *)huge;
	else
		for (int i = 0; i < 512; i++)
			fill(huge + i * K4, 'F', i + 1, K4);
	say(mapped_huge(huge) ? " huge" : " small");
	if (state == 'c')
		must(madvise(huge, M2, MADV_DONTNEED));
	start(modes);
	before();
	do_op(op, huge - K4, source(), 3 * K4, 0);
	do_op(op, huge, source() + K4, 2 * K4, 0);
	say(mapped_huge(huge) ? " huge" : " small");
	after(511, 3);
}

/* A page table that two processes share, until one registers with what forbids it. */
static void do_pmd_sharing(void)
{
	int to[2], from[2];
	char c = 0;
	pid_t pid;

	area_len = G1;
	area = reserve(G1, G1);
	fd = must(memfd_create("abi", MFD_HUGETLB | MFD_HUGE_2MB));
	must(ftruncate(fd, G1));
	must(pipe(to) + pipe(from));
	pid = fork_child();
	map_fixed(area, G1, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (!pid) {
		must(read(to[0], &c, 1));
		fill(area + M2, 'F', 1, M2);	/* finds the page table of the other */
		must(write(from[1], &c, 1));
		pause();
	}
	fill(area, 'F', 0, M2);
	must(write(to[1], &c, 1));
	must(read(from[0], &c, 1));
	before();
	say(" both:");
	say_pages(0, 0, 5);
	start(variant);
	say_pages(0, 0, 5);
	for (int i = 2; i > 0; i--)
		do_op(op, area + i * M2, source() + i * M2, M2, 0);
	say(" other:");
	say_pages(pid, 0, 5);
	must(reg(uffd, area, G1, MISSING | MINOR, NULL));
	write_file(3, false);
	for (int i = 0; i < 5; i++)
		do_op(CONTINUE, area + i * M2, NULL, M2, 0);
	say(" other:");
	say_pages(pid, 0, 5);
	after(0, 5);
	end_child(pid);
}

/* All that can be asked of 1 GiB that is copied but once. */
static void do_once(void)
{
	char *src = make_source(variant, 1);

	map(1);
	shrink_pool();
	start(modes);
	before();
	do_op(COPY, area, src, G1, 0);
	after(0, 1);
	for (enum op o = COPY; o < NR_OPS; o++)
		do_op(o, area, src, G1, 0);
	do_op(PROTECT, area, src, G1, 0);
	after(0, 1);
	if (mem->flags & MAP_PRIVATE)
		return;
	must(madvise(area, G1, MADV_DONTNEED));
	do_op(COPY, area, src, G1, 0);
	do_op(COPY, area, NULL + M2, G1, 0);
	do_op(CONTINUE_WP, area, src, G1, 0);
	after(0, 1);
}

/* Mappings that userfaultfd may not have, or not with all modes. */
static const char * const vmas[] = {
	"anon", "ramfs-shared", "ramfs-private", "droppable", "vdso", "stack", "readonly-fd", "write-sealed",
	"prot-none", "other-uffd", "2M-misaligned-start", "2M-misaligned-end", "unmapped", "ends-unmapped",
	"anon-and-2M", "anon-and-ramfs", "unaligned", "len=0",
};

static void do_vma(void)
{
#define is(what) (!strcmp(vmas[variant], what))
	char *p = map_anon(reserve(2 * M2, M2), 2 * M2, 0), line[256];
	size_t len = strncmp(vmas[variant], "anon-and", 8) && !is("ends-unmapped") ? M2 : 2 * M2;
	char *second = len == M2 ? p : p + M2;
	uint64_t ioctls;
	int ret, f;
	FILE *maps;

	uffd = new_uffd(FEATURES | (count ? UFFD_FEATURE_WP_ASYNC : 0));
	if (strstr(vmas[variant], "ramfs")) {
		mount_dir("ramfs", "");
		f = must(open(DIR "/file", O_CREAT | O_RDWR, 0600));
		unmount_dir();
		must(ftruncate(f, M2));
		map_fixed(second, M2, is("ramfs-private") ? MAP_PRIVATE : MAP_SHARED, f, 0);
	} else if (strstr(vmas[variant], "2M")) {
		map_huge(second, is("anon-and-2M") ? M2 : 2 * M2);
	} else if (is("droppable")) {
		map_fixed(p, M2, 0x08 /* MAP_DROPPABLE */ | MAP_ANONYMOUS, -1, 0);
	} else if (is("readonly-fd") || is("write-sealed")) {
		f = must(memfd_create("abi", MFD_ALLOW_SEALING));
		must(ftruncate(f, M2));
		sprintf(line, "/proc/self/fd/%d", f);
		if (is("readonly-fd"))
			f = must(open(line, O_RDONLY));
		else
			must(fcntl(f, F_ADD_SEALS, F_SEAL_WRITE));
		must(mmap(p, M2, PROT_READ, MAP_SHARED | MAP_FIXED, f, 0));
	} else if (is("prot-none")) {
		must(mprotect(p, M2, PROT_NONE));
	} else if (is("other-uffd")) {
		must(reg(new_uffd(FEATURES), p, K4, MISSING, NULL));
	} else if (is("unmapped") || is("ends-unmapped")) {
		must(munmap(second, M2));
	} else if (is("vdso") || is("stack")) {
		maps = fopen("/proc/self/maps", "r");
		while (fgets(line, sizeof(line), maps))
			if (strstr(line, vmas[variant]))
				sscanf(line, "%p-%p", (void **)&p, (void **)&second);
		len = is("vdso") ? second - p : (long)K4;	/* it cannot be split */
	}
	p += is("2M-misaligned-start") ? K4 : is("unaligned") ? 1 : 0;
	len = is("2M-misaligned-end") ? M2 + K4 : is("len=0") ? 0 : len;
	for (int mode = 1; mode < 8; mode++) {
		ret = reg(uffd, p, len, mode, &ioctls);
		say(" %d: %d %s %llx;", mode, ret, err(ret), (long long)ioctls);
		if (!ret)
			must(ioctl(uffd, UFFDIO_UNREGISTER, &(struct uffdio_range){ (uintptr_t)p, len }));
	}
#undef is
}

/* --- running them --- */

/* Run cases of a kind in a process of their own: one for each of ops, or only one if !ops. */
__attribute__((format(printf, 2, 3))) static void run(void (*work)(void), const char *fmt, ...)
{
	const struct timespec patience = { 60 + CASE_SECONDS, 0 };
	struct pool was2m = pool(M2), was1g = pool(G1);
	const char *only = getenv("ONLY");
	int set = ops ?: 1, status;
	char name[128];
	sigset_t chld;
	size_t len;
	va_list ap;
	pid_t pid;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	if (only && strncmp(name, only, strlen(only)))
		return;
	*out = 0;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	fflush(stdout);
	pid = must(fork());
	in_case = !pid;
	for (op = 0; in_case && op < NR_OPS; op++) {
		if (!(set >> op & 1))
			continue;
		alarm(CASE_SECONDS);
		say("%s%s%s%s:", *out ? "\n" : "", name, ops ? " " : "", ops ? op_names[op] : "");
		work();
		clean_up();
	}
	if (in_case)
		_exit(0);
	if (sigtimedwait(&chld, NULL, &patience) < 0) {
		printf("%s: cannot be killed\n", name);
		exit(1);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		say(" killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
	len = strlen(out);
	say(" left:");
	status = strlen(out);
	say_pool(was2m, M2);
	say_pool(was1g, G1);
	if (!out[status])
		out[len] = 0;
	puts(out);
}

/* --- loops --- */

static bool use(const char *name)
{
	for (mem = mems; mem < mems + NR(mems) && strcmp(mem->name, name); )
		mem++;
	modes = MISSING | WP | (mem->kind == ANON && mem->psz == K4 ? 0 : MINOR);
	return true;
}

#define for_mems(...)									\
	for (const char **_m = (const char *[]){ __VA_ARGS__, NULL }; *_m && use(*_m); _m++)
#define for_states(string)								\
	for (const char *_s = (string); (state = *_s); _s++)				\
		if (has_state(state))
#define for_variants(names)	for (variant = 0; variant < (int)NR(names); variant++)
#define for_warm_cold		for (variant = WARM; variant <= COLD; variant++)

static void small_and_huge(void)
{
	ops = 0;
	for (size_t i = 0; i < NR(mems); i++)
		if (mems[i].psz < G1 && strcmp(mems[i].name, "hugetlbfs") && use(mems[i].name))
			run(do_register, "%s register", mem->name);
	for (count = 0; count < 2; count++)
		for_variants(vmas)
			run(do_vma, "register %s%s", vmas[variant], count ? " async" : "");

	ops = ALL;
	for_mems("anon", "shmem", "2M", "2M-private")
		for (variant = 1; variant < (mem->kind == ANON ? 4 : 8); variant++)
			run(do_modes, "%s modes=%d", mem->name, variant);
	for_mems("anon", "shmem", "shmem-private", "2M", "2M-private")
		for_states(".prcfseEGwx")
			run(do_pages, "%s page=%c", mem->name, state);
	ops = FILLS;
	for_mems("devzero", "tmpfs", "tmpfs-private", "2M-anon", "2M-sysv", "2M-noreserve", "2M-noreserve-private")
		for_states(".pcex")
			run(do_pages, "%s page=%c", mem->name, state);
	ops = 1 << COPY;
	for_mems("anon", "shmem", "2M", "2M-private")
		for_variants(sources)
			for_states(".pcex")
				run(do_source, "%s source=%s page=%c", mem->name, sources[variant], state);
	ops = FILLS | 1 << PROTECT;
	for_mems("anon", "shmem", "2M")
		for_variants(args)
			run(do_args, "%s %s", mem->name, args[variant]);
	for_mems("anon", "shmem", "shmem-private", "2M", "2M-private") {
		for (variant = PROT_NONE; variant <= PROT_READ; variant++)
			run(do_prot, "%s prot=%s", mem->name, variant ? "read" : "none");
	}
	for_mems("anon", "shmem", "2M") {
		for (variant = 0; variant < 2; variant++)
			run(do_remote, "%s %s-process", mem->name, variant ? "dead" : "other");
		run(do_changing, "%s changing", mem->name);
	}
	for_mems("anon", "shmem", "2M") {
		ops = FILLS & ~(mem->psz > K4 ? 1 << ZEROPAGE : 0) & ~(mem->kind == ANON ? 1 << CONTINUE : 0);
		for (variant = 0; variant < 3; variant++)
			run(do_wake, "%s wake%s", mem->name, variant == 2 ? " next page, then" :
			    variant ? " DONTWAKE, then" : "");
	}
}

static void thp(void)
{
	ops = FILLS | 1 << PROTECT;
	write_to(SHMEM_THP, "advise");
	use("anon");
	for_states("pr")
		run(do_thp, "anon THP=%c", state);
	use("shmem");
	for_states("pc")
		run(do_thp, "shmem THP=%c", state);
	write_to(SHMEM_THP, "never");
}

static void full(void)
{
	ops = FILLS;
	for (int quota = 0; quota < 2; quota++) {
		options = quota ? "usrquota,usrquota_block_hardlimit=8k" : "size=8k";
		for_mems("tmpfs", "tmpfs-private")
			for_states(mem->flags == MAP_SHARED ? ".cf" : ".")
				for_warm_cold
					run(do_full, "%s %s page=%c %s", mem->name, quota ? "quota" : "full", state,
					    sources[variant]);
	}
	ops = 1 << COPY;
	use("hugetlbfs");
	for (int min = 0; min < 2; min++) {
		options = min ? "min_size=4M,pagesize=2M" : "size=4M,pagesize=2M";
		for_states(".c")
			for_warm_cold
				run(do_full, "hugetlbfs %s page=%c %s", min ? "min_size" : "size", state,
				    sources[variant]);
	}
}

static void pools(void)
{
	ops = 1 << COPY;
	for (int more = 0; more <= 2; more += 2) {
		set_pool(M2, "nr_overcommit", more);
		for_mems("2M", "2M-private", "2M-anon", "2M-sysv", "2M-noreserve", "2M-noreserve-private")
			for (count = 0; count < 3 - more / 2; count++)
				for_warm_cold
					for_states(count ? "." : ".w")
						run(do_pool, "%s pool=%d+%d page=%c %s", mem->name, count, more, state,
						    sources[variant]);
	}
	set_pool(M2, "nr_overcommit", 0);
	for_mems("2M-private", "2M-anon")
		for (count = 0; count < 3; count++)
			for_warm_cold
				run(do_pool_child, "%s child pool=%d %s", mem->name, count, sources[variant]);
	write_to("/sys/fs/cgroup/cgroup.subtree_control", "+hugetlb");
	must(mkdir(CGROUP, 0755));
	write_to(CGROUP "/hugetlb.2MB.max", "4194304");
	for_mems("2M", "2M-noreserve")
		for_warm_cold
			run(do_cgroup, "%s cgroup %s", mem->name, sources[variant]);
	rmdir(CGROUP);
	write_to("/sys/fs/cgroup/cgroup.subtree_control", "-hugetlb");
	ops = 1 << COPY | 1 << CONTINUE | 1 << POISON;
	use("2M");
	for (variant = 1; variant < 8; variant++)
		run(do_pmd_sharing, "2M pmd-sharing modes=%d", variant);
}

/* No more of these is written than must be: it takes seconds. */
static void giga(void)
{
	if (pool(G1).n[FREE] < 2) {
		puts("1G: SKIP there are no two free pages of 1 GiB");
		return;
	}
	ops = 0;
	for_mems("1G", "1G-private", "1G-anon", "1G-sysv", "1G-noreserve", "1G-noreserve-private")
		run(do_register, "%s register", mem->name);
	/* Here the source is too short. */
	ops = ALL;
	for_mems("1G", "1G-private")
		for_states(".wxe")
			run(do_pages, "%s page=%c", mem->name, state);
	ops = FILLS;
	for_mems("1G-noreserve", "1G-noreserve-private")
		for_variants(args)
			run(do_args, "%s %s", mem->name, args[variant]);
	ops = 1 << COPY;
	count = 0;
	for_mems("1G", "1G-private", "1G-anon", "1G-sysv", "1G-noreserve", "1G-noreserve-private")
		for_warm_cold
			for_states(".w")
				if (variant == COLD || mem->flags & MAP_NORESERVE)
					run(do_pool, "%s pool=0 page=%c %s", mem->name, state, sources[variant]);
	ops = 0;
	use("1G-private");
	variant = WARM;
	run(do_once, "1G-private pool=0 warm");
	use("1G");
	variant = COLD;
	count = 1;
	run(do_once, "1G pool=1 cold");
	use("1G-noreserve");
	state = '.';
	ops = 1 << COPY;
	run(do_pool, "1G-noreserve pool=1 cold");
}

/* Each loses a page. */
static void hwpoison(void)
{
	ops = FILLS;
	for_mems("anon", "shmem", "shmem-private", "2M", "2M-private")
		for_states(mem->kind == ANON ? "H" : "hH")
			run(do_pages, "%s page=%c", mem->name, state);
}

/* Take all huge pages of 2 MiB but so many, for good. */
static void take_pool(int keep)
{
	static char *p;
	static size_t len;
	long take = pool(M2).n[FREE] - keep;

	if (p)
		munmap(p, len);
	len = take * M2;
	p = take > 0 && keep ? map_fixed(reserve(len, M2), len, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB |
					 MFD_HUGE_2MB | MAP_POPULATE, -1, 0) : NULL;
	if (p)
		madvise(p, len, MADV_DONTFORK);
}

int main(void)
{
	long nr = pool(M2).n[NR_PAGES];
	struct pool is;
	cpu_set_t one;

	out = mmap(NULL, OUT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CPU_ZERO(&one);
	CPU_SET(0, &one);	/* some pages wait in a list per CPU */
	must(sched_setaffinity(0, sizeof(one), &one));
	make_sources();
	take_pool(POOL);
	small_and_huge();
	thp();
	full();
	pools();
	giga();
	take_pool(0);
	hwpoison();

	/* For those who come after us: the pool as it was, and no slow pages. */
	is = pool(M2);
	set_pool(M2, "nr", nr + is.n[NR_PAGES] - is.n[FREE] - 1 /* of huge_fd */);
	if (pool(G1).n[NR_PAGES])
		set_pool(G1, "nr", 0);
	return 0;
}
