// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-fuzz [--seed S] [--seconds N | --rounds N] [--round SEED] [--type NAME]
 *	[--sequential] [-v]
 *
 * Random fills of userfaultfd, and of what else happens to memory.  A round is a process
 * of one memory type and setting.  In half of the rounds one thread knows exactly what
 * each ioctl has to answer and what each page holds (sequential.c); in the others threads
 * get in each other's way, and what they see must have been possible (concurrent.c).
 *
 * The rounds go through the types and both kinds in turn.
 * --round runs the one round whose seed was printed.  One thread does the same each
 * time; with several, the order is the machine's.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include "fuzz.h"

#ifndef GUEST_MEMFD_FLAG_INIT_SHARED
#define GUEST_MEMFD_FLAG_INIT_SHARED	(1ULL << 1)
#endif
#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define FAIL		"/sys/kernel/debug/fail"
#define CGROUP		"/sys/fs/cgroup/uffd-fuzz"
#define HUGE		"/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define ROUND_SECONDS	600
#define PRESSURE_BYTES	"10M"

static const char * const type_names[NR_TYPES] = {
	"anon", "shmem", "shmem-private", "hugetlb", "hugetlb-private", "guest_memfd",
};
const char * const count_names[NR_COUNTS] = {
	"COPY", "ZEROPAGE", "CONTINUE", "POISON", "WRITEPROTECT", "REGISTER", "UNREGISTER", "WAKE",
	"read", "write", "event", "MADV_DONTNEED", "punch hole", "truncate", "fallocate",
	"MADV_PAGEOUT", "MADV_COLLAPSE", "MADV_(NO)HUGEPAGE", "munmap", "mmap", "mremap", "fork",
	"page checked", "page sure", "allocation failed",
};

struct round r;
bool verbose;
struct counts *counts;
char *area, *scratch, *alias;
int uffd = -1, fd = -1;
__thread uint64_t state;
__thread sigjmp_buf *volatile catching;
static __thread int fail_nth_fd = -1;

static void vsay(const char *prefix, const char *fmt, va_list ap)
{
	char line[600];
	int len = snprintf(line, sizeof(line), "# %s", prefix);

	len += vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, len) < 0)
		return;
}

void note(const char *fmt, ...)
{
	va_list ap;

	if (!verbose)
		return;
	va_start(ap, fmt);
	vsay("", fmt, ap);
	va_end(ap);
}

void fail(const char *fmt, ...)
{
	char prefix[64];
	va_list ap;

	/* The first is what counts. */
	if (!atomic_exchange(&counts->failed, true)) {
		snprintf(prefix, sizeof(prefix), "FAIL round %#lx: ", r.seed);
		va_start(ap, fmt);
		vsay(prefix, fmt, ap);
		va_end(ap);
	}
	_exit(1);
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	if (catching)
		siglongjmp(*catching, sig << 8 | info->si_code);
	fail("signal %d, code %d, at %p", sig, info->si_code, info->si_addr);
}

static bool write_file(const char *path, const char *value)
{
	int f = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = f >= 0 && write(f, value, strlen(value)) == (ssize_t)strlen(value);

	if (f >= 0)
		close(f);
	return ok;
}

static bool read_file(const char *path, char *buf, size_t size)
{
	int f = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = f < 0 ? -1 : read(f, buf, size - 1);

	if (f >= 0)
		close(f);
	buf[n > 0 ? n : 0] = 0;
	return n > 0;
}

static long number(const char *path)
{
	char buf[40];

	return read_file(path, buf, sizeof(buf)) ? atol(buf) : -1;
}

/* --- settings of the machine --- */

static struct {
	const char *path, *set;		/* set: for all rounds; NULL: it is up to the round */
	char was[80];
} settings[] = {
	{ THP "enabled" }, { THP "shmem_enabled" },
	{ THP "hugepages-64kB/enabled" }, { THP "hugepages-64kB/shmem_enabled" },
	{ THP "hugepages-2048kB/enabled" }, { THP "hugepages-2048kB/shmem_enabled" },
	{ THP "khugepaged/pages_to_scan" }, { THP "khugepaged/scan_sleep_millisecs" },
	{ FAIL "slab/verbose", "0" }, { FAIL "_page_alloc/verbose", "0" },
	{ FAIL "_usercopy/verbose", "0" }, { FAIL "slab/ignore-gfp-wait", "0" },
	{ FAIL "_page_alloc/ignore-gfp-wait", "0" }, { FAIL "_page_alloc/min-order", "0" },
};
#define NR_SETTINGS	(sizeof(settings) / sizeof(*settings))

