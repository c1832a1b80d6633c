// SPDX-License-Identifier: GPL-2.0
/*
 * Linked into every selftest: stdout is a pipe, and what was printed before a
 * hang must be seen, and what was printed before a fork must be seen once.
 */
#include <stdio.h>

__attribute__((constructor)) static void unbuffer(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
}
