// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A program for a bare machine of two CPUs, loaded by the multiboot protocol with two modules: a ledger with the park
 * in it, and a page that leads a CPU to 64-bit mode. CPU 0 sends CPU 1 to the park and wakes it, over and over: by a
 * startup IPI, and out of 64-bit mode with interrupts pending, with NMIs raining down on it all the time.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/x86/park.h"

#define LEDGER		0x10000
#define PARK		(LEDGER + MR_PARK_OFFSET)
#define START		0x8000
#define ROUNDS		400
#define PATIENCE	2000000000u		/* cycles of the TSC: some seconds of an emulated machine */
#define PATTERN		0xa5
#define APIC		0xfee00000u
#define ICR		0x300
#define INIT		0x4500
#define STARTUP		0x4600
#define NMI		0x4400
#define FIXED		0x4000

struct slot {
	uint32_t state, start, wanted, pad;
};

struct module {
	uint32_t start, end, name, pad;
};

struct multiboot {
	uint32_t pad[5], modules, first_module;
};

/* Shared with CPU 1. */
volatile uint32_t bench_ready, bench_go, bench_left, bench_msr;
uint64_t bench_pml4[512] __attribute__((aligned(4096)));
uint64_t bench_pdpt[512] __attribute__((aligned(4096)));
uint64_t bench_pages[4][512] __attribute__((aligned(4096)));
uint64_t bench_idt[512] __attribute__((aligned(4096)));
uint8_t bench_stack[4096] __attribute__((aligned(4096)));
extern const uint8_t bench_64[], bench_nmi[];

asm(".section .multiboot, \"a\"\n"
    "	.long 0x1badb002, 0, -0x1badb002\n"
    "	.text\n"
    "	.globl _start\n"
    "_start:\n"
    "	movl $own_stack, %esp\n"
    "	pushl %ebx\n"
    "	call bench_main\n"
    "	.globl bench_64, bench_nmi\n"
    "	.code64\n"
    /* What is pending here was not taken in the park. Then the APIC is on, and NMIs have a gate. */
    "bench_64:\n"
    "	movl $0xfee00220, %ebx\n"
    "	movl (%rbx), %eax\n"
    "	movl $bench_left, %ebx\n"
    "	orl %eax, (%rbx)\n"
    /* What it records is what this register of no effect stands for: 0 since the park, and on from here. */
    "	movl $0xc0000103, %ecx\n"
    "	rdmsr\n"
    "	movl $bench_msr, %ebx\n"
    "	orl %eax, (%rbx)\n"
    "	movl $1, %eax\n"
    "	wrmsr\n"
    "	movl $0xfee000f0, %ebx\n"
    "	movl $0x1ff, (%rbx)\n"
    "	movl $idt_pointer, %ebx\n"
    "	lidt (%rbx)\n"
    "	movl $bench_ready, %ebx\n"
    "	movl $1, (%rbx)\n"
    "	movl $bench_go, %ebx\n"
    "1:	pause\n"
    "	cmpl $0, (%rbx)\n"
    "	je 1b\n"
    "	movl $park, %edi\n"
    "	movl $slot, %esi\n"
    "	movl $slot_stack, %edx\n"
    "	movl $0xfee000b0, %ecx\n"
    "	movl $park_enter, %eax\n"
    "	jmp *%rax\n"
    "bench_nmi:\n"
    "	iretq\n"
    "	.code32\n"
    "idt_pointer:\n"
    "	.word 4095\n"
    "	.long bench_idt, 0\n"
    "	.bss\n"
    "	.skip 4096\n"
    "own_stack:\n"
    "	.text\n");

static volatile struct slot *const slot_of_1 = (struct slot *)(PARK + MR_PARK_SLOTS) + 1;

static uint64_t cycles(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a" (low), "=d" (high));
	return (uint64_t)high << 32 | low;
}

static void out(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" : : "a" (value), "Nd" (port));
}

