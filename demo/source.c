// SPDX-License-Identifier: GPL-2.0
/*
 * The source: runs the guest for a while, stops it, and hands over what the
 * destination asks for, with the rest in order in between.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "demo.h"

struct source {
	const struct config *cfg;
	struct vm vm;
	struct wire w;
	u64 unit, units, sent, next;
	bool *is_sent;
	bool sabotaged, pushing, finished;
	char *scratch;
};

static void src_trouble(const char *msg)
{
	die(EX_FAIL, "%s", msg);
}

static void src_send(struct source *s, enum msg_type type, const void *buf, u32 len)
{
	if (!wire_send(&s->w, type, 0, 0, buf, len))
		die(EX_FAIL, "destination is gone after %llu of %llu pages were sent",
		    (unsigned long long)s->sent, (unsigned long long)s->units);
}

/* Do what --sabotage asks for in place of, or before, sending this page. */
static void sabotage(struct source *s, struct msg *m, const char **data, u32 *len)
{
	u64 i;

	/* Page 0 of small pages is the one that no guest ever asks for. */
	if (s->cfg->sabotage == SAB_UNASKED && !m->page)
		msg_fill(m, MSG_PAGE, m->page, MSG_DEMAND, *data, *len);

	if (s->cfg->sabotage == SAB_LIE && m->page >= s->units / 2 &&
	    m->page < s->units / 2 + 64) {
		memcpy(s->scratch, *data, s->unit);
		for (i = 0; i < s->unit; i += GUEST_PAGE)
			s->scratch[i + 128] ^= 4;
		*data = s->scratch;
		msg_fill(m, MSG_PAGE, m->page, m->flags, *data, *len);
	}

	if (s->sabotaged || s->sent < s->units / 2)
		return;
	s->sabotaged = true;
	switch (s->cfg->sabotage) {
	case SAB_KILL_SOURCE:
		raise(SIGKILL);
		break;
	case SAB_CORRUPT:
		memcpy(s->scratch, *data, s->unit);
		s->scratch[s->unit / 3] ^= 0x10;
		*data = s->scratch;
		break;
	case SAB_SHORT:
		wire_raw(&s->w, m, *data, *len / 2);
		exit(EX_OK);
	case SAB_WRONG_PAGE:
		msg_fill(m, MSG_PAGE, s->units + 7, m->flags, *data, *len);
		break;
	case SAB_DUP_PAGE:
		memcpy(s->scratch, *data, s->unit);
		s->scratch[s->unit / 3] ^= 0x10;
		wire_raw(&s->w, m, *data, *len);
		msg_fill(m, MSG_PAGE, m->page, m->flags, s->scratch, *len);
		*data = s->scratch;
		break;
	case SAB_BAD_MAGIC:
		m->magic ^= 0xff00;
		break;
	case SAB_STALL:
		wire_raw(&s->w, m, *data, *len / 2);
		for (;;)
			pause();
	default:
		break;
	}
}

static void send_page(struct source *s, u64 page, u32 flags)
{
	const char *data = s->vm.mem + page * s->unit;
	u32 len = s->unit;
	struct msg m;

	/*
	 * Each page goes out once.  A request for a page that was sent already
	 * has crossed it on the way; the destination has it by now or soon.
	 */
	if (s->is_sent[page])
		return;
	msg_fill(&m, MSG_PAGE, page, flags, data, len);
	if (s->cfg->sabotage)
		sabotage(s, &m, &data, &len);
	if (!wire_raw(&s->w, &m, data, len))
		die(EX_FAIL, "destination is gone after %llu of %llu pages were sent",
		    (unsigned long long)s->sent, (unsigned long long)s->units);
	s->is_sent[page] = true;
	s->sent++;
}

static void serve_one(struct source *s)
{
	enum wire_status st;
	struct msg m;
	u64 none;

	st = wire_recv(&s->w, &m, &none, 0);
	if (st == WIRE_CLOSED)
		die(EX_FAIL, "destination is gone after %llu of %llu pages were sent",
		    (unsigned long long)s->sent, (unsigned long long)s->units);
	if (st)
		die(EX_FAIL, "bad request: %s", s->w.why);
	switch (m.type) {
	case MSG_REQ:
		if (m.page >= s->units)
			die(EX_FAIL, "bad request: page %llu of %llu",
			    (unsigned long long)m.page, (unsigned long long)s->units);
		send_page(s, m.page, MSG_DEMAND);
		break;
	case MSG_GO:
		s->pushing = true;
		break;
	case MSG_DONE:
		s->finished = true;
		break;
	default:
		die(EX_FAIL, "bad request: unexpected message of type %u", m.type);
	}
}

