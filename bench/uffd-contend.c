// SPDX-License-Identifier: GPL-2.0
/*
 * Which locks threads wait for that fill memory through userfaultfd at the same time.
 * For a kernel with CONFIG_LOCK_STAT. Prints, tab separated, for each workload, round and
 * lock class that somebody waited for or that was taken often, and for "all" of them:
 *
 *	WORKLOAD ROUND CLASS CONTENTIONS ACQUISITIONS WAIT-MICROSECONDS
 *
 * fill-OP-MEM-CALL-U: two threads, each on a CPU of its own, fill one half of a mapping
 * each by calls of that size; U userfaultfds. fault-N-M: N threads touch memory, M
 * threads read the events and COPY 4 KiB.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#define PAGE	4096UL
#define MIB	(1UL << 20)
#define SPAN	(64 * MIB)
#define FAULTS	(16 * MIB)	/* of it, if threads fault */
#define MAX	4	/* threads that fault, and that serve them */
#define ROUNDS	4
#define OFTEN	100

enum op { COPY, ZEROPAGE, CONTINUE };
static const struct {
	const char *name;
	enum op op;
	bool shmem;
} fills[] = {
	{ "copy-anon", COPY, false }, { "copy-shmem", COPY, true },
	{ "zeropage-anon", ZEROPAGE, false }, { "continue-shmem", CONTINUE, true },
};

static enum op op;
static size_t call;
static char *dst, *src;
static pthread_barrier_t barrier;
static int missing;	/* fillers that do not run yet */

struct share {		/* of a thread */
	pthread_t thread;
	int uffd, cpu;
	size_t start, len;
};

