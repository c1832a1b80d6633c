// SPDX-License-Identifier: GPL-2.0
/*
 * Threads on the same pages.  Nobody knows which of them comes first, but:
 *
 * - a page holds what some fill of this very page has put there, or zeros; never a mix
 *   of two that nothing has replaced, another page's, or what was never copied;
 * - what was discarded after a fill was over is never seen again;
 * - what a fill said it has done is there until something discards it;
 * - an ioctl fails only for a reason that was possible;
 * - whoever waits for a page gets on, and all threads end.
 */
#define _GNU_SOURCE
#include <poll.h>
#include "fuzz.h"

#define THREADS		5
#define MAX_FILLS	(1U << 18)
#define WORDS		16	/* that a fill writes, of a page; touches write the last one */
#define IN_FILE		1	/* "fill" that a private mapping's file has had from the start */
#define NOTHING		~0U

static atomic_ulong now_;		/* orders what happens */
static atomic_uint fills = IN_FILE;
static atomic_ulong fill_end[MAX_FILLS];	/* 0: not over */
static struct {
	atomic_ulong killed;		/* all fills that were over then are gone */
	atomic_uint killers;		/* what is discarding it right now */
	atomic_ulong spared;		/* since then nobody has */
	atomic_ulong done;		/* when a fill began << 18 | the fill; zeros are fill 0 */
} life[MAX_PAGES];
static pthread_rwlock_t moving = PTHREAD_RWLOCK_INITIALIZER;
static atomic_bool over;
static pthread_barrier_t ready;

static __thread char *src;

static unsigned long stamp(void)
{
	return atomic_fetch_add(&now_, 1) + 1;
}

static void raise_to(atomic_ulong *p, unsigned long value)
{
	unsigned long old = *p;

	while (old < value && !atomic_compare_exchange_weak(p, &old, value))
		;
}

/* --- contents --- */

#define MAGIC		0xf111ULL
#define MIX		0x10000000193ULL

static uint64_t word(unsigned int page, unsigned int fill, unsigned int k)
{
	return (MAGIC << 48 | (uint64_t)page << 32 | fill) ^ k * MIX;
}

static size_t offset(unsigned int k)
{
	return k * (r.unit / WORDS);
}

static void make(char *p, unsigned int page, unsigned int fill)
{
	for (unsigned int k = 0; k < WORDS; k++)
		*(uint64_t *)(p + offset(k)) = word(page, fill, k);
}

/* The words, and that of touches. */
static __attribute__((noinline)) int try_read(const char *p, uint64_t *words)
{
	return guarded({
		for (unsigned int k = 0; k < WORDS; k++)
			words[k] = *(volatile uint64_t *)(p + offset(k));
		words[WORDS] = *(volatile uint64_t *)(p + r.unit - 8);
	});
}

#define OURS		1	/* touched by a thread */
#define CHILDS		2	/* touched by a forked process */

static __attribute__((noinline)) int try_write(char *p, uint64_t who)
{
	return guarded(*(volatile uint64_t *)(p + r.unit - 8) = who);
}

/* Is @w, of page @i, from a fill of that page, or is nothing there? */
static bool is_of_page(uint64_t w, unsigned int i, unsigned int k, unsigned int *fill)
{
	*fill = 0;
	if (!w)
		return true;
	w ^= k * MIX;
	*fill = (uint32_t)w;
	return w >> 48 == MAGIC && (w >> 32 & 0xffff) == i;
}

/* Nothing was discarded since @from, nor is it now. */
static bool spared(unsigned int i, unsigned long from)
{
	return !life[i].killers && life[i].spared < from;
}

