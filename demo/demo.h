/* SPDX-License-Identifier: GPL-2.0 */
#ifndef UFFD_DEMO_H
#define UFFD_DEMO_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/kvm.h>

#include "guest.h"

typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

enum { EX_OK = 0, EX_FAIL = 1, EX_CANT = 4 };

enum mem_type { MEM_ANON, MEM_MEMFD, MEM_HUGETLB, MEM_GMEM, MEM_NR };
enum mode { MODE_MISSING, MODE_MINOR, MODE_NR };

enum sabotage {
	SAB_NONE, SAB_KILL_SOURCE, SAB_CORRUPT, SAB_SHORT, SAB_WRONG_PAGE,
	SAB_DUP_PAGE, SAB_BAD_MAGIC, SAB_UNASKED, SAB_STALL, SAB_LIE,
	SAB_KILL_DEST, SAB_BAD_REQUEST, SAB_NR,
};

extern const char * const mem_names[MEM_NR];
extern const char * const mode_names[MODE_NR];

struct config {
	enum mem_type mem;
	enum mode mode;
	enum sabotage sabotage;
	u64 size;		/* guest memory in bytes */
	u64 rate;		/* of the background stream, bytes/s, 0: none */
	unsigned int vcpus;
	unsigned int timeout;	/* seconds without a sign of life */
	bool bound;
	bool fault_only;
	const char *out;
};

static inline u64 mem_unit(enum mem_type mem)
{
	return mem == MEM_HUGETLB ? 2 << 20 : 4096;
}

/* What a run came to; the destination hands it to the parent. */
struct result {
	int status;
	enum mem_type mem;
	enum mode mode;
	u64 units, unit;
	u64 by_fault, by_push;
	u64 faults, ev_missing, ev_minor, ev_late, eexist, again;
	u64 downtime, resume, total, guest_end;	/* ns after the stop */
	u64 p50, p90, p99, max;			/* fault latency, ns */
	u64 verified;
	char note[240];
};

/* main.c */
extern const char *role;
extern int result_fd;
u64 now_ns(void);
void die(int code, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

/* vmm.c */
struct vm;

struct vcpu {
	struct vm *vm;
	int idx, fd;
	struct kvm_run *run;
	pthread_t thread;
	bool joinable, stepping, done;
	u64 t_first;		/* first instruction after the (re)start */
	u32 polls;		/* times the guest asked for the target */
	u32 verified, bad, first_bad, digest;
};

struct vm {
	int kvm, fd, memfd, event;
	size_t run_size;
	unsigned int ncpus;
	u64 size;
	char *mem;		/* the mapping the memslot points to */
	u32 target;
	bool stop;
	/* A vCPU thread reports trouble here and leaves its loop. */
	void (*trouble)(const char *msg);
	struct vcpu cpu[GUEST_MAX_CPUS];
};

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
};

void vm_create(struct vm *vm, const struct config *cfg);
void check_hugepages(u64 size);
void vm_set_memslot(struct vm *vm, const struct config *cfg);
void *vm_map_again(struct vm *vm);
void vm_load_guest(struct vm *vm, u32 seed);
u32 guest_data_pages(u64 size);
void vm_start(struct vm *vm, bool step);
bool vm_halt(struct vm *vm);
bool vm_done(struct vm *vm);
u32 vm_steps(struct vm *vm, bool lowest);
void vcpu_save(struct vcpu *v, struct vcpu_state *s);
void vcpu_restore(struct vcpu *v, const struct vcpu_state *s);

/* wire.c */
enum msg_type {
	MSG_HELLO = 1,	/* -> geometry, both sides must agree */
	MSG_READY,	/* <- memory registered, stop the guest */
	MSG_STATE,	/* -> vCPUs, time of the stop */
	MSG_GO,		/* <- start the background stream */
	MSG_REQ,	/* <- page wanted */
	MSG_PAGE,	/* -> page */
	MSG_DONE,	/* <- guest has finished */
	MSG_FINAL,	/* -> what the source knows, to compare with */
	MSG_LAST,
};

#define MSG_MAGIC	0x64664675
#define MSG_DEMAND	1	/* MSG_PAGE in reply to a MSG_REQ */

struct msg {
	u32 magic, type;
	u64 page;
	u64 csum;		/* of the payload, depends on the page number */
	u32 len, flags;
	u64 hsum;		/* of everything above */
};

struct msg_hello {
	u64 size, unit;
	u32 vcpus, mem;
};

struct msg_state {
	u64 t_stop;
	u32 target, pad;
	struct vcpu_state cpu[GUEST_MAX_CPUS];
};

struct msg_final {
	u64 image;		/* over all units at the stop */
	u32 digest[GUEST_MAX_CPUS];
	u64 csum[];		/* of each unit once the reference run ended */
};

enum wire_status { WIRE_OK, WIRE_CLOSED, WIRE_SHORT, WIRE_QUIET, WIRE_BAD, WIRE_STOP };

struct wire {
	int fd, stop_fd;	/* reads give up when stop_fd is readable */
	int timeout_ms;
	pthread_mutex_t lock;	/* one message at a time */
	char why[160];
};

void wire_init(struct wire *w, int fd, int stop_fd, unsigned int timeout);
u64 checksum(const void *buf, size_t len, u64 seed);
void msg_fill(struct msg *m, enum msg_type type, u64 page, u32 flags,
	      const void *buf, u32 len);
bool wire_raw(struct wire *w, const struct msg *m, const void *buf, u32 len);
bool wire_send(struct wire *w, enum msg_type type, u64 page, u32 flags,
	       const void *buf, u32 len);
enum wire_status wire_recv(struct wire *w, struct msg *m, void *buf, u32 max);
bool wire_wait(struct wire *w, int ms);

/* source.c, dest.c */
void source_main(const struct config *cfg, int sock) __attribute__((noreturn));
void dest_main(const struct config *cfg, int sock) __attribute__((noreturn));
void dest_probe(const struct config *cfg);

/* report.c */
struct sample {
	u64 t_event;		/* when the first fault event was read, or 0 */
	u64 t_done;		/* when the page was in place */
	bool demand;		/* it came in reply to a request */
};

void report(const struct config *cfg, struct result *r, const struct sample *s,
	    u64 t_stop);
void report_table(const struct result *r, int nr);

#endif
