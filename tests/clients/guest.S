/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest of migrate.c, instead of a BIOS.  In each round it goes through its
 * RAM from 1 MiB on, sees that each page has what the round before wrote, writes
 * the next value, and prints the number of the round.  Each eighth page is never
 * written and has to read as zeroes.  What else it finds it reports as BAD, with
 * address, found, expected, and ends.
 */
#define FIRST	0x100000
#define END	0x1000000	/* RAM in migrate.c */
#define LAST	0xffc		/* what does not change in a page */
#define COM	0x3f8
#define CODE	0x8000		/* in RAM */

	.macro	new page, to		/* what this round, %ebp, writes to it */
	mov	\page, \to
	shr	$12, \to
	imul	$0x9e3779b1, \to, \to
	add	%ebp, \to
	.endm

	.text
base:
	.code16
real:
	cli
	cld
	lgdtl	%cs:gdtr - base
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$8, $protected

	.code32
protected:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x7000, %esp
	/*
	 * Be and stay in RAM: postcopy-preempt of QEMU 7.2 forgets, if a page of another
	 * block is asked for, that its two channels have not the same block last.
	 */
	mov	$base, %esi
	mov	$CODE, %edi
	mov	$gdt - base, %ecx
	rep movsb
	mov	$CODE + start - base, %eax
	jmp	*%eax
start:
	xor	%ebp, %ebp
	mov	$FIRST, %edi
fill:
	test	$0x7000, %edi
	jz	1f
	new	%edi, %eax
	mov	%eax, (%edi)
	mov	%edi, LAST(%edi)
	notl	LAST(%edi)
1:	add	$0x1000, %edi
	cmp	$END, %edi
	jb	fill

round:
	mov	%ebp, %edx
	call	print
	mov	$'\n', %al
	call	putc
	inc	%ebp
	mov	$FIRST, %edi
page:
	xor	%ecx, %ecx
	xor	%edx, %edx
	test	$0x7000, %edi
	jz	1f
	new	%edi, %eax
	lea	-1(%eax), %ecx
	mov	%edi, %edx
	not	%edx
1:	lea	LAST(%edi), %esi
	cmp	%edx, (%esi)
	jne	bad
	mov	%ecx, %edx
	mov	%edi, %esi
	cmp	%edx, (%esi)
	jne	bad
	test	$0x7000, %edi
	jz	2f
	mov	%eax, (%edi)
2:	add	$0x1000, %edi
	cmp	$END, %edi
	jb	page
	jmp	round

bad:						/* at %esi; expected: %edx */
	push	%edx
	push	(%esi)
	push	%esi
	mov	$'B', %al
	call	putc
	mov	$'A', %al
	call	putc
	mov	$'D', %al
	call	putc
	mov	$3, %ecx
3:	mov	$' ', %al
	call	putc
	pop	%edx
	call	print
	loop	3b
	mov	$'\n', %al
	call	putc
4:	hlt
	jmp	4b

print:						/* %edx, in hexadecimal */
	mov	$8, %ebx
5:	rol	$4, %edx
	mov	%dl, %al
	and	$15, %al
	cmp	$10, %al
	jb	6f
	add	$'a' - '0' - 10, %al
6:	add	$'0', %al
	call	putc
	dec	%ebx
	jnz	5b
	ret

putc:						/* %al; needs nothing of the port */
	push	%edx
	mov	$COM, %edx
	out	%al, %dx
	pop	%edx
	ret

	.balign	8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word	. - gdt - 1
	.long	gdt

	.org	0xfff0
	.code16
	jmp	real
	.org	0x10000
