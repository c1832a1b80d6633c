// SPDX-License-Identifier: GPL-2.0
/*
 * One thread, and a model that knows what each page holds and what each ioctl has to
 * answer.  What it takes from the kernel: whether a page is mapped (pagemap), where
 * that may be either, and protected, but for what has just been filled or protected; and
 * whether the file has a page (SEEK_DATA), after something that may make or leave more of
 * them than it was asked for.
 */
#define _GNU_SOURCE
#include <linux/fs.h>
#include "fuzz.h"

#ifndef PROCMAP_QUERY
#error "needs the headers of Linux 6.11 or later"
#endif

enum pte { NONE, SOME, UNSURE };

static struct page {
	bool vma, wp, marker, poison;
	bool anon, zero;			/* private memory, not the file's; its zero page */
	uint8_t modes;
	enum pte pte;
	uint32_t tag;				/* of private memory */
} pages[MAX_PAGES];

static struct file_page {
	bool present, fallocated, clean;	/* clean: zeros that may be reclaimed */
	uint32_t tag;
} file[MAX_PAGES];

static unsigned int eof;	/* in pages from the first that is mapped */
static uint32_t last_tag;
static int pagemap = -1, maps = -1;
static unsigned int marker_type = 32;	/* of a swap entry; none has it if unknown */
static char *src, *buf;

#define OK		BIT(0)

/* --- contents: a word each 8 bytes, of huge pages each 512 --- */

static size_t stride(void)
{
	return is_hugetlb() ? 512 : 8;
}

static uint64_t word(uint32_t tag, size_t offset)
{
	return tag ? tag * 0x9e3779b97f4a7c15 + offset : 0;
}

static void fill(char *p, uint32_t tag)
{
	for (size_t i = 0; i < r.unit; i += stride())
		*(uint64_t *)(p + i) = word(tag, i);
}

/* The first offset where @p is not as it should be, or the unit. */
static size_t differs(const char *p, uint32_t tag)
{
	for (size_t i = 0; i < r.unit; i += stride())
		if (*(volatile uint64_t *)(p + i) != word(tag, i))
			return i;
	return r.unit;
}

static __attribute__((noinline)) int try_fill(char *p, uint32_t tag)
{
	return guarded(fill(p, tag));
}

static __attribute__((noinline)) int try_differs(const char *p, uint32_t tag, size_t *offset)
{
	return guarded(*offset = differs(p, tag));
}

static uint32_t content(unsigned int i)
{
	return pages[i].anon || !is_file() ? pages[i].tag : file[i].tag;
}

/* --- what is there --- */

/* The page table of [i, i + n), valid until the next call. */
static const uint64_t *read_ptes(unsigned int i, unsigned int n)
{
	static uint64_t entries[MAX_PAGES];

	if (r.unit == K4)
		must(pread(pagemap, entries, n * 8, (uintptr_t)at(i) / K4 * 8) == n * 8 ? 0 : -1);
	for (unsigned int k = 0; r.unit != K4 && k < n; k++)
		must(pread(pagemap, entries + k, 8, (uintptr_t)at(i + k) / K4 * 8) == 8 ? 0 : -1);
	return entries;
}

/* Looks at the page table of [i, i + n), and compares it with what is sure. */
static void sync_ptes(unsigned int i, unsigned int n)
{
	const uint64_t *entries = read_ptes(i, n);

	for (unsigned int k = 0; k < n; k++) {
		struct page *p = &pages[i + k];
		bool present = entries[k] >> 63, swap = entries[k] >> 62 & 1, some;

		p->wp = entries[k] >> 57 & 1;
		p->marker = !present && (is_hugetlb() ? p->wp || p->poison :
					 swap && (entries[k] & 31) == marker_type);
		some = present || swap || p->marker;
		if (p->pte == NONE && some)
			fail("page %u is mapped: %#lx", i + k, entries[k]);
		if (p->pte == SOME && !some && !(r.pressure && is_file() && !p->anon && !p->poison))
			fail("page %u is no longer mapped", i + k);
		if (!some || (p->marker && !p->poison)) {
			p->poison = p->anon = false;
			p->tag = 0;
		}
		p->pte = some ? SOME : NONE;
	}
}