/* @by_area: and not by the file, where what was discarded leaves holes. */
static void look(unsigned int i, const char *p, bool by_area)
{
	unsigned long killed = life[i].killed, done = life[i].done, from = done / MAX_FILLS;
	unsigned long start = stamp();
	uint64_t words[WORDS + 1];
	unsigned int seen = 0, fill, last = NOTHING;
	int sig = try_read(p, words);
	/* Has this been true all the time? */
	bool sure = by_area && done && spared(i, from) && done == life[i].done;

	if (sig) {
		/*
		 * Of a file, what is not mapped may be announced, or poisoned.
		 * And a read that meets the copy-on-write of a private mapping
		 * finds nothing there, see docs/torture.md.
		 */
		if (sure && (!is_file() || r.type == HUGETLB_PRIVATE))
			fail("page %u has fill %lu and gives signal %#x", i, done % MAX_FILLS, sig);
		return;
	}
	counts->done[READ]++;
	for (unsigned int k = 0; k < WORDS; k++) {
		if (!is_of_page(words[k], i, k, &fill) || fill > fills)
			fail("page %u has %#lx at word %u", i, words[k], k);
		if (fill != last) {
			last = fill;
			seen++;
		}
		if (fill > IN_FILE && fill_end[fill] && fill_end[fill] < killed)
			fail("page %u has fill %u, over at %lu, discarded at %lu", i, fill,
			     fill_end[fill], killed);
	}
	if (words[WORDS] > (is_private() ? OURS : CHILDS))
		fail("page %u has what %s wrote: %#lx", i,
		     words[WORDS] == CHILDS ? "a forked process" : "nobody", words[WORDS]);
	/* Zeros that were never written may be reclaimed, and so may what is the file's. */
	if (seen > 1 && r.type != SHMEM_PRIVATE && !(is_file() && r.swap) && spared(i, start))
		fail("page %u was filled while it was read: %#lx ... %#lx", i, words[0],
		     words[WORDS - 1]);
	if (sure && (seen > 1 || last != done % MAX_FILLS))
		fail("page %u has fill %u and not %lu, begun at %lu, spared since %lu", i, last,
		     done % MAX_FILLS, from, life[i].spared);
	if (sure)
		counts->done[SURE]++;
}

/* In a forked process: what it has is of some moment, and what it writes is its own. */
static void touch_forked(unsigned int i)
{
	uint64_t words[WORDS + 1];
	unsigned int fill;

	if (try_read(at(i), words))
		return;
	for (unsigned int k = 0; k < WORDS; k++)
		if (!is_of_page(words[k], i, k, &fill))
			fail("page %u of a forked process has %#lx at word %u", i, words[k], k);
	/* Of huge pages, its parent may take them away. */
	if (try_write(at(i), CHILDS) || is_hugetlb() || try_read(at(i), words))
		return;
	if (words[WORDS] != CHILDS && is_private())
		fail("page %u of a forked process lost what that wrote, and has %#lx", i,
		     words[WORDS]);
}

/* --- fills --- */

/* COPY or ZEROPAGE has put @fill there, which it began at @from. */
static void filled(unsigned int i, unsigned long from, unsigned int fill)
{
	unsigned long old = atomic_exchange(&life[i].done, from * MAX_FILLS + fill);
	unsigned long first = old / MAX_FILLS < from ? old / MAX_FILLS : from;

	if (old && spared(i, first))
		fail("page %u was filled twice: %lu and %u, spared since %lu", i, old % MAX_FILLS,
		     fill, life[i].spared);
}