static void set_all(void)
{
	for (size_t i = 0; i < NR_SETTINGS; i++) {
		read_file(settings[i].path, settings[i].was, sizeof(settings[i].was));
		if (settings[i].set)
			write_file(settings[i].path, settings[i].set);
	}
}

static void restore_all(void)
{
	char *word;

	for (size_t i = 0; i < NR_SETTINGS; i++) {
		word = strchr(settings[i].was, '[');
		write_file(settings[i].path, word ? strtok(word + 1, "]") : settings[i].was);
	}
}

/* --- a round --- */

void fail_nth(unsigned int nth)
{
	char buf[20];

	if (fail_nth_fd < 0)
		fail_nth_fd = must(open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC));
	must(pwrite(fail_nth_fd, buf, snprintf(buf, sizeof(buf), "%u", nth), 0));
}

bool failed_nth(void)
{
	char buf[20] = "";
	bool did = false;

	/* What it is that fails may also be this. */
	if (pread(fail_nth_fd, buf, sizeof(buf) - 1, 0) > 0)
		did = !atoi(buf);
	while (pwrite(fail_nth_fd, "0", 1, 0) < 0)
		if (errno != EFAULT && errno != ENOMEM)
			fail("fail-nth: %m");
	return did;
}

void answered(enum count op, int err)
{
	counts->done[op]++;
	counts->err[op][err < 64 ? err : 63]++;
}

int do_fill(enum count op, char *dst, size_t len, const char *src, uint64_t mode, int64_t *done)
{
	struct uffdio_range range = { (uintptr_t)dst, len };
	struct uffdio_copy copy = { range.start, (uintptr_t)src, len, mode, *done };
	struct uffdio_zeropage zero = { range, mode, *done };
	struct uffdio_continue cont = { range, mode, *done };
	struct uffdio_poison poison = { range, mode, *done };
	int err;

	switch (op) {
	case COPY:
		err = ioctl(uffd, UFFDIO_COPY, &copy) ? errno : 0;
		*done = copy.copy;
		break;
	case ZEROPAGE:
		err = ioctl(uffd, UFFDIO_ZEROPAGE, &zero) ? errno : 0;
		*done = zero.zeropage;
		break;
	case CONTINUE:
		err = ioctl(uffd, UFFDIO_CONTINUE, &cont) ? errno : 0;
		*done = cont.mapped;
		break;
	default:
		err = ioctl(uffd, UFFDIO_POISON, &poison) ? errno : 0;
		*done = poison.updated;
	}
	answered(op, err);
	return err;
}

void map_at(void *addr, size_t len)
{
	int flags = MAP_FIXED | (is_private() ? MAP_PRIVATE : MAP_SHARED) | (is_file() ? 0 : MAP_ANONYMOUS);
	off_t pos = (char *)addr - area + r.first * r.unit;

	must(mmap(addr, len, PROT_READ | PROT_WRITE, flags, fd, is_file() ? pos : 0));
}

void punch(unsigned int i, unsigned int n)
{
	must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (r.first + i) * r.unit,
		       n * r.unit));
}

void wait_forked(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0));
	note("fork: status %#x", status);
	/* It may be killed: the pool of huge pages, or the cgroup, may be too small for two. */
	if (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL ||
	    !(is_hugetlb() || r.pressure))
		fail("the forked process ended with %#x", status);
	counts->done[FORK]++;
}

char *memory(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	if (p == MAP_FAILED)
		fail("no memory: %m");
	return p;
}

static char *reserve(size_t len)
{
	char *p = memory(len + 2 * M2);

	must(mprotect(p, len + 2 * M2, PROT_NONE));
	return (char *)(((uintptr_t)p + 2 * M2 - 1) / M2 * M2);
}

void open_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	uffd = must(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
	must(ioctl(uffd, UFFDIO_API, &api));
}

static int guest_memfd(size_t size)
{
	struct kvm_create_guest_memfd args = {
		.size = size, .flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED,
	};
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1;

	if (kvm >= 0)
		vm = ioctl(kvm, KVM_CREATE_VM, 0);
	return vm < 0 ? -1 : ioctl(vm, KVM_CREATE_GUEST_MEMFD, &args);
}

static void make_memory(void)
{
	size_t len = r.nr * r.unit;

	area = reserve(len);
	scratch = reserve(len);
	alias = reserve(len);
	if (r.type == GMEM)
		fd = must(guest_memfd((r.first + r.nr) * r.unit));
	else if (is_file())
		fd = must(syscall(SYS_memfd_create, "uffd-fuzz",
				  MFD_CLOEXEC | (is_hugetlb() ? MFD_HUGETLB : 0)));
	if (is_file() && r.type != GMEM)
		must(ftruncate(fd, (r.first + r.nr) * r.unit));
	map_at(area, len);
	if (is_file())
		must(mmap(alias, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			  r.first * r.unit));
}