/* Requests first, the background stream at its rate when there are none. */
static void serve(struct source *s)
{
	u64 due = 0;

	while (!s->finished) {
		bool push;
		u64 t;

		while (s->next < s->units && s->is_sent[s->next])
			s->next++;
		push = s->pushing && s->next < s->units;
		t = now_ns();
		/*
		 * Wait to the millisecond, which a slow stream may overshoot
		 * and then catches up with: due is not reset.
		 */
		if (wire_wait(&s->w, !push ? 1000 : due > t ?
			      (int)((due - t) / 1000000 + 1) : 0)) {
			serve_one(s);
			continue;
		}
		if (!push)
			continue;
		t = now_ns();
		if (!due)
			due = t;
		if (t < due)
			continue;
		send_page(s, s->next, 0);
		if (s->cfg->rate)
			due += s->unit * 1000000000ull / s->cfg->rate;
	}
}

void source_main(const struct config *cfg, int sock)
{
	static struct source s;
	struct msg_hello hello = {
		.size = cfg->size, .vcpus = cfg->vcpus, .mem = cfg->mem,
	};
	struct msg_state *state = calloc(1, sizeof(*state));
	struct msg_final *final;
	u32 pages = guest_data_pages(cfg->size) / cfg->vcpus;
	u64 i, t, limit;
	struct msg m;

	s.cfg = cfg;
	s.unit = hello.unit = mem_unit(cfg->mem);
	s.units = cfg->size / s.unit;
	s.is_sent = calloc(s.units, sizeof(*s.is_sent));
	s.scratch = aligned_alloc(4096, s.unit);
	final = calloc(1, sizeof(*final) + s.units * sizeof(u64));
	wire_init(&s.w, sock, -1, cfg->timeout);

	vm_create(&s.vm, cfg);
	s.vm.trouble = src_trouble;
	vm_set_memslot(&s.vm, cfg);
	vm_load_guest(&s.vm, (u32)now_ns());
	src_send(&s, MSG_HELLO, &hello, sizeof(hello));

	/* One round and a half: every page written, some of them twice. */
	vm_start(&s.vm, false);
	limit = now_ns() + cfg->timeout * 12000000000ull;
	while (vm_steps(&s.vm, true) < pages + pages / 2) {
		usleep(2000);
		if (now_ns() > limit)
			die(EX_FAIL, "guest wrote only %u pages in %u s",
			    vm_steps(&s.vm, true), cfg->timeout * 12);
	}
	if (wire_recv(&s.w, &m, NULL, 0) || m.type != MSG_READY)
		die(EX_FAIL, "destination did not get ready: %s", s.w.why);

	t = now_ns();
	if (!vm_halt(&s.vm))
		die(EX_FAIL, "guest does not stop");
	/*
	 * Let the guest write on for a while before it verifies.  The target is
	 * part of the state so that it ends at the same step wherever it runs.
	 */
	s.vm.target = vm_steps(&s.vm, false) + pages / 8 / GUEST_POLL * GUEST_POLL;
	state->t_stop = t;
	state->target = s.vm.target;
	for (i = 0; i < cfg->vcpus; i++)
		vcpu_save(&s.vm.cpu[i], &state->cpu[i]);
	src_send(&s, MSG_STATE, state, sizeof(*state));

	serve(&s);

	/*
	 * The destination has all it needs.  Take the checksum of the memory as
	 * it was at the stop, then let the stopped guest run to its end here as
	 * well: that is the reference.
	 */
	for (i = 0; i < s.units; i++)
		final->image += checksum(s.vm.mem + i * s.unit, s.unit, i);
	vm_start(&s.vm, false);
	limit = now_ns() + cfg->timeout * 12000000000ull;
	while (!vm_done(&s.vm)) {
		usleep(2000);
		if (now_ns() > limit)
			die(EX_FAIL, "reference run does not end");
	}
	vm_halt(&s.vm);
	for (i = 0; i < s.units; i++)
		final->csum[i] = checksum(s.vm.mem + i * s.unit, s.unit, i);
	for (i = 0; i < cfg->vcpus; i++) {
		if (s.vm.cpu[i].bad)
			die(EX_FAIL, "reference run found wrong data on the source itself");
		final->digest[i] = s.vm.cpu[i].digest;
	}
	src_send(&s, MSG_FINAL, final, sizeof(*final) + s.units * sizeof(u64));
	exit(EX_OK);
}