static void fill_op(unsigned int i, unsigned int n, enum count op, bool here)
{
	struct uffdio_range range = { (uintptr_t)at(i), n * r.unit };
	unsigned long from = stamp();
	bool inject = r.inject && !here && !below(8), tripped = false;
	unsigned int fill = 0;
	int64_t done = 0;
	uint64_t may, mode = 0;
	int err;

	if (op == COPY) {
		fill = atomic_fetch_add(&fills, 1) + 1;
		if (fill >= MAX_FILLS)
			fail("too many fills");
		for (unsigned int k = 0; k < n; k++)
			make(src + k * r.unit, i + k, fill);
		if (!below(16))
			madvise(src, n * r.unit, MADV_PAGEOUT);
		mode = !below(8) ? UFFDIO_COPY_MODE_WP : 0;
	}
	if (inject)
		fail_nth(1 + below(40));
	err = do_fill(op, at(i), range.len, src, mode, &done);
	if (inject)
		tripped = failed_nth();
	counts->done[INJECTED] += tripped;
	if (fill)
		fill_end[fill] = stamp();
	note("%s page %u, %u pages, fill %u: %s, %ld", count_names[op], i, n, fill, strerror(err),
	     (long)done);

	may = BIT(0) | BIT(EEXIST) | BIT(ENOENT) | BIT(EAGAIN);
	/* A hole, or past the end. */
	if (op == CONTINUE ? is_file() : r.type == SHMEM)
		may |= BIT(EFAULT);
	if (tripped)
		may |= BIT(EFAULT) | BIT(ENOMEM);
	if (is_hugetlb() || r.pressure)
		may |= BIT(ENOMEM);
	if (mode || (op == CONTINUE && !is_hugetlb()) || (op == ZEROPAGE && is_hugetlb()))
		may |= BIT(EINVAL);
	if (err > 63 || !(may & BIT(err)))
		fail("%s of page %u, %u pages: %s, %ld", count_names[op], i, n, strerror(err),
		     (long)done);
	if (err == 0 ? done != (int64_t)range.len : err == EAGAIN ?
	    done != -EAGAIN && (done <= 0 || done >= (int64_t)range.len || done % r.unit) : done > 0)
		fail("%s of page %u, %u pages: %s and %ld", count_names[op], i, n, strerror(err),
		     (long)done);
	for (unsigned int k = 0; (op == COPY || op == ZEROPAGE) && done > 0 && k < done / r.unit; k++)
		filled(i + k, from, fill);
	/* One who waits for it has to look again. */
	if (here && err)
		ioctl(uffd, UFFDIO_WAKE, &range);
}

static void *monitor(void *arg)
{
	struct pollfd pfd = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;
	struct uffdio_writeprotect wp;
	enum count op;
	unsigned int i;

	state = r.seed ^ (uintptr_t)arg;
	src = memory(M2);
	pthread_barrier_wait(&ready);
	while (!over || poll(&pfd, 1, 0) > 0) {
		if (poll(&pfd, 1, 20) <= 0 || read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		counts->done[EVENT]++;
		if (msg.event == UFFD_EVENT_FORK)
			close(msg.arg.fork.ufd);
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		i = ((char *)(uintptr_t)msg.arg.pagefault.address - area) / r.unit;
		if (i >= r.nr) {
			/* In the middle of a move. */
			struct uffdio_range range = { msg.arg.pagefault.address & -r.unit, r.unit };

			ioctl(uffd, UFFDIO_WAKE, &range);
			continue;
		}
		if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			wp = (struct uffdio_writeprotect){ .range = { (uintptr_t)at(i), r.unit } };
			if (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
				ioctl(uffd, UFFDIO_WAKE, &wp.range);
			continue;
		}
		op = msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR ? CONTINUE : COPY;
		if (!below(16))
			op = !is_hugetlb() && below(2) && op == COPY ? ZEROPAGE : POISON;
		fill_op(i, 1, op, true);
	}
	return NULL;
}

/* --- what is in their way --- */

/* Meanwhile these pages may not be what they were. */
#define disturbing(i, n, op) do {					\
	for (unsigned int _k = i; _k < (i) + (n); _k++)			\
		life[_k].killers++;					\
	op;								\
	for (unsigned int _k = i; _k < (i) + (n); _k++) {		\
		raise_to(&life[_k].spared, stamp());			\
		life[_k].killers--;					\
	}								\
} while (0)

/* Of a shared mapping also what is in the file goes, if @op is true. */
#define discarding(i, n, op) do {					\
	unsigned long _from = stamp();					\
									\
	disturbing(i, n, {						\
		bool _gone = op;					\
									\
		for (unsigned int _j = i; _gone && _j < (i) + (n); _j++) \
			raise_to(&life[_j].killed, _from);		\
	});								\
} while (0)

