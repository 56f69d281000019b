// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Keeps KVM's static keys as they are: its hot code is not patched again while guests run.
 *
 * KVM counts its virtual CPUs without a local APIC, those whose APIC is disabled by software, and those whose APIC is
 * disabled altogether (arch/x86/kvm/lapic.c). The first of a kind and the end of the last one have the kernel write to
 * the code that every other virtual CPU is executing. The lab machine's emulator may go on with what was there before
 * (docs/verification-boundary.md). So here is one of each kind that never runs, for as long as the root does.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { APIC_ENABLED = 1 << 11 };	/* of IA32_APIC_BASE */

static int ordered(int fd, unsigned long order, void *argument)
{
	int answer = ioctl(fd, order, argument);

	/* Init starts this again. */
	if (answer < 0)
		err(1, "KVM's ioctl %#lx", order);
	return answer;
}

/* A virtual CPU of a VM of its own; its file stays open, and with it both of them stay. */
static int new_cpu(int kvm, int with_apic)
{
	int vm = ordered(kvm, KVM_CREATE_VM, NULL);

	if (with_apic)
		ordered(vm, KVM_CREATE_IRQCHIP, NULL);
	return ordered(vm, KVM_CREATE_VCPU, NULL);
}

static void disable_apic(int cpu)
{
	struct kvm_sregs sregs;

	ordered(cpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base &= ~(uint64_t)APIC_ENABLED;
	ordered(cpu, KVM_SET_SREGS, &sregs);
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);

	if (kvm < 0) {
		/* A root without KVM is left alone. */
		warn("/dev/kvm");
	} else {
		new_cpu(kvm, 0);
		/* After its reset a local APIC is disabled by software. */
		new_cpu(kvm, 1);
		disable_apic(new_cpu(kvm, 1));
	}
	for (;;)
		pause();
}
