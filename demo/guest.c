// SPDX-License-Identifier: GPL-2.0
/*
 * The guest.  Each vCPU owns every ncpus-th data page.  It visits its pages in
 * the order of a full-period LCG, so that one round touches each page once, and
 * at each visit increments the page's generation and rewrites the page with
 * values derived from (seed, page, generation, word).  When the VMM says so it
 * walks through its pages from the top down and compares every word.
 *
 * Zeroes, an older version of a page, or another page's data all differ from
 * what the generation table calls for.  The run depends on nothing but the
 * memory and the registers: two copies of one stopped guest end up the same.
 */
#include "guest.h"

typedef unsigned int u32;

static inline void outl(u32 port, u32 val)
{
	asm volatile("outl %0, %w1" : : "a" (val), "d" (port) : "memory");
}

static inline u32 inl(u32 port)
{
	u32 val;

	asm volatile("inl %w1, %0" : "=a" (val) : "d" (port) : "memory");
	return val;
}

static inline u32 page_base(u32 seed, u32 page, u32 gen)
{
	u32 v = seed ^ page * 0x9e3779b1u ^ gen * 0x85ebca6bu;

	v ^= v >> 15;
	v *= 0x2c1b3c6du;
	return v ^ v >> 13;
}

static inline u32 word(u32 base, u32 i)
{
	u32 v = base + i * 0xc2b2ae35u;

	/* The lowest bit is set: no word of a written page is ever zero. */
	return (v ^ v >> 16) | 1;
}

__attribute__((noreturn, section(".text.entry"))) void guest_main(u32 cpu)
{
	const struct guest_boot *b = (const void *)GUEST_BOOT;
	volatile u32 *gen = (volatile u32 *)GUEST_GEN;
	u32 mine, mask, x = cpu, step = 0, good = 0, digest = 0, n, i;

	mine = (b->npages - cpu + b->ncpus - 1) / b->ncpus;
	for (mask = 1; mask < mine; mask = mask << 1 | 1)
		;

	do {
		volatile u32 *data;
		u32 page, base;

		do {
			x = (x * 1664525 + 1013904223) & mask;
		} while (x >= mine);

		page = x * b->ncpus + cpu;
		data = (volatile u32 *)((b->first + page) * GUEST_PAGE);
		base = page_base(b->seed, page, ++gen[page]);
		for (i = 0; i < GUEST_WORDS; i++)
			data[i] = word(base, i);
		step++;
	} while (step % GUEST_POLL || step < inl(PORT_TARGET));

	for (n = mine; n--; ) {
		const volatile u32 *data;
		u32 page = n * b->ncpus + cpu, d = gen[page], base, bad = 0;

		data = (const volatile u32 *)((b->first + page) * GUEST_PAGE);
		base = page_base(b->seed, page, d);
		for (i = 0; i < GUEST_WORDS; i++) {
			u32 w = data[i];

			bad |= w ^ word(base, i);
			d = (d << 1 | d >> 31) ^ w;
		}
		digest += d * (2 * page + 1);
		if (bad)
			outl(PORT_BAD, b->first + page);
		else
			good++;
	}

	outl(PORT_VERIFIED, good);
	outl(PORT_DIGEST, digest);
	for (;;)
		outl(PORT_DONE, cpu);
}