/* The VMA at page @i ends at which page?  @i if there is none. */
static unsigned int vma_end(unsigned int i)
{
	struct procmap_query q = { .size = sizeof(q), .query_addr = (uintptr_t)at(i) };
	unsigned int end;

	if (ioctl(maps, PROCMAP_QUERY, &q)) {
		if (pages[i].vma)
			fail("no VMA at page %u: %m", i);
		return i;
	}
	if (!pages[i].vma)
		fail("a VMA at page %u", i);
	end = ((char *)q.vma_end - area) / r.unit;
	return end < r.nr ? end : r.nr;
}

/*
 * Of these pages of the file, some may have come to be, or have stayed.  @announced: none
 * where a fault would have been an event.
 */
static void sync_file(unsigned int from, unsigned int n, bool announced)
{
	off_t hole = 0, data = 0, pos;

	/* Others have neither large folios, nor SEEK_DATA. */
	if (r.type != SHMEM && r.type != SHMEM_PRIVATE)
		return;
	for (unsigned int i = from; i < from + n && i < eof; i++) {
		bool present;

		pos = (off_t)(r.first + i) * r.unit;
		if (pos >= hole) {
			data = lseek(fd, pos, SEEK_DATA);
			if (data < 0)
				data = INT64_MAX;
			hole = data == INT64_MAX ? data : lseek(fd, data, SEEK_HOLE);
		}
		if (file[i].fallocated)
			continue;
		present = pos >= data;
		if (file[i].present && !present && !file[i].clean)
			fail("page %u is no longer in the file", i);
		if (present && !file[i].present) {
			if (announced && pages[i].vma && pages[i].modes & MISSING)
				fail("page %u came to be in the file without an event", i);
			file[i].tag = 0;
			file[i].clean = true;
		}
		file[i].present = present;
	}
}

static unsigned int block(unsigned int i, unsigned int *n)
{
	unsigned int per = M2 / r.unit, start;

	/* Of the file, and of the address space. */
	start = i > 2 * per ? i - 2 * per : 0;
	*n = (i + 2 * per < r.nr ? i + 2 * per : r.nr) - start;
	return start;
}

/*
 * A fault at page @i may have mapped those around it.  Not if they can be protected; but
 * a huge page is mapped as a whole.
 */
static void unsure_around(unsigned int i)
{
	unsigned int n, start = block(i, &n), quiet;

	for (unsigned int k = start; k < start + n; k++) {
		quiet = !is_file() ? MISSING :
			(uintptr_t)at(k) / M2 == (uintptr_t)at(i) / M2 ? MINOR : MINOR | WP;
		if (pages[k].vma && pages[k].pte == NONE && !is_hugetlb() &&
		    !(pages[k].modes & quiet))
			pages[k].pte = UNSURE;
	}
}

/* The huge entries of a file that are in the way of something are dropped. */
static void split_around(unsigned int i, unsigned int n)
{
	unsigned int per = M2 / r.unit;

	for (unsigned int k = i > per ? i - per : 0; k < i + n + per && k < r.nr; k++)
		if (is_file() && !is_hugetlb() && !pages[k].anon && !pages[k].poison &&
		    pages[k].pte == SOME)
			pages[k].pte = UNSURE;
}

/* Nothing is mapped; but for the markers of write protection that stay in files. */
static void unmapped(unsigned int i, bool even_cows)
{
	struct page *p = &pages[i];

	if (!p->vma || (p->anon && !p->zero && !even_cows && !is_hugetlb()))
		return;
	p->pte = is_file() && (p->modes & WP || p->wp || p->poison) ? UNSURE : NONE;
	if (is_hugetlb())
		p->poison = false;
	if (is_hugetlb() && p->pte == NONE && !even_cows)
		p->pte = UNSURE;
	if (p->pte == NONE) {
		p->anon = p->poison = false;
		p->tag = 0;
	}
	if (even_cows)
		p->anon = p->poison = false;
}

/* --- fills --- */