static uint64_t all_features;	/* that are no events */
static unsigned int types;	/* that work here */
static bool can_inject, only_sequential;
static unsigned int results;
static unsigned int ran[NR_TYPES][2], under_pressure, with_failures;	/* rounds */

static void plan(uint64_t seed)
{
	uint64_t s = seed;

	memset(&r, 0, sizeof(r));
	r.seed = seed;
	do {
		r.type = rnd64(&s) % NR_TYPES;
	} while (!(types & 1 << r.type));
	r.concurrent = rnd64(&s) % 2 && !only_sequential;
	r.unit = is_hugetlb() ? M2 : K4;
	r.nr = is_hugetlb() ? 2 + rnd64(&s) % 7 : 16 + rnd64(&s) % (rnd64(&s) % 3 ? 200 : MAX_PAGES - 16);
	r.first = is_file() && rnd64(&s) % 3 == 0 ? 1 + rnd64(&s) % (is_hugetlb() ? 3 : 600) : 0;
	r.pressure = rnd64(&s) % 6 == 0 && r.type <= SHMEM_PRIVATE;
	if (r.pressure)
		r.nr = MAX_PAGES;
	r.swap = r.pressure || rnd64(&s) % 2;
	r.inject = can_inject && rnd64(&s) % 3 == 0;
	r.features = all_features;
	if (rnd64(&s) % 2)
		r.features &= ~UFFD_FEATURE_WP_UNPOPULATED;
	r.ops = 200 + rnd64(&s) % (is_hugetlb() ? 400 : 1500);
}

static void set_policy(uint64_t seed)
{
	static const char * const anon[] = { "always", "madvise", "never", "always" };
	static const char * const shmem[] = { "always", "never", "advise", "within_size" };
	static const char * const small[] = { "always", "never", "inherit", "madvise" };
	static const char * const shmem_small[] = { "always", "never", "inherit", "advise" };
	uint64_t s = seed ^ 0x7419;

	/* 6.18 does not end truncating large folios of shmem that are swapped out. */
	bool large = !(r.swap && (r.type == SHMEM || r.type == SHMEM_PRIVATE));

	write_file(THP "enabled", anon[rnd64(&s) % 4]);
	write_file(THP "shmem_enabled", large ? shmem[rnd64(&s) % 4] : "never");
	write_file(THP "hugepages-64kB/enabled", small[rnd64(&s) % 4]);
	write_file(THP "hugepages-64kB/shmem_enabled", large ? shmem_small[rnd64(&s) % 4] : "never");
	write_file(THP "hugepages-2048kB/enabled", small[rnd64(&s) % 4]);
	write_file(THP "hugepages-2048kB/shmem_enabled", large ? shmem_small[rnd64(&s) % 4] : "never");
	/* It is in the way of one who wants to know what is mapped. */
	write_file(THP "khugepaged/pages_to_scan", r.concurrent ? "4096" : "1");
	write_file(THP "khugepaged/scan_sleep_millisecs", r.concurrent ? "20" : "100000000");
}

