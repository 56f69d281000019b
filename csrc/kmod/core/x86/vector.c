// SPDX-License-Identifier: GPL-2.0-only
/* An interrupt vector for the doorbell, from the kernel's vector domain. */
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>

#include "core/arch.h"

/**
 * mr_vector_alloc() - an interrupt with a vector of its own on CPU 0
 *
 * The vector is allocated where it is to stay: moving it later waits for an interrupt to come, and a peer would ring
 * the old place until then.
 *
 * Return: its number in Linux, to be given back with irq_dispose_mapping(), or a negative error.
 */
int mr_vector_alloc(void)
{
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	int irq;

	if (!x86_vector_domain) {
		pr_err("this kernel has no vector domain\n");
		return -ENODEV;
	}
	irq = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (irq >= 0)
		irq_set_handler(irq, handle_edge_irq);
	return irq;
}

/* The vector by which a CPU's APIC names the interrupt. */
u32 mr_vector_of(int irq)
{
	return irqd_cfg(irq_get_irq_data(irq))->vector;
}

/*
 * True for a vector that a device could raise, which is what a doorbell may be. The others are the kernel's own, and
 * some of them stop a CPU.
 */
bool mr_vector_good(u32 vector)
{
	return vector >= FIRST_EXTERNAL_VECTOR && vector < FIRST_SYSTEM_VECTOR && vector != IA32_SYSCALL_VECTOR;
}