__attribute__((noreturn))
static void die(const char *what)
{
	printf("uffd-contend: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die(path);
	close(fd);
}

static void measure(bool on)
{
	if (on)
		set("/proc/lock_stat", "0");	/* forget */
	set("/proc/sys/kernel/lock_stat", on ? "1" : "0");
}

static void print_stats(const char *name, int round)
{
	unsigned long nr, taken, all_nr = 0, all_taken = 0;
	FILE *f = fopen("/proc/lock_stat", "re");
	double wait, all_wait = 0;
	char line[1024], *colon;

	if (!f)
		die("/proc/lock_stat");
	while (fgets(line, sizeof(line), f)) {
		colon = strrchr(line, ':');
		if (!colon || sscanf(colon + 1, "%*u %lu %*f %*f %lf %*f %*u %lu", &nr, &wait, &taken) != 3)
			continue;
		*colon = 0;
		all_nr += nr;
		all_wait += wait;
		all_taken += taken;
		if (nr || taken >= OFTEN)
			printf("%s\t%d\t%s\t%lu\t%lu\t%.0f\n", name, round, line + strspn(line, " "), nr, taken, wait);
	}
	fclose(f);
	if (!all_taken)
		die("/proc/lock_stat has counted nothing");
	printf("%s\t%d\tall\t%lu\t%lu\t%.0f\n", name, round, all_nr, all_taken, all_wait);
}

static void fill(int uffd, size_t at, size_t len)
{
	struct uffdio_copy c = {
		.dst = (uintptr_t)dst + at, .src = (uintptr_t)src + at, .len = len,
	};
	struct uffdio_zeropage z = { .range = { (uintptr_t)dst + at, len } };
	struct uffdio_continue m = { .range = { (uintptr_t)dst + at, len } };

	if (op == COPY ? ioctl(uffd, UFFDIO_COPY, &c) :
	    op == ZEROPAGE ? ioctl(uffd, UFFDIO_ZEROPAGE, &z) : ioctl(uffd, UFFDIO_CONTINUE, &m))
		die("fill");
}

static void start(void)
{
	pthread_barrier_wait(&barrier);
}

static void *filler(void *arg)
{
	struct share *s = arg;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(s->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("two CPUs are needed");
	start();
	/* It takes one of them longer to wake up than it takes the other to fill its half. */
	__atomic_sub_fetch(&missing, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&missing, __ATOMIC_SEQ_CST))
		;
	for (size_t off = 0; off < s->len; off += call)
		fill(s->uffd, s->start + off, call);
	return NULL;
}

static void *vcpu(void *arg)
{
	struct share *s = arg;

	start();
	for (size_t off = 0; off < s->len; off += PAGE)
		*(volatile char *)(dst + s->start + off) = 1;
	return NULL;
}

static void *handler(void *arg)
{
	struct share *s = arg;
	struct uffd_msg msg;

	while (read(s->uffd, &msg, sizeof(msg)) == sizeof(msg))
		fill(s->uffd, (msg.arg.pagefault.address & -PAGE) - (uintptr_t)dst, PAGE);
	die("read");
}

static char *map(int fd)
{
	char *p = mmap(NULL, SPAN, PROT_READ | PROT_WRITE,
		       fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static int arm(size_t at, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)dst + at, len },
		.mode = op == CONTINUE ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		die("register");
	return uffd;
}

/* One round, in a process of its own: threads that fill, or that fault if others handle it. */
static void run(const char *name, int round, bool shmem, int uffds, int threads, int handlers)
{
	struct share s[MAX] = {}, h[MAX] = {};
	int fd = shmem ? memfd_create("contend", MFD_CLOEXEC) : -1;

	if (shmem && ftruncate(fd, SPAN))
		die("memfd");
	src = map(-1);
	memset(src, 1, SPAN);
	if (op == CONTINUE)
		memset(map(fd), 1, SPAN);
	dst = map(fd);
	missing = threads;
	pthread_barrier_init(&barrier, NULL, threads + 1);
	for (int i = 0; i < uffds; i++)
		s[i].uffd = arm(SPAN / uffds * i, SPAN / uffds);
	for (int i = 0; i < handlers; i++) {
		h[i].uffd = s[0].uffd;
		if (pthread_create(&h[i].thread, NULL, handler, &h[i]))
			die("pthread_create");
	}
	for (int i = 0; i < threads; i++) {
		s[i].cpu = i;
		s[i].uffd = s[i % uffds].uffd;
		s[i].len = (handlers ? FAULTS : SPAN) / threads;
		s[i].start = s[i].len * i;
		if (pthread_create(&s[i].thread, NULL, handlers ? vcpu : filler, &s[i]))
			die("pthread_create");
	}
	usleep(20000);	/* until all wait */
	measure(true);
	start();
	for (int i = 0; i < threads; i++)
		pthread_join(s[i].thread, NULL);
	measure(false);
	print_stats(name, round);
	fflush(stdout);
	_exit(0);
}

static void workload(const char *name, bool shmem, int uffds, int threads, int handlers)
{
	int status;

	for (int round = 0; round < ROUNDS; round++) {
		if (!fork()) {
			alarm(120);
			run(name, round, shmem, uffds, threads, handlers);
		}
		wait(&status);
		if (status) {
			printf("uffd-contend: %s ended with status %#x\n", name, status);
			exit(1);
		}
	}
}

int main(void)
{
	char name[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < (int)(sizeof(fills) / sizeof(fills[0])); i++)
		for (int uffds = 1; uffds <= 2; uffds++)
			for (call = PAGE; call <= 2 * MIB; call *= 512) {
				op = fills[i].op;
				snprintf(name, sizeof(name), "fill-%s-%s-%d", fills[i].name,
					 call == PAGE ? "4K" : "2M", uffds);
				workload(name, fills[i].shmem, uffds, 2, 0);
			}
	op = COPY;
	for (int n = 1; n <= MAX; n *= 2)
		for (int m = 1; m <= MAX; m *= 2) {
			snprintf(name, sizeof(name), "fault-%d-%d", n, m);
			workload(name, false, 1, n, m);
		}
	return 0;
}
