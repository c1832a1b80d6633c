/* SPDX-License-Identifier: GPL-2.0 */
/* What the two kinds of rounds of uffd-fuzz share; see uffd-fuzz.c. */
#ifndef UFFD_FUZZ_H
#define UFFD_FUZZ_H

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define K4		4096UL
#define M2		(2UL << 20)
#define MAX_PAGES	2048

#define MISSING		UFFDIO_REGISTER_MODE_MISSING
#define MINOR		UFFDIO_REGISTER_MODE_MINOR
#define WP		UFFDIO_REGISTER_MODE_WP

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

enum type { ANON, SHMEM, SHMEM_PRIVATE, HUGETLB, HUGETLB_PRIVATE, GMEM, NR_TYPES };

/* A round: all of it follows from the seed. */
struct round {
	uint64_t seed;
	enum type type;
	bool concurrent;
	bool pressure;		/* less memory than it uses */
	bool swap;		/* what it has is swapped out */
	bool inject;		/* now and then an allocation fails */
	uint64_t features;
	size_t unit;		/* bytes of a page */
	unsigned int nr;	/* pages */
	unsigned int first;	/* page of the file that is mapped first */
	unsigned int ops;
};
extern struct round r;
extern bool verbose;

/* What the parent adds up. */
enum count {
	COPY, ZEROPAGE, CONTINUE, POISON, WRITEPROTECT, REGISTER, UNREGISTER, WAKE,
	READ, WRITE, EVENT, DISCARD, PUNCH, TRUNCATE, FALLOCATE, PAGEOUT, COLLAPSE, ADVISE,
	UNMAP, MAP, MOVE, FORK, CHECKED, SURE, INJECTED, NR_COUNTS
};
struct counts {
	atomic_ulong done[NR_COUNTS];
	atomic_ulong err[REGISTER + 1][64];	/* fills: by errno, 0 being success */
	atomic_bool failed;
};
extern struct counts *counts;
extern const char * const count_names[];

static inline uint64_t rnd64(uint64_t *state)
{
	uint64_t x = (*state += 0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* Of the thread; seeded from r.seed. */
extern __thread uint64_t state;
static inline unsigned int below(unsigned int n)
{
	return rnd64(&state) % n;
}

/* The region; made by make_memory(). */
extern char *area, *scratch, *alias;
extern int uffd, fd;
static inline char *at(unsigned int i)
{
	return area + i * r.unit;
}

static inline bool is_file(void) { return r.type != ANON; }
static inline bool is_hugetlb(void) { return r.type == HUGETLB || r.type == HUGETLB_PRIVATE; }
static inline bool is_private(void)
{
	return r.type == ANON || r.type == SHMEM_PRIVATE || r.type == HUGETLB_PRIVATE;
}

void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define must(expr) ({							\
	long _ret = (long)(expr);					\
									\
	if (_ret == -1)							\
		fail("%s:%d: %s: %m", __FILE__, __LINE__, #expr);	\
	_ret;								\
})

char *memory(size_t len);
void map_at(void *addr, size_t len);
void punch(unsigned int i, unsigned int n);
/* Wait for a forked process, which has to have ended well. */
void wait_forked(pid_t pid);
void open_uffd(uint64_t features);

#define BIT(err)	(1ULL << (err))

/* One more of those whose answers are counted. */
void answered(enum count op, int err);

/* A fill of COPY ... POISON: 0 or the errno, and in @done what it says it did, if anything. */
int do_fill(enum count op, char *dst, size_t len, const char *src, uint64_t mode, int64_t *done);

/*
 * Runs @access with signals of faults caught: 0, or signal << 8 | si_code.  In a function
 * of its own, for the sake of local variables.
 */
extern __thread sigjmp_buf *volatile catching;
#define guarded(access) ({						\
	sigjmp_buf _env;						\
	volatile int _sig = sigsetjmp(_env, 0);				\
									\
	if (!_sig) {							\
		catching = &_env;					\
		access;							\
	}								\
	catching = NULL;						\
	_sig;								\
})

/* Have the @nth allocation or user copy of this thread fail; did it, since? */
void fail_nth(unsigned int nth);
bool failed_nth(void);

void sequential(void);
void concurrent(void);

#endif