/* The same, but what is in the file stays. */
#define replacing(i, n, op) do {					\
	if (is_private()) {						\
		discarding(i, n, op);					\
	} else {							\
		(void)(op);						\
	}								\
} while (0)

/*
 * 6.18: registered again without WP, pages that are still protected make a write to a
 * huge page fault for ever, and are writable and protected when they are swapped in.
 */
static void register_range(struct uffdio_register *reg)
{
	if (!(reg->mode & WP))
		ioctl(uffd, UFFDIO_UNREGISTER, &reg->range);
	ioctl(uffd, UFFDIO_REGISTER, reg);
}

static uint64_t some_modes(void)
{
	uint64_t modes = below(8);

	if (!is_file())
		modes &= ~(uint64_t)MINOR;
	if (r.type == GMEM)
		modes &= ~(uint64_t)WP;
	return modes ?: MISSING;
}

static void trouble(unsigned int i, unsigned int n)
{
	struct uffdio_register reg = { .range = { (uintptr_t)at(i), n * r.unit }, .mode = some_modes() };
	struct uffdio_writeprotect wp = { .range = reg.range, .mode = below(2) };
	size_t len = n * r.unit;
	unsigned int what = below(20);
	pid_t pid;

	if (what == 0) {
		pthread_rwlock_wrlock(&moving);
		/* Faults find a hole meanwhile, and what fills it is lost. */
		if (r.type != HUGETLB_PRIVATE) {
			counts->done[MOVE]++;
			disturbing(i, n, {
				if (mremap(at(i), len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
					   scratch + i * r.unit) != MAP_FAILED)
					must(mremap(scratch + i * r.unit, len, len,
						    MREMAP_MAYMOVE | MREMAP_FIXED, at(i)));
			});
		}
		pthread_rwlock_unlock(&moving);
		register_range(&reg);
		return;
	}
	pthread_rwlock_rdlock(&moving);
	switch (what) {
	case 1: case 2: case 3:
		counts->done[DISCARD]++;
		/*
		 * The event drops the lock, and what is split off meanwhile is left alone.
		 * And where munmap() is at work, there is no VMA already and a page still.
		 */
		if (r.features & UFFD_FEATURE_EVENT_REMOVE)
			disturbing(i, n, madvise(at(i), len, MADV_DONTNEED));
		else
			replacing(i, n, !madvise(at(i), len, MADV_DONTNEED));
		break;
	case 4: case 5: case 6:
		if (!is_file() || is_private())
			break;
		counts->done[PUNCH]++;
		discarding(i, n, (punch(i, n), true));
		break;
	case 7:
		/*
		 * A truncation of hugetlbfs beside fills makes HugePages_Rsvd fall below
		 * zero: see docs/torture.md.
		 */
		if (r.type != SHMEM)
			break;
		counts->done[TRUNCATE]++;
		discarding(i, r.nr - i, ({
			must(ftruncate(fd, (r.first + i) * r.unit));
			must(ftruncate(fd, (r.first + r.nr) * r.unit));
			true;
		}));
		break;
	case 8: case 9:
		counts->done[MAP]++;
		if (below(2))
			replacing(i, n, (map_at(at(i), len), true));
		else
			replacing(i, n, (munmap(at(i), len), map_at(at(i), len), true));
		register_range(&reg);
		break;
	case 10:
		counts->done[UNREGISTER]++;
		ioctl(uffd, UFFDIO_UNREGISTER, &reg.range);
		register_range(&reg);
		break;
	case 11: case 12:
		counts->done[REGISTER]++;
		register_range(&reg);
		break;
	case 13: case 14:
		answered(WRITEPROTECT, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0);
		break;
	case 15:
		if (r.swap && !madvise(at(i), len, MADV_PAGEOUT))
			counts->done[PAGEOUT]++;
		break;
	case 16:
		if (!r.swap && !madvise(at(i), len, MADV_COLLAPSE))
			counts->done[COLLAPSE]++;
		break;
	case 17:
		if (!madvise(at(i), len, below(2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
			counts->done[ADVISE]++;
		break;
	case 18:
		if (!is_file() || is_private())
			break;
		if (!fallocate(fd, FALLOC_FL_KEEP_SIZE, (r.first + i) * r.unit, len))
			counts->done[FALLOCATE]++;
		break;
	default:
		pid = below(3) ? -1 : fork();
		if (!pid) {
			for (unsigned int k = 0; k < 4; k++)
				touch_forked(below(r.nr));
			_exit(0);
		}
		if (pid > 0)
			wait_forked(pid);
	}
	pthread_rwlock_unlock(&moving);
}

static void *worker(void *arg)
{
	unsigned int kind = (uintptr_t)arg;

	state = r.seed + kind * 77;
	src = memory(r.nr * r.unit);
	/* Nobody maps anything later on: it would be where something was unmapped. */
	pthread_barrier_wait(&ready);
	for (unsigned int nth = 0; nth < r.ops; nth++) {
		unsigned int i = below(r.nr), max = r.nr - i, n = 1, op;

		switch (below(4)) {
		case 0: n = 1 + below(max); break;
		case 1: n = 1 + below(max < 40 ? max : 40); break;
		}
		/* The first two fill, the next two touch, the last one is in the way. */
		switch (below(8) ? kind : below(THREADS)) {
		case 0: case 1:
			/* A touch of poison is a line in the log, which takes long. */
			op = below(13);
			fill_op(i, n, op < 12 ? op % 3 : POISON, false);
			break;
		case 2: case 3:
			for (unsigned int k = i; k < i + n && k < i + 16; k++) {
				if (below(4)) {
					look(k, at(k), true);
				} else {
					try_write(at(k), OURS);
					counts->done[WRITE]++;
				}
			}
			break;
		default:
			trouble(i, n < 64 || !below(4) ? n : 64);
		}
	}
	return NULL;
}

void concurrent(void)
{
	static const uint64_t features[] = {
		UFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_REMAP, UFFD_FEATURE_EVENT_REMOVE,
		UFFD_FEATURE_EVENT_UNMAP,
	};
	struct uffdio_register reg = { .range = { (uintptr_t)area, r.nr * r.unit }, .mode = MISSING };
	pthread_t threads[THREADS], monitors[2];

	state = r.seed ^ 0xc0c;
	for (unsigned int k = 0; k < 4; k++)
		if (!below(4))
			r.features |= features[k];
	if (!below(3))
		r.features |= UFFD_FEATURE_SIGBUS;
	open_uffd(r.features);
	/* A private mapping is of a file that has pages. */
	if (is_file() && is_private())
		for (unsigned int k = 0; k < r.nr; k += 1 + below(4))
			make(alias + k * r.unit, k, IN_FILE);
	if (is_file() && below(2))
		reg.mode |= MINOR;
	if (r.type != GMEM && below(2))
		reg.mode |= WP;
	must(ioctl(uffd, UFFDIO_REGISTER, &reg));
	pthread_barrier_init(&ready, NULL, 2 + THREADS);
	for (uintptr_t k = 0; k < 2; k++)
		must(-pthread_create(&monitors[k], NULL, monitor, (void *)(k + 100)) ? -1 : 0);
	for (uintptr_t k = 0; k < THREADS; k++)
		must(-pthread_create(&threads[k], NULL, worker, (void *)k) ? -1 : 0);
	for (unsigned int k = 0; k < THREADS; k++)
		pthread_join(threads[k], NULL);
	over = true;
	for (unsigned int k = 0; k < 2; k++)
		pthread_join(monitors[k], NULL);
	/* Nobody is registered any more, and nobody is in the way. */
	close(uffd);
	for (unsigned int k = 0; k < r.nr; k++)
		look(k, at(k), true);
	/* What is in the file is whole too, but there may be a hole. */
	for (unsigned int k = 0; is_file() && k < r.nr; k++)
		look(k, alias + k * r.unit, false);
}