static void child(void)
{
	struct sigaction act = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	sigaction(SIGBUS, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
	if (r.pressure)
		must(write_file(CGROUP "/cgroup.procs", "0") ? 0 : -1);
	make_memory();
	if (r.concurrent)
		concurrent();
	else
		sequential();
	_exit(0);
}

/* Where its threads are. */
static void say_where(pid_t pid)
{
	char path[600], buf[4096];
	struct dirent *t;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (t = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stack", pid, t->d_name);
		if (*t->d_name != '.' && read_file(path, buf, sizeof(buf)))
			printf("# thread %s:\n%s", t->d_name, buf);
	}
	if (dir)
		closedir(dir);
	fflush(stdout);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * Does it end within so many seconds?
 *
 * 6.18 reclaims from a memory cgroup by the statistics of up to two seconds ago, and kills
 * with all of its memory on the active list if these say that some is inactive: see
 * docs/torture.md.  One who reads them makes them new.
 */
static bool ends(pid_t pid, int *status, double seconds)
{
	double until = now() + seconds;
	char stat[16];

	while (waitpid(pid, status, WNOHANG) != pid) {
		if (now() > until)
			return false;
		if (r.pressure)
			read_file(CGROUP "/memory.stat", stat, sizeof(stat));
		usleep(2000);
	}
	return true;
}

static bool run_round(uint64_t seed)
{
	long pool = number(HUGE "free_hugepages"), reserved = number(HUGE "resv_hugepages");
	uint64_t s = seed ^ 0x411;
	bool interrupt, ok;
	int status = 0;
	pid_t pid;

	plan(seed);
	/* In the middle of whatever it does. */
	interrupt = r.concurrent && rnd64(&s) % 4 == 0;
	set_policy(seed);
	if (verbose)
		printf("# round %#lx: %s, %s, %u pages from %u on, features %#lx%s%s%s\n", seed,
		       type_names[r.type], r.concurrent ? "concurrent" : "sequential", r.nr, r.first,
		       r.features, r.pressure ? ", pressure" : r.swap ? ", swap" : "",
		       r.inject ? ", allocations fail" : "",
		       interrupt ? ", killed" : "");
	fflush(stdout);
	pid = fork();
	if (!pid)
		child();
	if (pid < 0)
		fail("fork: %m");
	if (interrupt) {
		ok = ends(pid, &status, (rnd64(&s) % 1000) / 500.0);
		if (!ok)
			kill(pid, SIGKILL);
		if (!ok && !ends(pid, &status, 60)) {
			say_where(pid);
			fail("cannot be killed");
		}
	} else if (!ends(pid, &status, 60) &&
		   (printf("# round %#lx takes long\n", seed), !ends(pid, &status, ROUND_SECONDS - 60))) {
		say_where(pid);
		kill(pid, SIGKILL);
		fail("hangs%s", ends(pid, &status, 60) ? "" : ", and cannot be killed");
	}
	ok = !counts->failed &&
	     (WIFEXITED(status) ? !WEXITSTATUS(status) : WTERMSIG(status) == SIGKILL && interrupt);
	if (!ok && !counts->failed)
		printf("# FAIL round %#lx: status %#x\n", seed, status);
	/* All of its huge pages are free again. */
	for (int i = 0; ok && pool >= 0 && (number(HUGE "free_hugepages") != pool ||
					    number(HUGE "resv_hugepages") != reserved); i++) {
		if (i == 500) {
			printf("# FAIL round %#lx: %ld huge pages are free, and %ld reserved, not %ld and %ld\n",
			       seed, number(HUGE "free_hugepages"), number(HUGE "resv_hugepages"),
			       pool, reserved);
			ok = false;
			break;
		}
		usleep(10000);
	}
	counts->failed = false;
	return ok;
}

/* --- all of them --- */

static void lacks(const char *what, const char *why)
{
	printf("ok %u %s # SKIP %s\n", ++results, what, why);
}

/* What is there to do? */
static bool look(unsigned int want)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = MISSING };
	int f;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
		lacks("all", "no userfaultfd");
		return false;
	}
	/* Those of events are up to the round. */
	all_features = api.features & ~(uint64_t)(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_SIGBUS |
			UFFD_FEATURE_WP_ASYNC);
	types = 1 << ANON | 1 << SHMEM | 1 << SHMEM_PRIVATE;
	if (number(HUGE "nr_hugepages") >= 40)
		types |= 1 << HUGETLB | 1 << HUGETLB_PRIVATE;
	else
		lacks("hugetlb", "takes 40 huge pages");
	f = guest_memfd(M2);
	if (f >= 0) {
		reg.range.len = M2;
		reg.range.start = (uintptr_t)mmap(NULL, M2, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
		/* Not without the series. */
		if (!ioctl(uffd, UFFDIO_REGISTER, &reg))
			types |= 1 << GMEM;
	}
	if (!(types & 1 << GMEM))
		lacks("guest_memfd", "cannot be registered");
	close(uffd);
	uffd = -1;
	types &= want;
	if (!types)
		lacks("all", "the type does not work here");
	can_inject = !access("/proc/self/fail-nth", W_OK);
	if (!can_inject)
		lacks("failing allocations", "no /proc/self/fail-nth");
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	mkdir(CGROUP, 0755);
	if (!write_file(CGROUP "/memory.max", PRESSURE_BYTES))
		lacks("pressure", "no memory cgroup");
	return types;
}

/* The seed of a round of the type and kind that have had the fewest. */
static uint64_t next_round(uint64_t *state)
{
	unsigned int fewest = ~0U, t, k;
	uint64_t seed;

	for (t = 0; t < NR_TYPES; t++)
		for (k = 0; k < (only_sequential ? 1 : 2); k++)
			if (types & 1 << t && ran[t][k] < fewest)
				fewest = ran[t][k];
	do {
		seed = rnd64(state);
		plan(seed);
	} while (ran[r.type][r.concurrent] != fewest);
	return seed;
}

