// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loaded into the lab machine's QEMU: keeps its software emulation of SVM from delivering an interrupt twice.
 *
 * The helper for VMRUN that injects an external interrupt leaves the vector behind as the CPU's exception_index
 * (target/i386/tcg/system/svm_helper.c, as of QEMU 11.1). Whatever takes the CPU out of its execution loop next without
 * an interrupt of its own - a change of the memory map, "stop" and "cont", a flush of translated code - finds it there
 * and delivers it to the nested guest once more, as an exception, also with interrupts disabled. A guest that holds a
 * lock then waits for itself for ever.
 *
 * The helper is called through a table that QEMU exports, as it does its functions. Here the helper's work is followed
 * by a way out of the execution loop that forgets the index; execution goes on in the nested guest as it would have.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* DEF_HELPER_3(vmrun, void, env, int, int) */
typedef void (*vmrun_helper)(void *env, int aflag, int next_eip_addend);

extern __thread void *current_cpu;

static vmrun_helper vmrun;
static void (*leave)(void *cpu);

static void vmrun_and_leave(void *env, int aflag, int next_eip_addend)
{
	vmrun(env, aflag, next_eip_addend);
	leave(current_cpu);
}

__attribute__((constructor)) static void mend(void)
{
	/* Of struct TCGHelperInfo the function comes first. */
	vmrun_helper *called = dlsym(RTLD_DEFAULT, "helper_info_vmrun");

	vmrun = (vmrun_helper)(uintptr_t)dlsym(RTLD_DEFAULT, "helper_vmrun");
	leave = (void (*)(void *))(uintptr_t)dlsym(RTLD_DEFAULT, "cpu_loop_exit_noexc");
	if (!called || !vmrun || !leave || *called != vmrun) {
		fprintf(stderr, "this QEMU is not one that qemu-lab/emulator/vmrun.c knows\n");
		exit(1);
	}
	*called = vmrun_and_leave;
}
