/* SPDX-License-Identifier: GPL-2.0 */
/* What the guest and the VMM have to agree on. */
#ifndef UFFD_DEMO_GUEST_H
#define UFFD_DEMO_GUEST_H

/*
 * Guest physical layout (32-bit protected mode, flat segments, no paging):
 *
 *	page 0		never touched by the guest
 *	0x1000		code
 *	0x3000		struct guest_boot, written once by the VMM of the source
 *	0x8000		one stack page for each vCPU
 *	0x10000		generation table, one u32 for each data page
 *	...		data pages up to the end of memory
 */
#define GUEST_CODE	0x1000
#define GUEST_CODE_MAX	0x2000
#define GUEST_BOOT	0x3000
#define GUEST_STACK	0x8000
#define GUEST_GEN	0x10000
#define GUEST_PAGE	4096
#define GUEST_WORDS	(GUEST_PAGE / 4)
#define GUEST_MAX_CPUS	4

/* The guest asks for its target once in this many pages written. */
#define GUEST_POLL	16

/* Port I/O, always 32 bits. */
#define PORT_TARGET	0x510	/* in:  go on to verify at this step count */
#define PORT_BAD	0x514	/* out: frame number of a page with wrong data */
#define PORT_VERIFIED	0x518	/* out: number of pages verified as right */
#define PORT_DIGEST	0x51c	/* out: checksum over all the data seen */
#define PORT_DONE	0x520	/* out: nothing more to do */

struct guest_boot {
	unsigned int ncpus;
	unsigned int first;	/* frame number of the first data page */
	unsigned int npages;	/* number of data pages */
	unsigned int seed;
};

#endif