/* What the fill of page @i may answer; its page table entry has been looked at. */
static uint64_t may_answer(enum count op, unsigned int i, bool bad_source)
{
	struct page *p = &pages[i];
	bool full = p->pte == SOME && !p->marker, hole = is_file() && !file[i].present;
	bool past = is_file() && i >= eof;
	bool may_be = r.pressure && is_file() && file[i].clean;		/* in the file */
	bool may_go = r.pressure && is_file() && !p->anon;	/* from the page table */
	uint64_t answers = OK;

	switch (op) {
	case COPY:
		if (past)
			return r.type == HUGETLB_PRIVATE ? OK | BIT(EFAULT) | BIT(EEXIST) : BIT(EFAULT);
		if (is_private() ? full : !hole)
			answers = BIT(EEXIST) | ((is_private() ? may_go : may_be) ? OK : 0);
		return bad_source ? (answers & ~OK) | BIT(EFAULT) : answers;
	case ZEROPAGE:
		if (past)
			return BIT(EFAULT);
		if (is_private())
			return p->pte == SOME ? BIT(EEXIST) | (may_go ? OK : 0) : OK;
		return hole ? OK : BIT(EEXIST) | (may_be ? OK : 0);
	case CONTINUE:
		if (past)
			return BIT(is_hugetlb() || r.type == GMEM ? EFAULT : EINVAL);
		if (hole)
			return BIT(EFAULT) | (full ? BIT(EEXIST) : 0);
		if (may_be)
			answers |= BIT(EFAULT);
		return full ? BIT(EEXIST) | (may_go ? answers : 0) : answers;
	default:
		if (past && !is_hugetlb())
			return BIT(EFAULT);
		return p->pte == SOME ? BIT(EEXIST) | (may_go ? OK : 0) : OK;
	}
}

static void filled(enum count op, unsigned int i, uint32_t tag)
{
	struct page *p = &pages[i];

	p->pte = SOME;
	p->poison = op == POISON;
	if (op == POISON)
		return;
	file[i].clean = false;
	p->anon = op != CONTINUE && is_private();
	p->zero = op == ZEROPAGE;
	if (p->anon) {
		p->tag = tag;
	} else if (op != CONTINUE) {
		file[i].present = true;
		file[i].tag = tag;
	}
}

/* The pages have just been filled, and are protected if that was asked for. */
static void check_wp(unsigned int i, unsigned int n, bool wp)
{
	const uint64_t *entries = read_ptes(i, n);

	for (unsigned int k = 0; k < n; k++)
		if ((entries[k] >> 57 & 1) != wp)
			fail("page %u was filled and is%s write-protected: %#lx", i + k,
			     wp ? " not" : "", entries[k]);
}

#define UNTOUCHED	0x5555

