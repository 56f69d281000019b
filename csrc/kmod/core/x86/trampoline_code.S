/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copied to a page below 1 MiB, where a startup IPI begins to execute it in real mode with CS = page >> 4. Goes
 * straight to 64-bit mode on page tables made beforehand and jumps to the entry point as the 64-bit boot
 * protocol wants it (Documentation/arch/x86/boot.rst). In .rodata, for this kernel never runs it itself.
 */
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "core/x86/trampoline.h"

/* Offsets in struct mr_trampoline_params. */
#define STAGE		(MR_TRAMPOLINE_PARAMS + 0x00)
#define CR3		(MR_TRAMPOLINE_PARAMS + 0x04)
#define STACK		(MR_TRAMPOLINE_PARAMS + 0x08)
#define ENTRY		(MR_TRAMPOLINE_PARAMS + 0x10)
#define BOOT_PARAMS	(MR_TRAMPOLINE_PARAMS + 0x18)
#define FAR_POINTER	(MR_TRAMPOLINE_PARAMS + 0x20)
#define GDT_POINTER	(MR_TRAMPOLINE_PARAMS + 0x26)

#define DATA_SELECTOR	0x18

	.section .rodata, "a"
	.balign 16
	.globl mr_trampoline_start, mr_trampoline_end, mr_trampoline_long

	.code16
mr_trampoline_start:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	movl	$1, STAGE
	lgdtl	GDT_POINTER
	movl	$X86_CR4_PAE, %eax
	movl	%eax, %cr4
	movl	CR3, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$(1 << _EFER_LME), %eax
	wrmsr
	/* Protection and paging at once, caches on: with LME set this is long mode. */
	movl	$(X86_CR0_PG | X86_CR0_ET | X86_CR0_PE), %eax
	movl	%eax, %cr0
	ljmpl	*FAR_POINTER

	.code64
mr_trampoline_long:
	movl	$DATA_SELECTOR, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	/* The page's start, from our own position in it. */
	leaq	mr_trampoline_start(%rip), %rbx
	movl	$2, STAGE(%rbx)
	movq	STACK(%rbx), %rsp
	movq	BOOT_PARAMS(%rbx), %rsi
	movq	ENTRY(%rbx), %rax
	movl	$3, STAGE(%rbx)
	xorl	%ebx, %ebx
	xorl	%edi, %edi
	xorl	%ebp, %ebp
	jmp	*%rax
	int3
mr_trampoline_end:
	.section .note.GNU-stack, "", @progbits
