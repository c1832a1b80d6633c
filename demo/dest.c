// SPDX-License-Identifier: GPL-2.0
/*
 * The destination: takes the vCPUs, starts them on empty memory at once, and
 * puts pages in place as they come.
 *
 * Three kinds of thread: the vCPUs, which fault; the fault handler, which reads
 * events and asks the source; the main thread, which receives and fills.
 *
 * In missing mode a page that arrives is put in place by UFFDIO_COPY.
 *
 * In minor mode it is written to the file through a second mapping, and
 * UFFDIO_CONTINUE maps what the file has.  The range is registered for MISSING
 * as well: with MINOR alone a touched hole would be filled with zeroes by the
 * kernel, and nobody would ask the source for the page.  Pages of the background
 * stream are mapped in batches; one that the guest touches in between raises
 * MINOR and is mapped right there, without asking the source.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "demo.h"

enum page_state {
	PG_NONE,	/* not here */
	PG_FILLING,	/* arrived, the main thread is at it */
	PG_FILE,	/* minor mode: complete in the file, not mapped */
	PG_MAPPED,
};

struct page {
	enum page_state state;
	bool asked;		/* a MSG_REQ went out */
	u64 csum;
	struct sample s;
};

struct dest {
	const struct config *cfg;
	struct vm vm;
	struct wire w;
	int uffd, fail_fd, quit_fd;
	u64 unit, units;
	char *alias;		/* second mapping, minor mode */
	char *buf;
	pthread_mutex_t lock;	/* page[], the counters, msg */
	struct page *page;
	u64 received, mapped, outstanding;
	u64 run_start, run_len;	/* pages in the file waiting for their batch */
	struct result r;
	char msg[200];
};

static struct dest dest;

#define DIED	"source died"

/* Called from any thread; the main thread then winds up.  The first one wins. */
static void __attribute__((format(printf, 1, 2)))
fail(const char *fmt, ...)
{
	struct dest *d = &dest;
	u64 one = 1;
	va_list ap;

	pthread_mutex_lock(&d->lock);
	if (!d->msg[0]) {
		va_start(ap, fmt);
		vsnprintf(d->msg, sizeof(d->msg), fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&d->lock);
	if (write(d->fail_fd, &one, sizeof(one)) < 0)
		abort();
}

static void dst_trouble(const char *msg)
{
	fail("%s", msg);
}

/*
 * A source that is gone is not reported here: what it sent last may still be
 * unread, and the main thread says where that ends.
 */
static void ask_source(struct dest *d, enum msg_type type, u64 page)
{
	if (!wire_send(&d->w, type, page, 0, NULL, 0) &&
	    errno != EPIPE && errno != ECONNRESET)
		fail("asking the source: %s", strerror(errno));
}

/*
 * The vCPUs have to be gone before the userfaultfd is: closing it wakes
 * whoever waits and lets the kernel fill the holes with zeroes.
 */
static void __attribute__((noreturn)) give_up(struct dest *d)
{
	bool halted = vm_halt(&d->vm);
	const char *how = strcmp(d->msg, DIED) ? ";" : " after";

	/* If one is not, end the process here and now, with all its threads. */
	die(EX_FAIL, "%s%s %llu of %llu pages%s: guest %s, memory %s", d->msg, how,
	    (unsigned long long)d->received, (unsigned long long)d->units,
	    how[0] == ';' ? " are here" : "",
	    halted ? "stopped" : "does not stop, killed",
	    d->received < d->units ? "incomplete" : "complete");
}

static int uffd_open(void)
{
	/*
	 * Not UFFD_USER_MODE_ONLY: the faults come from KVM, in kernel mode.
	 */
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK), dev;

	if (fd < 0 && errno == EPERM) {
		dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (dev >= 0) {
			fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
			close(dev);
		}
		if (fd < 0)
			die(EX_CANT, "userfaultfd for faults in the kernel is not allowed; run as root or: sysctl vm.unprivileged_userfaultfd=1");
	}
	if (fd < 0)
		die(EX_CANT, "userfaultfd: %s; boot a kernel with CONFIG_USERFAULTFD=y",
		    strerror(errno));
	return fd;
}