static void fill_op(unsigned int i, unsigned int n)
{
	enum count op = below(4);
	uint64_t mode = below(4) ? 0 : 1, range = 0;	/* DONTWAKE is bit 0 of all */
	bool wp_mode = (op == COPY || op == CONTINUE) && !below(6);
	unsigned int bad = n, k, offset = op == COPY && !below(4) ? below(K4 / 8) * 8 : 0;
	size_t len = n * r.unit, odd = 0;
	int64_t done = UNTOUCHED;
	bool inject, tripped = false;
	uint32_t tag = 0;
	int err;

	if (wp_mode)
		mode |= UFFDIO_COPY_MODE_WP;
	if (op == COPY) {
		/* Cold, with a hole, or neither. */
		unsigned int kind = below(8);

		tag = last_tag;
		last_tag += n;
		for (k = 0; k < n; k++)
			fill(src + offset + k * r.unit, tag + k + 1);
		if (kind == 0)
			madvise(src, n * r.unit + K4, MADV_PAGEOUT);
		if (kind == 1) {
			bad = below(n);
			/* So that page bad is the first that is not there whole. */
			must(mprotect(src + (bad * r.unit + offset + r.unit - 1) / K4 * K4,
				      K4, PROT_NONE));
		}
	}
	if (!below(40)) {
		odd = is_hugetlb() && below(2) ? K4 : 1 + below(K4 - 1);
		len -= below(2) ? odd : 0;
	}
	if (!below(60)) {
		mode |= BIT(5 + below(50));
		range = BIT(EINVAL);
	} else if (odd % K4) {
		range = BIT(EINVAL);
	} else if (!pages[i].vma || !pages[i].modes || vma_end(i) < i + n) {
		range = BIT(ENOENT);
	} else if ((wp_mode && !(pages[i].modes & WP)) || (odd && is_hugetlb()) ||
		   (op == ZEROPAGE && is_hugetlb()) || (op == CONTINUE && !is_file())) {
		range = BIT(EINVAL);
	}
	if (odd && len == n * r.unit)	/* The address is the odd one; the end may be out. */
		range |= odd % K4 ? 0 : BIT(ENOENT);
	if (odd)
		range |= BIT(EINVAL);

	sync_ptes(i, n);
	if (r.pressure)
		sync_file(i, n, false);
	inject = r.inject && !below(3);
	if (inject)
		fail_nth(1 + below(below(2) ? 12 : 60));
	err = do_fill(op, at(i) + (len == n * r.unit ? odd : 0), len, src + offset, mode, &done);
	if (inject)
		tripped = failed_nth();
	if (bad < n)
		must(mprotect(src, n * r.unit + 2 * K4, PROT_READ | PROT_WRITE));
	if (tripped)
		counts->done[INJECTED]++;
	note("%s page %u, %u pages, mode %#lx, offset %u, bad %u, odd %zu: %s, %ld%s", count_names[op], i, n,
	     mode, offset, bad, odd, strerror(err), (long)done, tripped ? " (injected)" : "");

	if (range) {
		if (!err || !(range & BIT(err)) || (done != UNTOUCHED && done != -err))
			if (!tripped || (err != ENOMEM && err != EFAULT))
				fail("%s of page %u, %u pages: %s, %ld; may be %#lx", count_names[op], i, n,
				     strerror(err), (long)done, range);
		return;
	}
	if (err == 0 ? done != (int64_t)len : err == EAGAIN ?
	    done <= 0 || done >= (int64_t)len || done % r.unit : done != -err)
		if (!tripped || done != UNTOUCHED)
			fail("%s of page %u, %u pages: %s and %ld", count_names[op], i, n, strerror(err),
			     (long)done);
	if (done == UNTOUCHED)
		return;
	if (done < 0)
		done = 0;
	if (op != POISON && !r.pressure)
		check_wp(i, done / r.unit, wp_mode);
	for (k = 0; k < n; k++) {
		uint64_t may = may_answer(op, i + k, k >= bad);

		if (k < done / r.unit) {
			if (!(may & OK))
				fail("%s of page %u did succeed, may be %#lx", count_names[op], i + k, may);
			filled(op, i + k, op == COPY ? tag + k + 1 : 0);
			pages[i + k].wp = wp_mode;
			continue;
		}
		/* hugetlbfs takes a failed allocation for a page that is there. */
		if (tripped)
			may |= BIT(ENOMEM) | BIT(EFAULT) | (is_hugetlb() ? BIT(EEXIST) : 0);
		if (r.pressure && op != POISON)
			may |= BIT(ENOMEM);
		if (k ? !(may & ~OK) : !(may & BIT(err)))
			fail("%s of page %u after %u pages: %s, may be %#lx", count_names[op], i, k,
			     strerror(err), may);
		break;
	}
}

/* --- faults --- */

#define SEGV		(SIGSEGV << 8 | SEGV_MAPERR)
#define EVENT_BUS	(SIGBUS << 8 | BUS_ADRERR)
#define POISON_BUS	(SIGBUS << 8 | BUS_MCEERR_AR)

