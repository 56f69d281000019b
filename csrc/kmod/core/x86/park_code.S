/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a CPU waits between two roots. Copied to the ledger, where no kernel overwrites it, and entered there in
 * 64-bit mode on page tables that map it to itself. It ends in 32-bit mode with paging off, so that it depends on no
 * memory of the root that it came from, and goes on in real mode as a startup IPI would have it. In .rodata, for the
 * kernel never runs it at its own address.
 *
 * rdi: physical address of the code, rsi: of this CPU's slot, rdx: of the end of its stack; rcx: where the
 * end-of-interrupt register is mapped, 0 in x2APIC mode.
 */
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "core/x86/park.h"

/* Offsets in struct mr_park_params. */
#define IDT64_POINTER	(MR_PARK_PARAMS + 0x06)
#define GDT_POINTER	(MR_PARK_PARAMS + 0x16)
#define FAR_POINTER	(MR_PARK_PARAMS + 0x20)
#define IDT32_POINTER	(MR_PARK_PARAMS + 0x26)
#define REAL_POINTER	(MR_PARK_PARAMS + 0x2c)

/* In its GDT; those for 16 bits have the code's address as their base. */
#define CODE32		0x08
#define DATA32		0x10
#define CODE16		0x18
#define DATA16		0x20

/* asm/apicdef.h can't be included here: end of interrupt, spurious-interrupt vector; the same as MSRs. */
#define APIC_EOI	0xb0
#define APIC_SPIV	0xf0
#define X2APIC(reg)	(0x800 + ((reg) >> 4))
#define VECTORS		256

	.section .rodata, "a"
	.balign 16
	.globl mr_park_start, mr_park_end, mr_park_eoi, mr_park_32, mr_park_iret, mr_park_real

	.code64
mr_park_start:
	.byte	0xf3, 0x0f, 0x1e, 0xfa	/* endbr64, for assemblers that do not know it */
	cli
	movq	%rdx, %rsp
	movq	%rcx, %r8
	/*
	 * Whatever interrupt is pending is taken and ended here: one that the next root knows nothing of
	 * could mean something else there. Each round takes one.
	 */
	lidt	IDT64_POINTER(%rdi)
	movl	$VECTORS, %ebx
1:	sti
	nop
	nop
	nop
	cli
	decl	%ebx
	jnz	1b
	/* Software-disabled, the APIC still takes NMI, INIT and SIPI, and nothing else. */
	testq	%r8, %r8
	jz	2f
	movl	$0xff, (APIC_SPIV - APIC_EOI)(%r8)
	jmp	3f
2:	movl	$X2APIC(APIC_SPIV), %ecx
	movl	$0xff, %eax
	xorl	%edx, %edx
	wrmsr
3:	movq	%cr4, %rax
	andl	$(X86_CR4_PAE | X86_CR4_LA57), %eax
	movq	%rax, %cr4
	lgdt	GDT_POINTER(%rdi)
	ljmpl	*FAR_POINTER(%rdi)

	/* Any interrupt of the loop above. */
mr_park_eoi:
	testq	%r8, %r8
	jz	1f
	movl	$0, (%r8)
	iretq
1:	movl	$X2APIC(APIC_EOI), %ecx
	xorl	%eax, %eax
	xorl	%edx, %edx
	wrmsr
	iretq

	.code32
mr_park_32:
	movl	$DATA32, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	movl	$(X86_CR0_ET | X86_CR0_PE), %eax
	movl	%eax, %cr0
	movl	$MSR_EFER, %ecx
	xorl	%eax, %eax
	xorl	%edx, %edx
	wrmsr
	movl	%eax, %cr4
	movl	%eax, %cr3
	lidtl	IDT32_POINTER(%edi)
	/* Who comes out of an NMI handler has NMIs blocked until an iret. */
	pushfl
	pushl	%cs
	leal	(parked - mr_park_start)(%edi), %eax
	pushl	%eax
	iretl
parked:
	movl	$MR_SLOT_PARKED, (%esi)
1:	cmpl	$MR_SLOT_WAKE, (%esi)
	je	2f
	/* An NMI that comes before the halt is lost; more are sent until there is an answer. */
	hlt
	jmp	1b
2:	movl	$MR_SLOT_AWAKE, (%esi)
3:	pause
	movl	(%esi), %eax
	testl	$MR_SLOT_GO, %eax
	jz	3b
	movzbl	%al, %eax
	shll	$8, %eax
	movw	$0, 4(%esi)
	movw	%ax, 6(%esi)
	movl	$MR_SLOT_FREE, (%esi)
	subl	%edi, %esi
	lidtl	(real_idt - mr_park_start)(%edi)
	ljmpl	$CODE16, $(part16 - mr_park_start)

	/* NMIs, while parked. */
mr_park_iret:
	iretl

	.code16
part16:	movw	$DATA16, %bx
	movw	%bx, %ds
	movw	%bx, %es
	movw	%bx, %ss
	movw	%bx, %fs
	movw	%bx, %gs
	movl	$X86_CR0_ET, %ebx
	movl	%ebx, %cr0
	/* Loads CS for real mode. */
	ljmpw	*%cs:REAL_POINTER
mr_park_real:
	movw	%cs, %bx
	movw	%bx, %ds
	ljmpw	*4(%si)

	.balign 4
real_idt:
	.word	0x3ff
	.long	0
mr_park_end:
	.section .note.GNU-stack, "", @progbits
