// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * spinner CPU FILE [halt]: the smallest virtual machine. It has one vCPU, on a CPU of this root, and FILE is its 8 KiB
 * of memory. The guest adds to the word at COUNTER for ever, so its CPU is in the guest nearly all the time. With
 * "halt" it halts after each addition, and goes on 20 times a second: the CPU is in the kernel, with the machine open.
 * Who wants to know whether the guest runs reads FILE.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY	0x2000
#define COUNTER	0x500	/* also in the code below */
#define CODE	0x1000
#define FLAGS	0x202	/* interrupts on */
#define PAUSE	50000	/* microseconds */

/* Of 16 bits: 1: incl COUNTER; jmp 1b; the same with a hlt before the jump. */
static const uint8_t spin[] = { 0x66, 0xff, 0x06, 0x00, 0x05, 0xeb, 0xf9 };
static const uint8_t halt[] = { 0x66, 0xff, 0x06, 0x00, 0x05, 0xf4, 0xeb, 0xf8 };

static long must(long result, const char *what)
{
	if (result < 0)
		error(1, errno, "%s", what);
	return result;
}

static uint8_t *map(int fd, size_t size)
{
	uint8_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		error(1, errno, "mmap");
	return at;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static int make_vcpu(int vm, uint8_t *memory)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY, .userspace_addr = (uintptr_t)memory };
	struct kvm_regs registers = { .rip = CODE, .rflags = FLAGS };
	struct kvm_sregs special;
	int vcpu;

	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	must(ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS");
	special.cs.base = 0;
	special.cs.selector = 0;
	must(ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
	return vcpu;
}

int main(int argc, char **argv)
{
	int halts = argc == 4 && !strcmp(argv[3], "halt");
	struct kvm_run *run;
	int kvm, file, vcpu;
	uint8_t *memory;

	if (argc != 3 && !halts)
		error(2, 0, "usage: spinner CPU FILE [halt]");
	pin(atoi(argv[1]));
	file = must(open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600), argv[2]);
	must(ftruncate(file, MEMORY), "ftruncate");
	memory = map(file, MEMORY);
	memcpy(memory + CODE, halts ? halt : spin, halts ? sizeof(halt) : sizeof(spin));
	kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm");
	vcpu = make_vcpu(must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM"), memory);
	run = (void *)map(vcpu, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"));
	do {
		must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		usleep(PAUSE);
	} while (halts && run->exit_reason == KVM_EXIT_HLT);
	error(1, 0, "the guest ended with exit %u, hardware reason %#llx", run->exit_reason,
	      (unsigned long long)run->hw.hardware_exit_reason);
}