static void touch_op(unsigned int i, bool write)
{
	struct page *p = &pages[i];
	bool past, hole, none, retry = false;
	uint32_t tag = 0;
	size_t diff = r.unit;
	int want = 0, got;

again:
	sync_ptes(i, 1);
	if (r.pressure)
		sync_file(i, 1, false);
	past = is_file() && i >= eof;
	hole = is_file() && !file[i].present;
	none = p->pte == NONE || (p->marker && !p->poison);
	/* Shmem's large folios are mapped as a whole; what is there then is nobody's. */
	if (past && p->pte == SOME && !p->marker && !p->anon)
		return;
	if (!p->vma)
		want = SEGV;
	else if (p->poison)
		want = POISON_BUS;
	else if (none && (past || p->modes & (!is_file() || hole ? MISSING : MINOR)))
		want = EVENT_BUS;
	else if (write && p->wp && p->modes & WP)
		want = EVENT_BUS;
	if (write && !want) {
		tag = ++last_tag;
		got = try_fill(at(i), tag);
	} else if (write) {
		got = try_fill(at(i), content(i));
	} else {
		got = try_differs(at(i), content(i), &diff);
	}
	counts->done[write ? WRITE : READ]++;
	note("%s page %u: signal %#x", write ? "write" : "read", i, got);
	if (got != want) {
		/* It may have been reclaimed after we looked. */
		if (r.pressure && got == EVENT_BUS && is_file() && !p->anon && p->modes && !retry) {
			p->pte = UNSURE;
			retry = true;
			goto again;
		}
		fail("%s of page %u: signal %#x, not %#x", write ? "write" : "read", i, got, want);
	}
	if (diff != r.unit)
		fail("page %u has %#lx at %#zx, and not what tag %u has", i,
		     *(uint64_t *)(at(i) + diff), diff, content(i));
	/* Fault-around comes first. */
	if (none && is_file())
		unsure_around(i);
	/* A marker of protection that nobody asks for any more goes. */
	if (p->marker && !p->poison)
		p->pte = UNSURE;
	/* A write to a protected marker got as far as the protection. */
	if (want && !(none && write && p->wp && p->modes & WP &&
		      !(p->modes & (!is_file() || hole ? MISSING : MINOR))))
		return;
	if (hole && none && r.type != HUGETLB_PRIVATE) {
		unsigned int n, start = block(i, &n);

		file[i] = (struct file_page){ .present = true, .clean = true };
		sync_file(start, n, false);
	}
	if (none) {
		/* Shmem's is copied before the protection is looked at. */
		p->anon = want ? r.type == SHMEM_PRIVATE : r.type == HUGETLB_PRIVATE && hole;
		p->zero = false;
		p->tag = file[i].tag;
		unsure_around(i);
	}
	p->pte = want ? UNSURE : SOME;
	if (!write || want)
		return;
	if (is_private())
		p->anon = true;
	p->zero = false;
	if (p->anon) {
		p->tag = tag;
	} else {
		file[i].tag = tag;
		file[i].clean = false;
	}
}

/* To the file, not by way of the area. */
static void file_op(unsigned int i)
{
	unsigned int n, start = block(i, &n);
	uint32_t tag = ++last_tag;

	if (!is_file() || i >= eof)
		return;
	if (is_hugetlb() || r.type == GMEM) {
		fill(alias + i * r.unit, tag);
	} else {
		fill(src, tag);
		must(pwrite(fd, src, r.unit, (off_t)(r.first + i) * r.unit));
	}
	note("file write page %u", i);
	file[i] = (struct file_page){ .present = true, .tag = tag };
	sync_file(start, n, false);
}

/* The file, not by way of the area. */
static void check_file(unsigned int i)
{
	size_t diff;

	if (!is_file() || i >= eof || !file[i].present || file[i].clean)
		return;
	if (r.type == GMEM || (is_hugetlb() && below(2))) {
		diff = differs(alias + i * r.unit, file[i].tag);
	} else {
		must(pread(fd, buf, r.unit, (off_t)(r.first + i) * r.unit) == (ssize_t)r.unit ? 0 : -1);
		diff = differs(buf, file[i].tag);
	}
	if (diff != r.unit)
		fail("page %u of the file is not what tag %u has, at %#zx", i, file[i].tag, diff);
	counts->done[CHECKED]++;
}

/* What is mapped, or in the file: looking at it changes nothing. */
static void check_op(unsigned int i, unsigned int n)
{
	sync_ptes(i, n);
	for (unsigned int k = i; k < i + n; k++) {
		struct page *p = &pages[k];

		check_file(k);
		if (!p->vma || p->pte != SOME || p->marker || (r.pressure && is_file() && !p->anon))
			continue;
		touch_op(k, false);
		counts->done[CHECKED]++;
	}
}

static void fork_op(void)
{
	pid_t pid;

	sync_ptes(0, r.nr);
	fflush(stdout);
	pid = must(fork());
	if (!pid) {
		for (unsigned int k = 0; k < r.nr; k++) {
			struct page *p = &pages[k];
			size_t diff = r.unit;
			int got;

			if (!p->vma || p->pte != SOME || p->marker || (k >= eof && is_file() && !p->anon))
				continue;
			got = try_differs(at(k), content(k), &diff);
			if (got || diff != r.unit)
				fail("page %u of a forked process: signal %#x, or not what tag %u has",
				     k, got, content(k));
			/* Ours does not change with it. */
			if (p->anon || !is_file())
				try_fill(at(k), 1);
		}
		_exit(0);
	}
	wait_forked(pid);
}