static void uffd_setup(struct dest *d)
{
	static const u64 features[MEM_NR][MODE_NR] = {
		[MEM_MEMFD] = { UFFD_FEATURE_MISSING_SHMEM,
			UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM },
		[MEM_HUGETLB] = { UFFD_FEATURE_MISSING_HUGETLBFS,
			UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_HUGETLBFS },
	};
	const struct config *cfg = d->cfg;
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = features[cfg->mem][cfg->mode],
	};
	struct uffdio_register reg = {
		.range = { (uintptr_t)d->vm.mem, d->vm.size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	u64 need = 1ull << _UFFDIO_COPY | 1ull << _UFFDIO_WAKE;

	if (cfg->mode == MODE_MINOR) {
		reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
		need = 1ull << _UFFDIO_CONTINUE | 1ull << _UFFDIO_WAKE;
	}
	d->uffd = uffd_open();
	if (ioctl(d->uffd, UFFDIO_API, &api))
		die(EX_CANT, "this kernel's userfaultfd cannot do %s faults on %s (UFFDIO_API: %s); boot Linux 5.14 or later",
		    mode_names[cfg->mode], mem_names[cfg->mem], strerror(errno));
	if (ioctl(d->uffd, UFFDIO_REGISTER, &reg)) {
		if (cfg->mem == MEM_GMEM && errno == EINVAL)
			die(EX_CANT, "this kernel has no userfaultfd for guest_memfd (UFFDIO_REGISTER: EINVAL); boot one with the patches");
		die(errno == EINVAL ? EX_CANT : EX_FAIL, "UFFDIO_REGISTER of %s for %s: %s",
		    mem_names[cfg->mem], mode_names[cfg->mode], strerror(errno));
	}
	if ((reg.ioctls & need) != need)
		die(EX_CANT, "userfaultfd on %s offers ioctls %#llx, %s mode needs %#llx; boot a kernel with the patches",
		    mem_names[cfg->mem], (unsigned long long)reg.ioctls,
		    mode_names[cfg->mode], (unsigned long long)need);
}

static void wake(struct dest *d, u64 page, u64 n)
{
	struct uffdio_range r = {
		(uintptr_t)d->vm.mem + page * d->unit, n * d->unit,
	};

	if (ioctl(d->uffd, UFFDIO_WAKE, &r))
		fail("UFFDIO_WAKE of page %llu: %s", (unsigned long long)page,
		     strerror(errno));
}

static void set_mapped(struct dest *d, u64 page, u64 n)
{
	u64 t = now_ns();

	pthread_mutex_lock(&d->lock);
	for (; n; n--, page++) {
		struct page *p = &d->page[page];

		if (p->state == PG_MAPPED)
			continue;
		p->state = PG_MAPPED;
		p->s.t_done = t;
		d->mapped++;
	}
	pthread_mutex_unlock(&d->lock);
}

/* Missing mode: fill the hole and wake whoever waits for it. */
static void copy_page(struct dest *d, u64 page)
{
	u64 dst = (uintptr_t)d->vm.mem + page * d->unit, done = 0;

	while (done < d->unit) {
		struct uffdio_copy c = {
			.dst = dst + done,
			.src = (uintptr_t)d->buf + done,
			.len = d->unit - done,
		};

		if (!ioctl(d->uffd, UFFDIO_COPY, &c))
			break;
		/*
		 * EAGAIN: interrupted by a change of the mappings, or stopped
		 * early.  c.copy then has what was done, if positive.
		 */
		if (errno == EAGAIN) {
			d->r.again++;
			if (c.copy > 0)
				done += c.copy;
			continue;
		}
		if (errno != EEXIST) {
			fail("UFFDIO_COPY of page %llu: %s",
			     (unsigned long long)page, strerror(errno));
			return;
		}
		/*
		 * There is a page, and the failed ioctl woke nobody: a fault
		 * may have come before the page did, and waits.  Nobody else
		 * fills pages here, so first make sure that it is this one and
		 * not zeroes from a fault that passed userfaultfd by.
		 */
		d->r.eexist++;
		if (memcmp(d->vm.mem + page * d->unit, d->buf, d->unit)) {
			fail("page %llu was filled behind userfaultfd's back",
			     (unsigned long long)page);
			return;
		}
		wake(d, page, 1);
		break;
	}
	set_mapped(d, page, 1);
}

/* Minor mode: map pages that are complete in the file. */
static void map_pages(struct dest *d, u64 page, u64 n)
{
	u64 first = page, end = page + n;

	while (page < end) {
		struct uffdio_continue c = {
			.range = {
				(uintptr_t)d->vm.mem + page * d->unit,
				(end - page) * d->unit,
			},
		};

		if (!ioctl(d->uffd, UFFDIO_CONTINUE, &c))
			break;
		if (errno == EAGAIN) {
			__atomic_add_fetch(&d->r.again, 1, __ATOMIC_RELAXED);
			if (c.mapped > 0)
				page += c.mapped / d->unit;
			continue;
		}
		if (errno != EEXIST) {
			fail("UFFDIO_CONTINUE of page %llu: %s",
			     (unsigned long long)page, strerror(errno));
			return;
		}
		/*
		 * The first page of what is left is mapped already: the other
		 * thread got there first.  Its ioctl may have come before a
		 * second fault on this page went to sleep, and ours woke nobody.
		 */
		__atomic_add_fetch(&d->r.eexist, 1, __ATOMIC_RELAXED);
		wake(d, page, 1);
		page++;
	}
	set_mapped(d, first, n);
}

static void flush_run(struct dest *d)
{
	if (d->run_len)
		map_pages(d, d->run_start, d->run_len);
	d->run_len = 0;
}

static void fill_minor(struct dest *d, u64 page)
{
	u64 batch = d->unit == GUEST_PAGE ? 64 : 2;
	char *to = d->alias + page * d->unit;
	unsigned char here = 0;
	bool wanted;

	/*
	 * Nobody but us writes to the file.  If the page is there already, then
	 * a fault passed userfaultfd by, and the guest has been given zeroes.
	 */
	if (d->cfg->mem == MEM_GMEM && !mincore(to, d->unit, &here) && (here & 1)) {
		fail("page %llu was filled behind userfaultfd's back",
		     (unsigned long long)page);
		return;
	}
	memcpy(to, d->buf, d->unit);

	/*
	 * From PG_FILE on the fault handler maps the page itself.  A fault that
	 * it saw before that is ours to resolve.
	 */
	pthread_mutex_lock(&d->lock);
	d->page[page].state = PG_FILE;
	wanted = d->page[page].s.t_event;
	pthread_mutex_unlock(&d->lock);
	if (wanted) {
		map_pages(d, page, 1);
		return;
	}
	if (d->run_start + d->run_len != page)
		flush_run(d);
	if (!d->run_len)
		d->run_start = page;
	if (++d->run_len >= batch)
		flush_run(d);
}

static void got_page(struct dest *d, const struct msg *m)
{
	unsigned long long nr = m->page;
	struct page *p;

	if (m->page >= d->units) {
		fail("page number %llu out of range", nr);
		return;
	}
	p = &d->page[m->page];
	if (m->len != d->unit) {
		fail("page %llu has %u bytes", nr, m->len);
		return;
	}

	pthread_mutex_lock(&d->lock);
	if ((m->flags & MSG_DEMAND) && !p->asked) {
		pthread_mutex_unlock(&d->lock);
		fail("page %llu came as a reply and was never asked for", nr);
		return;
	}
	if (p->state != PG_NONE) {
		pthread_mutex_unlock(&d->lock);
		/* The same once more is odd but harmless: it is not used. */
		if (p->csum != m->csum)
			fail("page %llu came twice with different content", nr);
		return;
	}
	p->state = PG_FILLING;
	p->csum = m->csum;
	p->s.demand = m->flags & MSG_DEMAND;
	d->received++;
	if (p->asked)
		d->outstanding--;
	if (p->s.demand)
		d->r.by_fault++;
	else
		d->r.by_push++;
	pthread_mutex_unlock(&d->lock);

	if (d->cfg->mode == MODE_MINOR)
		fill_minor(d, m->page);
	else
		copy_page(d, m->page);
	if (d->received == d->units)
		flush_run(d);
	if (d->cfg->sabotage == SAB_KILL_DEST && d->received >= d->units / 2)
		raise(SIGKILL);
}

static void got_fault(struct dest *d, const struct uffd_msg *ev, u64 t)
{
	u64 page = (ev->arg.pagefault.address - (uintptr_t)d->vm.mem) / d->unit;
	enum page_state state;
	bool ask = false;
	struct page *p;

	if (page >= d->units) {
		fail("fault at %#llx is outside of the guest",
		     (unsigned long long)ev->arg.pagefault.address);
		return;
	}

	p = &d->page[page];
	pthread_mutex_lock(&d->lock);
	if (ev->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR)
		d->r.ev_minor++;
	else
		d->r.ev_missing++;
	state = p->state;
	if (state != PG_MAPPED && !p->s.t_event)
		p->s.t_event = t;
	if (state == PG_NONE && !p->asked) {
		ask = p->asked = true;
		d->outstanding++;
	}
	pthread_mutex_unlock(&d->lock);

	if (ask)
		ask_source(d, MSG_REQ, page);
	if (state == PG_FILE)
		map_pages(d, page, 1);
	if (state == PG_MAPPED) {
		/* The event was old by the time we read it. */
		d->r.ev_late++;
		wake(d, page, 1);
	}
	/* PG_FILLING: the main thread maps it in a moment, and that wakes. */
}

static void *fault_thread(void *arg)
{
	struct dest *d = arg;
	struct pollfd p[2] = {
		{ .fd = d->uffd, .events = POLLIN },
		{ .fd = d->quit_fd, .events = POLLIN },
	};
	struct uffd_msg ev[16];
	bool lied = false;

	for (;;) {
		ssize_t n;
		int i;
		u64 t;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		n = read(d->uffd, ev, sizeof(ev));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0) {
			fail("reading the userfaultfd: %s", n ? strerror(errno) : "EOF");
			break;
		}
		t = now_ns();
		for (i = 0; i < (int)(n / sizeof(ev[0])); i++)
			if (ev[i].event == UFFD_EVENT_PAGEFAULT)
				got_fault(d, &ev[i], t);
		if (d->cfg->sabotage == SAB_BAD_REQUEST && !lied &&
		    d->received >= d->units / 4) {
			lied = true;
			wire_send(&d->w, MSG_REQ, d->units + 5, 0, NULL, 0);
		}
	}
	return NULL;
}

