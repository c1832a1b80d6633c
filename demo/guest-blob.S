/* SPDX-License-Identifier: GPL-2.0 */
	.section .rodata
	.globl guest_blob, guest_blob_end
guest_blob:
	.incbin GUEST_BIN
guest_blob_end:
	.section .note.GNU-stack, "", @progbits