/* --- what else happens to memory --- */

/* It is registered no more. */
static void forget(unsigned int i)
{
	pages[i].modes = 0;
	pages[i].wp = false;
}

/* And markers of write protection go. */
static void unregistered(unsigned int i)
{
	if (pages[i].modes & WP && pages[i].pte == SOME && !pages[i].anon)
		pages[i].pte = UNSURE;
	forget(i);
}

static void register_op(unsigned int i, unsigned int n, bool on)
{
	struct uffdio_register reg = { .range = { (uintptr_t)at(i), n * r.unit }, .mode = 1 + below(7) };
	bool any = false;
	int want = 0, err;

	for (unsigned int k = i; k < i + n; k++)
		any |= pages[k].vma;
	if (!on) {
		err = ioctl(uffd, UFFDIO_UNREGISTER, &reg.range) ? errno : 0;
	} else {
		if (reg.mode & MINOR && below(2) && !is_file())
			reg.mode &= ~MINOR;
		if (reg.mode & WP && below(4) && r.type == GMEM)
			reg.mode &= ~WP;
		reg.mode = reg.mode ?: MISSING;
		/* See register_range() of concurrent.c. */
		if (!(reg.mode & WP)) {
			ioctl(uffd, UFFDIO_UNREGISTER, &reg.range);
			for (unsigned int k = i; k < i + n; k++)
				unregistered(k);
		}
		err = ioctl(uffd, UFFDIO_REGISTER, &reg) ? errno : 0;
		if ((reg.mode & MINOR && !is_file()) || (reg.mode & WP && r.type == GMEM))
			want = EINVAL;
	}
	counts->done[on ? REGISTER : UNREGISTER]++;
	note("%sregister page %u, %u pages, mode %#llx: %s", on ? "" : "un", i, n, reg.mode, strerror(err));
	if (!any ? err != EINVAL && err != ENOMEM : err != want)
		fail("%sregister of page %u, %u pages, mode %#llx: %s", on ? "" : "un", i, n,
		     reg.mode, strerror(err));
	split_around(i, n);
	for (unsigned int k = i; k < i + n && !err; k++) {
		struct page *p = &pages[k];

		if (!p->vma)
			continue;
		/* Registered for that and more: it stays so. */
		if (on && (p->modes & reg.mode) == reg.mode)
			continue;
		unregistered(k);
		if (on)
			p->modes = reg.mode;
	}
}

static void wp_op(unsigned int i, unsigned int n)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)at(i), n * r.unit }, .mode = below(2),
	};
	bool sure = pages[i].vma && !(pages[i].modes & WP);
	int err, want = 0;

	if (vma_end(i) < i + n || !(pages[i].modes & WP))
		want = ENOENT;
	sync_ptes(i, n);
	err = ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;
	answered(WRITEPROTECT, err);
	note("writeprotect page %u, %u pages, mode %llu: %s", i, n, wp.mode, strerror(err));
	/* Only what comes first has to be there, and it may be further on. */
	if (!want || sure ? err != want : err && err != want)
		fail("writeprotect of page %u, %u pages: %s", i, n, strerror(err));
	split_around(i, n);
	for (unsigned int k = i; k < i + n; k++) {
		struct page *p = &pages[k];

		if (p->pte == NONE || p->marker || want)
			p->pte = p->vma ? UNSURE : NONE;
	}
	if (want)
		return;
	sync_ptes(i, n);
	for (unsigned int k = i; k < i + n; k++)
		if (pages[k].pte == SOME && !pages[k].poison && pages[k].wp != wp.mode)
			fail("page %u is%s write-protected", k, wp.mode ? " not" : "");
}

static void discard_op(unsigned int i, unsigned int n)
{
	sync_ptes(i, n);
	if (madvise(at(i), n * r.unit, MADV_DONTNEED))
		fail("MADV_DONTNEED of page %u, %u pages: %m", i, n);
	counts->done[DISCARD]++;
	note("discard page %u, %u pages", i, n);
	split_around(i, n);
	for (unsigned int k = i; k < i + n; k++) {
		unmapped(k, true);
		if (pages[k].pte == UNSURE)
			pages[k].anon = false;
	}
}

