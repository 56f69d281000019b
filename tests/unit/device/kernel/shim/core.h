/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts, delayed work, memory that comes and goes, and consoles, as far as csrc/kmod/core knows them. */
#ifndef _SHIM_CORE_H
#define _SHIM_CORE_H

#include "kernel.h"

#define ____cacheline_aligned	__aligned(64)
extern unsigned int tsc_khz;
#define fsleep(us)		shim_at("fsleep")
#define misc_deregister(device)	do {} while (0)
int misc_register(struct miscdevice *device);

struct kobject {
	int unused;
};

struct device {
	struct kobject kobj;
};

/* As many as a test says, all of them online. */
extern unsigned int shim_cpus __attribute__((weak));
#define for_each_present_cpu(cpu)	for ((cpu) = 0; (cpu) < (&shim_cpus ? shim_cpus : 1); (cpu)++)
#define for_each_online_cpu(cpu)	for_each_present_cpu(cpu)
#define cpu_online(cpu)		true

struct resource {
	u64 start, end;
	unsigned long flags;
	const char *name;
	struct resource *parent;
};

struct pci_bus {
	int domain;
	u8 number;
	struct pci_ops *ops;
	struct resource busn_res, *windows[4];
	struct pci_host_bridge *bridge;
};

struct pci_dev {
	struct pci_bus *bus;
	unsigned int devfn;
	const char *driver_override;
	struct resource resource[4];
};

/* Time is a number that a test sets, and work is done when it comes. */
#define NSEC_PER_SEC		1000000000L
u64 ktime_get_ns(void);
extern unsigned long jiffies;
#define msecs_to_jiffies(ms)	((ms) / 4)
#define time_before(a, b)	((long)((a) - (b)) < 0)
struct delayed_work {
	struct work_struct work;
	void (*function)(struct work_struct *work);
	bool pending;
	unsigned long at;
};
struct workqueue_struct;
#define to_delayed_work(w)	container_of(w, struct delayed_work, work)
#define INIT_DELAYED_WORK(w, f)	(*(w) = (struct delayed_work){ .function = (f) })
#define alloc_ordered_workqueue(...)	((struct workqueue_struct *)1)
#define destroy_workqueue(queue)	((void)(queue))
#define flush_delayed_work(work)	((void)(work))
#define KOBJ_CHANGE		2
bool queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay);
int kobject_uevent_env(struct kobject *kobj, int action, char *env[]);

/* Interrupts. */
typedef int irqreturn_t;
#define IRQ_HANDLED		1
#define IRQF_NO_THREAD		0x10000
#define IRQF_NOBALANCING	0x800
#define FIRST_EXTERNAL_VECTOR	0x20
#define FIRST_SYSTEM_VECTOR	0xeb
#define IA32_SYSCALL_VECTOR	0x80
#define NUMA_NO_NODE		(-1)
struct irq_alloc_info {
	const void *mask;
};
struct irq_cfg {
	unsigned int vector;
};
extern struct irq_cfg shim_irq_cfg;
#define x86_vector_domain	((void *)1)
#define handle_edge_irq		NULL
#define cpumask_of(cpu)		NULL
#define cpumask_first(mask)	((int)((mask) - (char *)1))
#define irq_domain_alloc_irqs(domain, count, node, info)	((void)(info), 30)
#define irq_set_handler(irq, handler)	do {} while (0)
#define irq_get_irq_data(irq)	(irq)
#define irqd_cfg(data)		(&shim_irq_cfg)
#define irq_data_get_effective_affinity_mask(data)	((char *)1)
#define irq_dispose_mapping(irq)	((void)(irq))
#define free_irq(irq, data)	((void)(irq))
#define synchronize_irq(irq)	((void)(irq))
int request_irq(int irq, irqreturn_t (*handler)(int irq, void *data), unsigned long flags, const char *name,
		void *data);
#define read_poll_timeout(op, value, until, us, most, first, ...)	\
	({ (value) = op(__VA_ARGS__); (until) ? 0 : -ETIMEDOUT; })

struct eventfd_ctx;
#define eventfd_ctx_fdget(fd)	((struct eventfd_ctx *)ERR_PTR(-EBADF))
#define eventfd_ctx_put(ctx)	((void)(ctx))
#define eventfd_signal(ctx)	((void)(ctx))

/* Memory blocks come online in steps, of which a module hears. */
struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long action, void *data);
	int priority;
};
struct memory_notify {
	unsigned long start_pfn, nr_pages;
};
enum { MEM_ONLINE = 1, MEM_GOING_OFFLINE = 2, MEM_OFFLINE = 4, MEM_GOING_ONLINE = 8, MEM_CANCEL_ONLINE = 16 };
#define NOTIFY_OK		1
#define NOTIFY_DONE		0
#define notifier_from_errno(err)	(0x8000 | (NOTIFY_OK - (err)))
int register_memory_notifier(struct notifier_block *nb);
#define unregister_memory_notifier(nb)	((void)(nb))

/* Pages: all there, some online. */
struct page {
	bool online, reserved, poisoned, unknown;
};
struct page *pfn_to_page(unsigned long pfn);
#define pfn_valid(pfn)		(!!pfn_to_page(pfn))
#define VM_MAP			0
#define PAGE_KERNEL		0
#define PAGE_ALIGN(x)		(((x) + PAGE_SIZE - 1) & PAGE_MASK)
#define offset_in_page(p)	((unsigned long)(p) & ~PAGE_MASK)
#define kvmalloc_array(n, size, how)	kvmalloc((n) * (size), how)
void *vmap(struct page **list, unsigned int count, unsigned long flags, int prot);
void vunmap(const void *at);
#define pfn_to_online_page(pfn)	(pfn_valid(pfn) && pfn_to_page(pfn)->online ? pfn_to_page(pfn) : NULL)
#define PageReserved(page)	((page)->reserved)
#define PageHWPoison(page)	((page)->poisoned)
#define PagePoisoned(page)	((page)->unknown)
int region_intersects(u64 base, u64 size, unsigned long flags, unsigned long desc);

/* Consoles and their readers. */
struct console {
	char name[16];
	void (*write)(struct console *console, const char *text, unsigned int size);
	short flags, index;
};
#define CON_PRINTBUFFER		1
#define CON_ENABLED		4
#define CON_ANYTIME		16
#define register_console(console)	((void)(console))
#define unregister_console(console)	((void)(console))
typedef struct { int value; } atomic_t;
typedef int wait_queue_head_t;
typedef struct poll_table_struct poll_table;
#define __poll_t		unsigned int
#define ATOMIC_INIT(n)		{ n }
#define atomic_read(a)		READ_ONCE((a)->value)
#define atomic_inc(a)		((void)__atomic_fetch_add(&(a)->value, 1, __ATOMIC_SEQ_CST))
#define DECLARE_WAIT_QUEUE_HEAD(name)	wait_queue_head_t name
#define wake_up_interruptible(queue)	((void)(queue))
#define wait_event_interruptible(queue, until)	((void)(queue), (until) ? 0 : -ERESTARTSYS)
#define signal_pending(task)	true
#define current			NULL
#define poll_wait(file, queue, wait)	((void)(queue))
#define EPOLLIN			1
#define EPOLLRDNORM		64

#endif /* _SHIM_CORE_H */