static void receive(struct dest *d)
{
	enum wire_status st;
	struct msg m;

	st = wire_recv(&d->w, &m, d->buf, d->unit);
	if (st == WIRE_STOP)
		return;
	if (st == WIRE_CLOSED)
		fail(DIED);
	else if (st)
		fail("%s", d->w.why);
	else if (m.type != MSG_PAGE)
		fail("message of type %u out of turn", m.type);
	else
		got_page(d, &m);
}

/* Returns when every page is in place and the guest has finished. */
static void migrate(struct dest *d)
{
	struct pollfd p[3] = {
		{ .fd = d->w.fd, .events = POLLIN },
		{ .fd = d->fail_fd, .events = POLLIN },
		{ .fd = d->vm.event, .events = POLLIN },
	};
	u64 heard = now_ns(), alive = heard, limit = d->cfg->timeout * 1000000000ull;
	bool pushing = !d->cfg->fault_only, done = false;
	u32 steps = 0;

	if (pushing)
		ask_source(d, MSG_GO, 0);

	while (!done || d->received < d->units) {
		u64 t, outstanding;

		poll(p, 3, 200);
		if (p[1].revents)
			give_up(d);
		t = now_ns();
		if (p[2].revents) {
			u64 n;

			if (read(d->vm.event, &n, sizeof(n)) < 0 && errno != EAGAIN)
				fail("eventfd: %s", strerror(errno));
		}
		if (!done && vm_done(&d->vm)) {
			done = true;
			d->r.guest_end = t;
			if (!pushing && d->received < d->units) {
				/* What the guest never touched. */
				pushing = true;
				heard = t;
				ask_source(d, MSG_GO, 0);
			}
		}
		if (p[0].revents) {
			receive(d);
			heard = alive = t;
			continue;
		}

		/* Silence is fine as long as nothing is due from the source. */
		pthread_mutex_lock(&d->lock);
		outstanding = d->outstanding;
		pthread_mutex_unlock(&d->lock);
		if (!outstanding && !(pushing && d->received < d->units))
			heard = t;
		if (t - heard > limit)
			fail("nothing heard from the source for %u s", d->cfg->timeout);
		if (vm_steps(&d->vm, false) != steps) {
			steps = vm_steps(&d->vm, false);
			alive = t;
		}
		if (t - alive > 12 * limit)
			fail("no progress in the guest for %u s", 12 * d->cfg->timeout);
	}
	if (d->msg[0])
		give_up(d);
}