/* That many rounds leave nothing out. */
#define MANY		50

static bool idle(unsigned long rounds)
{
	bool did_nothing = !counts->done[CHECKED] ||
			   (!only_sequential && !counts->done[SURE]) ||
			   (can_inject && !counts->done[INJECTED]);

	if (rounds < MANY)
		return !rounds;
	for (int i = COPY; i <= POISON; i++)
		did_nothing |= types & ~(1U << ANON) && !counts->err[i][0];
	return did_nothing;
}

static void report(unsigned long rounds, double seconds)
{
	unsigned long fills = 0;

	for (int i = COPY; i <= POISON; i++)
		fills += counts->done[i];
	printf("# %lu rounds, %lu fills, %.0f s\n", rounds, fills, seconds);
	printf("# rounds under pressure %u, with failing allocations %u\n", under_pressure,
	       with_failures);
	for (int t = 0; t < NR_TYPES; t++)
		if (types & 1 << t)
			printf("# rounds of %-15s  sequential %u, concurrent %u\n", type_names[t],
			       ran[t][0], ran[t][1]);
	for (int i = 0; i < NR_COUNTS; i++) {
		printf("# %-18s %8lu", count_names[i], counts->done[i]);
		for (int e = 0; i <= WRITEPROTECT && e < 64; e++)
			if (counts->err[i][e])
				printf("  %s %lu", e ? strerrorname_np(e) ?: "?" : "ok", counts->err[i][e]);
		puts("");
	}
}

static void usage(const char *what)
{
	fprintf(stderr, "uffd-fuzz: %s? see the head of uffd-fuzz.c\n", what);
	exit(2);
}

/* A number, and not 0. */
static uint64_t value_of(const char *option, const char *value)
{
	char *end;
	uint64_t n;

	if (!value)
		usage(option);
	n = strtoull(value, &end, 0);
	if (!n || *end)
		usage(value);
	return n;
}

int main(int argc, char **argv)
{
	uint64_t seed = time(NULL) * 1000003ULL, one = 0, s;
	unsigned long rounds = 0, most = ~0UL, failed = 0;
	unsigned int want = ~0U, t;
	double start = now(), seconds = 60, beat = start;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(argv[i], "-v")) {
			verbose = true;
			continue;
		}
		if (!strcmp(argv[i], "--sequential")) {
			only_sequential = true;
			continue;
		}
		if (!strcmp(argv[i], "--seed")) {
			seed = value_of(argv[i], value);
		} else if (!strcmp(argv[i], "--seconds")) {
			seconds = value_of(argv[i], value);
		} else if (!strcmp(argv[i], "--rounds")) {
			most = value_of(argv[i], value);
			seconds = 1e9;
		} else if (!strcmp(argv[i], "--round")) {
			one = value_of(argv[i], value);
		} else if (value && !strcmp(argv[i], "--type")) {
			for (t = 0; t < NR_TYPES && strcmp(value, type_names[t]); t++)
				;
			if (t == NR_TYPES)
				usage(value);
			want = 1 << t;
		} else {
			usage(argv[i]);
		}
		i++;
	}
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	printf("TAP version 13\n");
	if (!look(want)) {
		printf("1..%u\n", results);
		return 4;
	}
	set_all();
	printf("# seed %#lx\n", seed);
	s = seed;
	while (one ? !rounds : rounds < most && now() - start < seconds) {
		bool ok = run_round(one ?: next_round(&s));

		rounds++;
		ran[r.type][r.concurrent]++;
		under_pressure += r.pressure;
		with_failures += r.inject;
		if (!ok && ++failed == 10)
			break;
		if (now() - beat > 60) {
			beat = now();
			printf("# %lu rounds after %.0f s\n", rounds, beat - start);
		}
	}
	restore_all();
	rmdir(CGROUP);
	report(rounds, now() - start);
	for (t = 0; !one && t < NR_TYPES; t++)
		for (unsigned int k = 0; types & 1 << t && k < (only_sequential ? 1 : 2); k++)
			if (!ran[t][k])
				lacks(type_names[t], k ? "too short for a concurrent round" :
				      "too short for a sequential round");
	if (idle(rounds)) {
		printf("# FAIL: of what is counted above, something was never done\n");
		failed++;
	}
	printf("%sok %u %lu of %lu rounds failed\n1..%u\n", failed ? "not " : "", results + 1, failed,
	       rounds, results + 1);
	return failed ? 1 : 0;
}