static void punch_op(unsigned int i, unsigned int n)
{
	if (!is_file())
		return;
	sync_ptes(0, r.nr);
	punch(i, n);
	counts->done[PUNCH]++;
	note("punch page %u, %u pages", i, n);
	split_around(i, n);
	for (unsigned int k = i; k < i + n; k++) {
		file[k] = (struct file_page){};
		unmapped(k, false);
	}
	/* A large folio that could not be split stays, zeroed. */
	sync_file(i, n, false);
}

static void truncate_op(unsigned int to)
{
	unsigned int was = eof;

	if (!is_file() || r.type == GMEM)
		return;
	sync_ptes(0, r.nr);
	must(ftruncate(fd, (off_t)(r.first + to) * r.unit));
	counts->done[TRUNCATE]++;
	note("truncate to page %u, was %u", to, eof);
	split_around(0, r.nr);
	eof = to;
	for (unsigned int k = to; k < was; k++)
		file[k] = (struct file_page){};
	/* hugetlbfs unmaps also when it grows. */
	for (unsigned int k = to; (to < was || is_hugetlb()) && k < r.nr; k++)
		unmapped(k, true);
	if (to > was)
		sync_file(was, to - was, false);
}

static void fallocate_op(unsigned int i, unsigned int n)
{
	/* Of large folios it may make more, which SEEK_DATA does not see. */
	if (!is_file() || r.pressure || i >= eof || is_hugetlb() || (r.type != GMEM && !r.swap))
		return;
	n = i + n > eof ? eof - i : n;
	must(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)(r.first + i) * r.unit, n * r.unit));
	counts->done[FALLOCATE]++;
	note("fallocate page %u, %u pages", i, n);
	for (unsigned int k = i; k < i + n; k++) {
		file[k].fallocated |= !file[k].present;
		file[k].present = true;
	}
}

static void pageout_op(unsigned int i, unsigned int n)
{
	if (!r.swap && is_file())
		return;
	sync_ptes(i, n);
	madvise(at(i), n * r.unit, MADV_PAGEOUT);
	counts->done[PAGEOUT]++;
	note("pageout page %u, %u pages", i, n);
	/* A large folio goes as a whole. */
	split_around(i, n);
	sync_file(0, r.nr, false);
}

static void collapse_op(unsigned int i, unsigned int n)
{
	unsigned int start, len;
	int ret;

	if (is_hugetlb() || r.type == GMEM || (is_file() && r.swap))
		return;
	sync_ptes(0, r.nr);
	ret = madvise(at(i), n * r.unit, MADV_COLLAPSE);
	counts->done[COLLAPSE]++;
	note("collapse page %u, %u pages: %d", i, n, ret);
	if (!is_file()) {
		start = block(i, &len);
		for (unsigned int k = start; k < start + len; k++)
			if (pages[k].vma && !pages[k].modes && pages[k].pte == NONE)
				pages[k].pte = UNSURE;
		return;
	}
	/* 6.18 drops page tables with markers of poison in them. */
	for (unsigned int k = 0; k < r.nr; k++)
		if (pages[k].vma && !pages[k].anon)
			pages[k].pte = UNSURE;
	sync_file(0, r.nr, true);
}