/* Compare with what the source has seen; true if all is well. */
static bool compare(struct dest *d)
{
	u32 max = sizeof(struct msg_final) + d->units * sizeof(u64);
	struct msg_final *f = malloc(max);
	u64 i, image = 0, differ = 0, first = 0;
	u32 bad = 0, first_bad = 0;
	char *s = d->r.note;
	size_t left = sizeof(d->r.note);
	struct msg m;
	int n;

	if (!wire_send(&d->w, MSG_DONE, 0, 0, NULL, 0))
		die(EX_FAIL, "source died after all pages were sent, before it could confirm");
	d->w.timeout_ms *= 12;	/* a reference run takes a while */
	if (wire_recv(&d->w, &m, f, max) || m.type != MSG_FINAL || m.len != max)
		die(EX_FAIL, "source did not confirm: %s", d->w.why);

	for (i = 0; i < d->vm.ncpus; i++) {
		const struct vcpu *v = &d->vm.cpu[i];

		d->r.verified += v->verified;
		if (v->bad && (!bad || v->first_bad < first_bad))
			first_bad = v->first_bad;
		bad += v->bad;
	}
	for (i = 0; i < d->units; i++) {
		image += d->page[i].csum;
		if (checksum(d->vm.mem + i * d->unit, d->unit, i) != f->csum[i] &&
		    !differ++)
			first = i;
	}
#define NOTE(...) do {						\
	n = snprintf(s, left, __VA_ARGS__);			\
	n = n < (int)left ? n : (int)left - 1;			\
	s += n;							\
	left -= n;						\
} while (0)
	if (bad)
		NOTE("guest found %u pages wrong, one is page %u; ", bad, first_bad);
	else if (d->r.verified != guest_data_pages(d->cfg->size))
		NOTE("guest verified %llu pages only; ",
		     (unsigned long long)d->r.verified);
	if (image != f->image)
		NOTE("memory received is not the source's at the stop; ");
	for (i = 0; i < d->vm.ncpus; i++)
		if (d->vm.cpu[i].digest != f->digest[i])
			NOTE("guest checksum %08x, source's %08x; ",
			     d->vm.cpu[i].digest, f->digest[i]);
	if (differ)
		NOTE("%llu pages differ from the reference run, first page %llu; ",
		     (unsigned long long)differ, (unsigned long long)first);
