/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a CPU waits between two roots. Copied to the ledger, where no kernel overwrites it. A startup IPI leads to its
 * start, in real mode; a CPU that leaves its kernel comes in by MR_PARK_ENTER, in 64-bit mode on page tables that map
 * the code to itself. Both end in 32-bit mode with paging off, so that nothing there depends on memory of the root
 * that the CPU came from, and go on in real mode as a startup IPI would have it. In .rodata, for the kernel never runs
 * it at its own address.
 *
 * An NMI or a machine check can come at any time. There is one table of gates for all modes: a gate of 64-bit mode is
 * as long as two of 32-bit mode, and the ones that are needed do not overlap.
 */
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#include "core/x86/park.h"

/* Offsets in struct mr_park_params. */
#define IDT_POINTER	(MR_PARK_PARAMS + 0x06)
#define GDT_POINTER	(MR_PARK_PARAMS + 0x16)
#define FROM_64_POINTER	(MR_PARK_PARAMS + 0x20)
#define FROM_16_POINTER	(MR_PARK_PARAMS + 0x28)
#define CR4_PARKED	(MR_PARK_PARAMS + 0x30)
#define REAL_POINTER	(MR_PARK_PARAMS + 0x34)
#define MSRS		(MR_PARK_PARAMS + 0x68)

/* asm/apicdef.h can't be included here: end of interrupt, spurious-interrupt vector; the same as MSRs. */
#define APIC_EOI	0xb0
#define APIC_SPIV	0xf0
#define X2APIC(reg)	(0x800 + ((reg) >> 4))
#define CPUID_ID_SHIFT	24	/* of the APIC id's low 8 bits in ebx of leaf 1 */
#define CPUID_TOPOLOGY	0xb	/* the leaf with all of it, in edx */
#define VECTORS		256

	.section .rodata, "a"
	.balign 16
	.globl mr_park_start, mr_park_end, mr_park_32, mr_park_32_from_16, mr_park_real
	.globl mr_park_eoi, mr_park_nmi_64, mr_park_nmi_32, mr_park_mc_64, mr_park_mc_32

	.code16
mr_park_start:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	movzwl	%ax, %edi
	shll	$4, %edi
	lgdtl	GDT_POINTER
	movl	$(X86_CR0_ET | X86_CR0_PE), %eax
	lidtl	IDT_POINTER
	movl	%eax, %cr0
	ljmpl	*FROM_16_POINTER

	.skip	MR_PARK_ENTER - (. - mr_park_start), 0xcc
	.code64
	/*
	 * rdi: physical address of the code, rsi: of this CPU's slot, rdx: of the end of its stack; rcx: where the
	 * end-of-interrupt register is mapped, 0 in x2APIC mode. The stack is the kernel's until we leave 64-bit mode.
	 */
	.byte	0xf3, 0x0f, 0x1e, 0xfa	/* endbr64, for assemblers that do not know it */
	cli
	movq	%rdx, %rbp
	movq	%rcx, %r8
	/* In this order an interrupt in between finds the code segment that its gate names. */
	lidt	IDT_POINTER(%rdi)
	lgdt	GDT_POINTER(%rdi)
	/*
	 * Nothing else that the kernel has turned on: with FRED interrupts would not come by these gates, and CET has
	 * its own stack of return addresses.
	 */
	movq	%cr4, %rax
	andl	$(X86_CR4_PAE | X86_CR4_LA57 | X86_CR4_MCE), %eax
	movq	%rax, %cr4
	/*
	 * Whatever interrupt is pending is taken and ended here: one that the next root knows nothing of
	 * could mean something else there. Each round takes one.
	 */
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
3:	movq	%rsi, %rbx
	movq	%rbp, %rsp
	ljmpl	*FROM_64_POINTER(%rdi)

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
mr_park_nmi_64:
	iretq

	/* A machine check goes to all CPUs of a machine. Until this is written a second one would be the end of it. */
mr_park_mc_64:
	movq	%rax, %r9
	movq	%rcx, %r10
	movq	%rdx, %r11
	movl	$MSR_IA32_MCG_STATUS, %ecx
	xorl	%eax, %eax
	xorl	%edx, %edx
	wrmsr
	movq	%r9, %rax
	movq	%r10, %rcx
	movq	%r11, %rdx
	iretq

	.code32
	/* An INIT has left the APIC disabled with nothing pending. Which it is, the CPU tells without touching it. */
mr_park_32_from_16:
	xorl	%eax, %eax
	cpuid
	cmpl	$CPUID_TOPOLOGY, %eax
	jb	1f
	movl	$CPUID_TOPOLOGY, %eax
	xorl	%ecx, %ecx
	cpuid
	testl	%ebx, %ebx		/* without a level it tells nothing */
	movl	%edx, %ebx
	jnz	2f
1:	movl	$1, %eax
	cpuid
	shrl	$CPUID_ID_SHIFT, %ebx
2:	imull	$MR_PARK_STACK_SIZE, %ebx, %eax
	shll	$4, %ebx		/* a slot's size */
	leal	MR_PARK_SLOTS(%edi, %ebx), %ebx
	movl	$MR_PARK_DATA32, %edx
	movl	%edx, %ss
	leal	(MR_PARK_STACKS + MR_PARK_STACK_SIZE)(%edi, %eax), %esp

	/* edi: the code, ebx: the slot, esp: the end of the stack. */
mr_park_32:
	movl	$MR_PARK_DATA32, %eax
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
	movl	%eax, %cr3
	/* An INIT leaves the registers by which a CPU writes down what it does. */
	leal	MSRS(%edi), %esi
1:	movl	(%esi), %ecx
	jecxz	2f
	wrmsr
	addl	$4, %esi
	jmp	1b
2:
	/* A CPU that takes no machine checks shuts the machine down when one goes to all. */
	movl	CR4_PARKED(%edi), %eax
	movl	%eax, %cr4
	/* Who comes out of an NMI handler has NMIs blocked until an iret. */
	pushfl
	pushl	%cs
	leal	(parked - mr_park_start)(%edi), %eax
	pushl	%eax
	iretl
parked:
	movl	$MR_SLOT_PARKED, (%ebx)
1:	cmpl	$MR_SLOT_WAKE, (%ebx)
	je	2f
	/* An NMI that comes before the halt is lost; more are sent until there is an answer. */
	hlt
	jmp	1b
2:	movl	$MR_SLOT_AWAKE, (%ebx)
3:	pause
	movl	(%ebx), %eax
	testl	$MR_SLOT_GO, %eax
	jz	3b
	movzbl	%al, %eax
	shll	$8, %eax
	movw	$0, 4(%ebx)
	movw	%ax, 6(%ebx)
	movl	$MR_SLOT_FREE, (%ebx)
	movl	%ebx, %esi
	subl	%edi, %esi
	xorl	%eax, %eax
	movl	%eax, %cr4
	lidtl	(real_idt - mr_park_start)(%edi)
	ljmpl	$MR_PARK_CODE16, $(part16 - mr_park_start)

mr_park_mc_32:
	pushl	%eax
	pushl	%ecx
	pushl	%edx
	movl	$MSR_IA32_MCG_STATUS, %ecx
	xorl	%eax, %eax
	xorl	%edx, %edx
	wrmsr
	popl	%edx
	popl	%ecx
	popl	%eax
mr_park_nmi_32:
	iretl

	.code16
part16:	movw	$MR_PARK_DATA16, %bx
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