static void say(const char *text)
{
	while (*text)
		out(0xe9, *text++);
}

static void end(const char *verdict)
{
	say(verdict);
	say("\n");
	out(0xf4, 0);
	for (;;)
		asm volatile("hlt");
}

static void spin(uint32_t count)
{
	while (count--)
		asm volatile("pause");
}

static void send(uint32_t command)
{
	*(volatile uint32_t *)(APIC + ICR + 0x10) = 1u << 24;
	*(volatile uint32_t *)(APIC + ICR) = command;
}

/* Wait for a word; @nmis: one each so many turns. */
static void await(volatile uint32_t *word, uint32_t value, uint32_t nmis, const char *what)
{
	uint64_t until = cycles() + PATIENCE;

	while (*word != value) {
		if (nmis) {
			send(NMI);
			spin(nmis);
		}
		if (cycles() > until)
			end(what);
	}
}

static void copy(uint8_t *to, const struct module *module)
{
	uint32_t i;

	for (i = 0; i < module->end - module->start; i++)
		to[i] = ((const uint8_t *)module->start)[i];
}

static void map_all(void)
{
	uint32_t i, j;

	bench_pml4[0] = (uint32_t)bench_pdpt | 3;
	for (i = 0; i < 4; i++) {
		bench_pdpt[i] = (uint32_t)bench_pages[i] | 3;
		for (j = 0; j < 512; j++)
			bench_pages[i][j] = ((uint64_t)i << 30) | (j << 21) | 0x83;
	}
	bench_idt[2 * 2] = ((uint32_t)bench_nmi & 0xffff) | 0x10 << 16 | 0x8e00ULL << 32 |
			   (uint64_t)((uint32_t)bench_nmi >> 16) << 48;
}

/* All stacks but that of CPU 1. */
static void look_at_stacks(bool write)
{
	uint8_t *stacks = (uint8_t *)(PARK + MR_PARK_STACKS);
	uint32_t i;

	for (i = 0; i < MR_PARK_CPUS * MR_PARK_STACK_SIZE; i++) {
		if (i / MR_PARK_STACK_SIZE == 1)
			continue;
		if (write)
			stacks[i] = PATTERN;
		else if (stacks[i] != PATTERN)
			end("another CPU's stack was written");
	}
}

static void wake(uint32_t i)
{
	bench_ready = 0;
	bench_go = 0;
	slot_of_1->state = MR_SLOT_WAKE;
	await(&slot_of_1->state, MR_SLOT_AWAKE, 100 + i % 50, "it did not wake up");
	spin(1000);
	slot_of_1->state = MR_SLOT_GO | START >> 12;
	await(&bench_ready, 1, 0, "it did not start again");
	if (slot_of_1->state != MR_SLOT_FREE)
		end("it went away without a word");
}

void bench_main(const struct multiboot *boot)
{
	const struct module *modules = (const struct module *)boot->first_module;
	uint32_t i;

	copy((uint8_t *)LEDGER, &modules[0]);
	copy((uint8_t *)START, &modules[1]);
	map_all();
	look_at_stacks(true);
	for (i = 0; i < ROUNDS; i++) {
		if (i % 8 == 0) {
			send(INIT);
			spin(10000);
			slot_of_1->state = MR_SLOT_FREE;
			send(STARTUP | PARK >> 12);
			await(&slot_of_1->state, MR_SLOT_PARKED, 0, "a startup IPI did not park it");
		}
		wake(i);
		send(FIXED | 0x41);
		send(FIXED | 0x5e);
		bench_go = 1;
		await(&slot_of_1->state, MR_SLOT_PARKED, 20 + i % 211, "it did not park by itself");
		send(NMI);
		spin(i % 100);
		if (slot_of_1->state != MR_SLOT_PARKED)
			end("an NMI took it out of the park");
	}
	look_at_stacks(false);
	if (bench_left)
		end("interrupts are pending behind the park");
	if (bench_msr)
		end("a CPU went on to record");
	end("ok");
}
