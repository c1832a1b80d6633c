// SPDX-License-Identifier: GPL-2.0
/*
 * QEMU TCG plugin: what is executed while uffd-bench measures. A sample is what is
 * between its marks, which are nops to everybody else. Writes to the file that the
 * option out=FILE names, for the last sample of each test:
 *
 *	TEST LOCKED		number of the test, from 0; locked operations
 *	TEST INSTRUCTIONS ADDRESS	with the option profile=on, for each address
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What of qemu-plugin.h is needed: Debian has no package with that. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
	void (*cb)(unsigned int vcpu, void *data), enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn,
	enum qemu_plugin_op op, void *ptr, uint64_t imm);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, void *data), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

#define NR_SLOTS	(1U << 20)

static struct slot {
	uint64_t addr, count;
} *slots;
static uint64_t locked, sample_locked;
static uint64_t *sample;	/* counts of the slots in the last sample */
static int test = -1;
static bool profile;
static FILE *out;

static struct slot *slot(uint64_t addr)
{
	uint32_t i = (addr * 0x9e3779b97f4a7c15ULL) >> 44;

	while (slots[i % NR_SLOTS].addr && slots[i % NR_SLOTS].addr != addr)
		i++;
	slots[i % NR_SLOTS].addr = addr;
	return &slots[i % NR_SLOTS];
}

/* A lock prefix, or an xchg with memory, which needs none. */
static bool is_locked(const uint8_t *p, const uint8_t *end)
{
	for (; p < end && strchr("\x66\x67\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", *p) && *p; p++)
		if (*p == 0xf0)
			return true;
	if (p < end && (*p & 0xf0) == 0x40)
		p++;
	return p + 1 < end && (*p == 0x86 || *p == 0x87) && p[1] >> 6 != 3;
}

static void flush_test(void)
{
	if (test < 0)
		return;
	fprintf(out, "%d %" PRIu64 "\n", test, sample_locked);
	for (uint32_t i = 0; profile && i < NR_SLOTS; i++)
		if (sample[i])
			fprintf(out, "%d %" PRIu64 " %" PRIx64 "\n", test, sample[i], slots[i].addr);
	fflush(out);
	sample_locked = 0;
	if (profile)
		memset(sample, 0, NR_SLOTS * sizeof(*sample));
}

static void mark(unsigned int vcpu, void *data)
{
	(void)vcpu;
	switch ((uintptr_t)data) {
	case 'T':	/* another test */
		flush_test();
		test++;
		break;
	case 'B':	/* a sample begins */
		locked = 0;
		for (uint32_t i = 0; profile && i < NR_SLOTS; i++)
			slots[i].count = 0;
		break;
	case 'E':	/* and ends */
		sample_locked = locked;
		for (uint32_t i = 0; profile && i < NR_SLOTS; i++)
			sample[i] = slots[i].count;
		break;
	}
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const uint8_t *p = qemu_plugin_insn_data(insn);
		size_t size = qemu_plugin_insn_size(insn);

		/* nopl 0x58464655(%rax): "UFFX", and X says which */
		if (size == 7 && !memcmp(p, "\x0f\x1f\x80UFF", 6))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS,
							       (void *)(uintptr_t)p[6]);
		if (is_locked(p, p + size))
			qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
								   &locked, 1);
		if (profile)
			qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
				&slot(qemu_plugin_insn_vaddr(insn))->count, 1);
	}
}

static void the_end(qemu_plugin_id_t id, void *data)
{
	(void)id;
	(void)data;
	flush_test();
	fclose(out);
}

__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		profile |= !strcmp(argv[i], "profile=on");
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	}
	slots = calloc(NR_SLOTS, sizeof(*slots));
	sample = calloc(NR_SLOTS, sizeof(*sample));
	if (!out || !slots || !sample)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, the_end, NULL);
	return 0;
}