#undef NOTE
	if (s > d->r.note)
		s[-2] = 0;
	free(f);
	return s == d->r.note;
}

static void dest_setup(struct dest *d, const struct config *cfg)
{
	d->cfg = cfg;
	d->unit = mem_unit(cfg->mem);
	d->units = cfg->size / d->unit;
	d->page = calloc(d->units, sizeof(*d->page));
	d->buf = aligned_alloc(4096, d->unit);
	d->fail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&d->lock, NULL);
	vm_create(&d->vm, cfg);
	d->vm.trouble = dst_trouble;
	if (cfg->mode == MODE_MINOR)
		d->alias = vm_map_again(&d->vm);
	uffd_setup(d);
	vm_set_memslot(&d->vm, cfg);
}

/* Can a run with this configuration work here at all?  Ends if not. */
void dest_probe(const struct config *cfg)
{
	if (cfg->mem == MEM_HUGETLB)
		check_hugepages(cfg->size);
	dest_setup(&dest, cfg);
}

void dest_main(const struct config *cfg, int sock)
{
	struct dest *d = &dest;
	struct msg_state *state = calloc(1, sizeof(*state));
	struct msg_hello hello;
	struct sample *samples;
	enum wire_status st;
	pthread_t thread;
	struct msg m;
	u64 i, one = 1;

	dest_setup(d, cfg);
	wire_init(&d->w, sock, d->fail_fd, cfg->timeout);

	st = wire_recv(&d->w, &m, &hello, sizeof(hello));
	if (st)
		die(EX_FAIL, "no hello from the source: %s", d->w.why);
	if (m.type != MSG_HELLO || m.len != sizeof(hello) || hello.size != cfg->size ||
	    hello.unit != d->unit || hello.vcpus != cfg->vcpus || hello.mem != cfg->mem)
		die(EX_FAIL, "source has another kind of guest");
	wire_send(&d->w, MSG_READY, 0, 0, NULL, 0);

	d->w.timeout_ms *= 13;	/* the guest runs on the source for a while */
	st = wire_recv(&d->w, &m, state, sizeof(*state));
	if (st || m.type != MSG_STATE || m.len != sizeof(*state))
		die(EX_FAIL, "no vCPU state from the source: %s", d->w.why);
	d->w.timeout_ms /= 13;

	if (pthread_create(&thread, NULL, fault_thread, d))
		die(EX_FAIL, "no thread for the fault handler");
	d->vm.target = state->target;
	for (i = 0; i < cfg->vcpus; i++)
		vcpu_restore(&d->vm.cpu[i], &state->cpu[i]);
	d->r.resume = now_ns() - state->t_stop;
	vm_start(&d->vm, true);

	migrate(d);
	vm_halt(&d->vm);

	/* No vCPU runs, no page is missing: now the handler may go. */
	if (write(d->quit_fd, &one, sizeof(one)) < 0)
		die(EX_FAIL, "eventfd: %s", strerror(errno));
	pthread_join(thread, NULL);
	if (d->msg[0])
		give_up(d);
	if (d->mapped != d->units)
		die(EX_FAIL, "%llu of %llu pages are in place",
		    (unsigned long long)d->mapped, (unsigned long long)d->units);

	d->r.status = compare(d) ? EX_OK : EX_FAIL;
	d->r.mem = cfg->mem;
	d->r.mode = cfg->mode;
	d->r.unit = d->unit;
	d->r.units = d->units;
	d->r.guest_end -= state->t_stop;
	d->r.downtime = ~0ull;
	for (i = 0; i < cfg->vcpus; i++)
		if (d->vm.cpu[i].t_first - state->t_stop < d->r.downtime)
			d->r.downtime = d->vm.cpu[i].t_first - state->t_stop;
	samples = calloc(d->units, sizeof(*samples));
	for (i = 0; i < d->units; i++)
		samples[i] = d->page[i].s;
	report(cfg, &d->r, samples, state->t_stop);
	if (result_fd >= 0 && write(result_fd, &d->r, sizeof(d->r)) < 0)
		perror("result");
	if (d->r.status) {
		result_fd = -1;
		die(EX_FAIL, "%s", d->r.note);
	}
	exit(EX_OK);
}
