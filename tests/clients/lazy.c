// SPDX-License-Identifier: GPL-2.0
/*
 * lazy FIRST: the program of criu-lazy.  It fills memory of several types and waits for
 * the file "go"; then, restored, it sees whether all is there, and reports the results
 * FIRST and following.  On the way it does to its memory what userfaultfd has events for.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	4096UL
#define SIZE	(1UL << 20)
#define PAGES	(SIZE / PAGE)

enum { ANON, MOVED, DROPPED, FORKED, SHMEM, MEMFD, PRIVATE_FILE, NR };
static const char *const names[NR] = {
	"anonymous", "anonymous, moved", "anonymous, dropped by half", "anonymous, of a child",
	"shmem", "memfd", "private file",
};
static uint64_t *memory[NR];
static int result, failed;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

/* Each other page has never been touched. */
static bool touched(int type, unsigned long page)
{
	return !(page % (type == PRIVATE_FILE ? 4 : 2));
}

static uint64_t word(int type, unsigned long page, unsigned long i)
{
	if (!touched(type, page))
		return 0;
	return ((uint64_t)(type + 1) << 32 | (page * PAGE + i * 8)) * 0x9e3779b97f4a7c15;
}

static void fill(int type)
{
	for (unsigned long p = 0; p < PAGES; p++) {
		for (unsigned long i = 0; i < PAGE / 8 && touched(type, p); i++)
			memory[type][p * PAGE / 8 + i] = word(type, p, i);
	}
}

/* From all over it, not in the order in which it is filled ahead. */
static bool good(int type, unsigned long until)
{
	for (unsigned long n = 0; n < PAGES; n++) {
		unsigned long p = n * 37 % PAGES;

		for (unsigned long i = 0; i < PAGE / 8; i++) {
			uint64_t is = memory[type][p * PAGE / 8 + i];
			uint64_t want = p < until ? word(type, p, i) : 0;

			if (is == want)
				continue;
			printf("# %s: page %lu, word %lu: %#lx, not %#lx\n",
			       names[type], p, i, is, want);
			return false;
		}
	}
	return true;
}

static void report(int type, bool ok)
{
	printf("%sok %d criu restored %s\n", ok ? "" : "not ", result++, names[type]);
	failed += !ok;
}

static void *map(int flags, int fd)
{
	void *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);

	must(p != MAP_FAILED, "mmap");
	return p;
}

/* Of zeroes, as is what the program does not touch. */
static int file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	must(fd >= 0 && !ftruncate(fd, SIZE), path);
	return fd;
}

int main(int argc, char **argv)
{
	struct sched_param first = { .sched_priority = 1 };
	int fd = memfd_create("lazy", 0), status;
	pid_t pid;

	result = argc > 1 ? atoi(argv[1]) : 1;
	must(fd >= 0 && !ftruncate(fd, SIZE), "memfd");
	for (int type = ANON; type < SHMEM; type++)
		memory[type] = map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memory[SHMEM] = map(MAP_SHARED | MAP_ANONYMOUS, -1);
	memory[MEMFD] = map(MAP_SHARED, fd);
	memory[PRIVATE_FILE] = map(MAP_PRIVATE, file("file"));
	for (int type = 0; type < NR; type++)
		fill(type);
	/* On the one CPU that both have what fills memory shall run only if we wait for it. */
	must(!sched_setscheduler(0, SCHED_FIFO, &first), "sched_setscheduler");
	close(open("ready", O_CREAT | O_WRONLY, 0600));
	while (access("go", F_OK))
		usleep(1000);

	alarm(60);
	memory[MOVED] = mremap(memory[MOVED], SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			       map(MAP_PRIVATE | MAP_ANONYMOUS, -1));
	must(memory[MOVED] != MAP_FAILED, "mremap");
	must(!madvise(memory[DROPPED] + SIZE / 16, SIZE / 2, MADV_DONTNEED), "madvise");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid)
		_exit(!good(FORKED, PAGES));
	for (int type = 0; type < NR; type++) {
		bool ok = good(type, type == DROPPED ? PAGES / 2 : PAGES);

		if (type == FORKED) {
			must(waitpid(pid, &status, 0) == pid, "waitpid");
			ok = ok && !status;
		}
		report(type, ok);
	}
	return failed > 0;
}