static void advise_op(unsigned int i, unsigned int n)
{
	madvise(at(i), n * r.unit, below(2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	counts->done[ADVISE]++;
	note("advise page %u, %u pages", i, n);
	split_around(i, n);
}

static void unmap_op(unsigned int i, unsigned int n, bool map)
{
	sync_ptes(i, n);
	if (map)
		map_at(at(i), n * r.unit);
	else
		must(munmap(at(i), n * r.unit));
	counts->done[map ? MAP : UNMAP]++;
	note("%smap page %u, %u pages", map ? "" : "un", i, n);
	split_around(i, n);
	for (unsigned int k = i; k < i + n; k++)
		pages[k] = (struct page){ .vma = map };
	/* hugetlbfs' mmap() extends the file. */
	if (map && is_hugetlb() && i + n > eof)
		eof = i + n;
}

/* Away and back; it is not registered any more then. */
static void move_op(unsigned int i, unsigned int n)
{
	size_t len = n * r.unit;
	char *to = scratch + i * r.unit;

	/* 6.18 loses the reservation of a part of a private mapping. */
	if (r.type == HUGETLB_PRIVATE)
		return;
	sync_ptes(i, n);
	if (mremap(at(i), len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		fail("mremap of page %u, %u pages: %m", i, n);
	if (mremap(to, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at(i)) == MAP_FAILED)
		fail("mremap back of page %u, %u pages: %m", i, n);
	must(mmap(to, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
	counts->done[MOVE]++;
	note("move page %u, %u pages", i, n);
	split_around(i, n);
	for (unsigned int k = i; k < i + n; k++) {
		forget(k);
		/* Those of a file may be found again by a fault. */
		if (pages[k].marker && !pages[k].poison)
			pages[k].pte = UNSURE;
		else if (is_hugetlb() && pages[k].pte == SOME && !pages[k].anon)
			pages[k].pte = UNSURE;
	}
}

static void wake_op(unsigned int i, unsigned int n)
{
	struct uffdio_range range = { (uintptr_t)at(i), n * r.unit };

	if (ioctl(uffd, UFFDIO_WAKE, &range))
		fail("WAKE: %m");
	counts->done[WAKE]++;
}

static void learn_marker(void)
{
	char *p = memory(K4);
	struct uffdio_register reg = { .range = { (uintptr_t)p, K4 }, .mode = MISSING };
	struct uffdio_poison poison = { .range = { (uintptr_t)p, K4 } };
	uint64_t entry;

	must(ioctl(uffd, UFFDIO_REGISTER, &reg));
	must(ioctl(uffd, UFFDIO_POISON, &poison));
	must(pread(pagemap, &entry, 8, (uintptr_t)p / K4 * 8));
	marker_type = entry & 31;
	must(munmap(p, K4));
}

void sequential(void)
{
	state = r.seed ^ 0x5e9;
	pagemap = must(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	maps = must(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
	open_uffd(r.features | UFFD_FEATURE_SIGBUS);
	learn_marker();
	src = memory(r.nr * r.unit + M2);
	/* Nothing is mapped later on: it would be where something was unmapped. */
	buf = memory(r.unit);
	eof = r.nr;
	for (unsigned int k = 0; k < r.nr; k++)
		pages[k].vma = true;
	for (unsigned int k = 0; is_file() && k < r.nr; k += 1 + below(16))
		file_op(k);
	for (int k = 0; k < 3; k++)
		register_op(0, r.nr, true);

	for (unsigned int nth = 0; nth < r.ops; nth++) {
		unsigned int i = below(r.nr), n, max = r.nr - i;

		/* Often a page, or few; now and then all of it, or a whole huge page. */
		switch (below(8)) {
		case 0: n = 1 + below(max); break;
		case 1: n = 1 + below(max < 600 ? max : 600); break;
		case 2:
			i = i * r.unit / M2 * M2 / r.unit;
			n = M2 / r.unit;
			break;
		case 3: case 4: n = 1 + below(max < 40 ? max : 40); break;
		default: n = 1;
		}
		n = n < r.nr - i ? n : r.nr - i;
		/* What has to stay in a VMA. */
		max = vma_end(i) - i;
		max = max < n ? max : n;

		switch (below(64)) {
		case 0 ... 27: fill_op(i, n); break;
		case 28 ... 33: touch_op(i, false); break;
		case 34 ... 38: touch_op(i, true); break;
		case 39 ... 41: check_op(i, n < 64 ? n : 64); break;
		case 42 ... 43: register_op(i, n, true); break;
		case 44: register_op(i, n, false); break;
		case 45 ... 47: if (max) wp_op(i, below(8) ? max : n); break;
		case 48 ... 50: if (max) discard_op(i, max); break;
		case 51 ... 53: punch_op(i, n); break;
		case 54: truncate_op(below(2) ? r.nr : i); break;
		case 55: fallocate_op(i, n); break;
		case 56 ... 57: if (max) pageout_op(i, max); break;
		case 58: if (max) collapse_op(i, max); break;
		case 59: below(2) ? advise_op(i, n) : file_op(i); break;
		case 60: unmap_op(i, n, below(4)); break;
		case 61: if (max) move_op(i, max); break;
		case 62: below(2) ? wake_op(i, n) : file_op(i); break;
		default: if (!below(3)) fork_op();
		}
	}
	check_op(0, r.nr);
}
