/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUs that come and go, and time that passes while somebody waits for them: for csrc/kmod/core's CPUs. */
#ifndef _SHIM_CPUS_H
#define _SHIM_CPUS_H

#include "core.h"

#define MACHINE_CPUS	4
#define nr_cpu_ids	MACHINE_CPUS

/* CPUs do what they are told while time passes; in µs. */
extern u64 now;
void let_pass(u64 us);
#define udelay(us)		let_pass(us)
#undef read_poll_timeout
#define read_poll_timeout(op, value, until, us, most, first, ...)		\
({										\
	u64 _end = now + (most);						\
										\
	while ((value) = op(__VA_ARGS__), !(until) && now < _end)		\
		let_pass(us);							\
	(until) ? 0 : -ETIMEDOUT;						\
})
#define rdtsc()			now

/* All are present. */
bool is_online(unsigned int cpu);
#undef cpu_online
#define cpu_online(cpu)		is_online(cpu)
#define cpu_present(cpu)	((cpu) < MACHINE_CPUS)
#undef for_each_present_cpu
#define for_each_present_cpu(cpu)	for ((cpu) = 0; (cpu) < MACHINE_CPUS; (cpu)++)
extern pthread_rwlock_t hotplug;
#define cpus_read_lock()	(shim_at("cpus_read_lock"), pthread_rwlock_rdlock(&hotplug))
#define cpus_read_unlock()	pthread_rwlock_unlock(&hotplug)
#define CPUHP_BP_PREPARE_DYN	1
#define CPUHP_AP_ONLINE_DYN	2
#define cpuhp_remove_state_nocalls(state)	((void)(state))
int cpuhp_setup_state_nocalls(int state, const char *name, int (*up)(unsigned int cpu), int (*down)(unsigned int cpu));

struct cpumask {
	unsigned long bits;
};

#define cpumask_empty(mask)	(!(mask)->bits)
#define cpumask_test_cpu(cpu, mask)	(!!((mask)->bits & BIT(cpu)))
#define cpumask_set_cpu(cpu, mask)	((void)((mask)->bits |= BIT(cpu)))
#define cpumask_clear_cpu(cpu, mask)	((void)((mask)->bits &= ~BIT(cpu)))

/* A root's tables have a place for a CPU, or not. */
typedef int acpi_handle;
int acpi_get_handle(void *parent, const char *name, acpi_handle *handle);
#define ACPI_FAILURE(status)	(status)
#define acpi_scan_lock_acquire()	do {} while (0)
#define acpi_scan_lock_release()	do {} while (0)
#define acpi_bus_scan(handle)	((void)(handle), 0)

/* Memory that is added. */
#define memory_block_size_bytes()	SZ_64M
#define first_memory_node	0
#define phys_to_target_node(base)	NUMA_NO_NODE
#define node_possible(node)	((void)(node), false)
#define MHP_NONE		0
#define add_memory_driver_managed(node, base, size, name, flags)	(0)

#endif /* _SHIM_CPUS_H */
