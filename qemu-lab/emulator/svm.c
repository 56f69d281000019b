// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loaded into the lab machine's QEMU: mends three faults of its software emulation of SVM, as of QEMU 11.1.
 *
 * The helper for VMRUN that injects an external interrupt leaves the vector behind as the CPU's exception_index
 * (target/i386/tcg/system/svm_helper.c). Whatever takes the CPU out of its execution loop next without an interrupt
 * of its own - a change of the memory map, "stop" and "cont", a flush of translated code - finds it there and
 * delivers it to the nested guest once more, as an exception, also with interrupts disabled. A guest that holds a
 * lock then waits for itself for ever. The helper is called through a table that QEMU exports, as it does its
 * functions. Here the helper's work is followed by a way out of the execution loop that forgets the index; execution
 * goes on in the nested guest as it would have.
 *
 * cpu_clear_ignne() (target/i386/tcg/system/fpu_helper.c) clears a bit in hflags2 of the machine's first CPU, and
 * every CPU calls it when it restores FPU state. It reads, changes and writes without a lock, so that a change which
 * the first CPU makes to its own hflags2 meanwhile is undone. When that is the end of nested paging at a #VMEXIT, the
 * kernel that runs the guest goes on translating its addresses as if they were the guest's: it triple-faults, or
 * leaves the guest a second time, with its own state in place of the guest's. The bit stands for IGNNE#, which only a
 * write to port F0h sets: nobody does. So the function is made to do nothing.
 *
 * The helper for a write to CR8 (target/i386/tcg/system/misc_helper.c) calls cpu_interrupt() without QEMU's big lock
 * when the nested guest's priority lets a pending virtual interrupt through, and QEMU ends by an assertion. UEFI writes
 * CR8 at the end of each of its interrupts. Here the lock is taken around the helper, in a nested guest alone: else the
 * helper takes it itself. Which of both holds is a bit of hflags2, whose place is read from the helper's own code.
 *
 * And it makes the CPUs say what is true of them: their time stamp counter counts at one rate whatever they do
 * (CPUID 80000007h, "invariant TSC"). QEMU lets that bit be set under KVM alone, and an AMD CPU without it is none
 * that Linux with PREEMPT_RT runs KVM on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* DEF_HELPER_3(vmrun, void, env, int, int) */
typedef void (*vmrun_helper)(void *env, int aflag, int next_eip_addend);

/* DEF_HELPER_1(cpuid, void, env) */
typedef void (*cpuid_helper)(void *env);

/* DEF_HELPER_FLAGS_3(write_crN, ..., void, env, int, tl) */
typedef void (*write_cr_helper)(void *env, int reg, uint64_t value);

enum { RET = 0xc3 };	/* the x86 instruction */
enum { TASK_PRIORITY = 8, VIRTUAL_INTERRUPTS = 1 << 3 };	/* CR8; HF2_VINTR_MASK */
enum { CODE_SEARCHED = 256 };
enum { EAX, ECX, EDX };	/* the CPU's state begins with its registers, 64 bits each */
enum { INVARIANT_TSC = 1 << 8 };
#define POWER_MANAGEMENT 0x80000007u

extern __thread void *current_cpu;

static vmrun_helper vmrun;
static void (*leave)(void *cpu);
static write_cr_helper write_cr;
static cpuid_helper cpuid;
static void (*lock)(const char *file, int line);
static void (*unlock)(void);
static int32_t hflags2_at;

static void vmrun_and_leave(void *env, int aflag, int next_eip_addend)
{
	vmrun(env, aflag, next_eip_addend);
	leave(current_cpu);
}

static void cpuid_and_invariant_tsc(void *env)
{
	uint64_t *registers = env;
	uint32_t leaf = registers[EAX];

	cpuid(env);
	if (leaf == POWER_MANAGEMENT)
		registers[EDX] |= INVARIANT_TSC;
}

static void write_cr_locked(void *env, int reg, uint64_t value)
{
	uint32_t hflags2;

	memcpy(&hflags2, (char *)env + hflags2_at, sizeof(hflags2));
	if (reg != TASK_PRIORITY || !(hflags2 & VIRTUAL_INTERRUPTS)) {
		write_cr(env, reg, value);
		return;
	}
	lock(__FILE__, __LINE__);
	write_cr(env, reg, value);
	unlock();
}

static void give_up(void)
{
	fprintf(stderr, "this QEMU is not one that qemu-lab/emulator/svm.c knows\n");
	exit(1);
}

static void make_empty(uint8_t *function)
{
	size_t size = sysconf(_SC_PAGESIZE);
	void *page = function - (uintptr_t)function % size;

	if (mprotect(page, size, PROT_READ | PROT_WRITE | PROT_EXEC))
		give_up();
	*(volatile uint8_t *)function = RET;
	if (mprotect(page, size, PROT_READ | PROT_EXEC))
		give_up();
}

/* Of "testb $VIRTUAL_INTERRUPTS, offset(%rdi)", the only one of its kind there. */
static int32_t find_hflags2(const uint8_t *code)
{
	int32_t offset;

	for (int at = 0; at < CODE_SEARCHED; at++) {
		if (code[at] != 0xf6 || code[at + 1] != 0x87 || code[at + 6] != VIRTUAL_INTERRUPTS)
			continue;
		memcpy(&offset, code + at + 2, sizeof(offset));
		return offset;
	}
	give_up();
	return 0;
}

__attribute__((constructor)) static void mend(void)
{
	/* Of struct TCGHelperInfo the function comes first. */
	vmrun_helper *called = dlsym(RTLD_DEFAULT, "helper_info_vmrun");
	write_cr_helper *writes = dlsym(RTLD_DEFAULT, "helper_info_write_crN");
	cpuid_helper *asks = dlsym(RTLD_DEFAULT, "helper_info_cpuid");
	uint8_t *clear_ignne = dlsym(RTLD_DEFAULT, "cpu_clear_ignne");

	vmrun = (vmrun_helper)(uintptr_t)dlsym(RTLD_DEFAULT, "helper_vmrun");
	leave = (void (*)(void *))(uintptr_t)dlsym(RTLD_DEFAULT, "cpu_loop_exit_noexc");
	write_cr = (write_cr_helper)(uintptr_t)dlsym(RTLD_DEFAULT, "helper_write_crN");
	cpuid = (cpuid_helper)(uintptr_t)dlsym(RTLD_DEFAULT, "helper_cpuid");
	lock = (void (*)(const char *, int))(uintptr_t)dlsym(RTLD_DEFAULT, "bql_lock_impl");
	unlock = (void (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "bql_unlock");
	if (!called || !clear_ignne || !vmrun || !leave || *called != vmrun)
		give_up();
	if (!writes || !write_cr || !lock || !unlock || *writes != write_cr)
		give_up();
	if (!asks || !cpuid || *asks != cpuid)
		give_up();
	hflags2_at = find_hflags2((const uint8_t *)(uintptr_t)write_cr);
	*writes = write_cr_locked;
	*asks = cpuid_and_invariant_tsc;
	*called = vmrun_and_leave;
	make_empty(clear_ignne);
}
