// SPDX-License-Identifier: GPL-2.0-or-later
/* A root with a carve of this memory, a child, and whatever else multiroot.ko has, as a test wants it. */
#include "core/core.h"
#include "ioctl.h"

#define RAM		0x200000000ULL		/* all that may be carved */
#define RAM_SIZE	SZ_64M
#define BLOCK		(RAM_SIZE / 4)		/* of memory that comes online at once */
#define LOW		0x20000
#define LOW_SIZE	SZ_64K
#define PAGES		(RAM_SIZE / PAGE_SIZE)

static struct page pages[PAGES];
static struct miscdevice *devices[2];
static struct notifier_block *memory_notifier;
static unsigned char *ram;			/* at RAM */
static unsigned char shared[MULTIROOT_SHARED_SIZE] __aligned(4096);
static struct multiroot_ledger machine_ledger;
static irqreturn_t (*interrupt)(int irq, void *data);
static void *interrupt_data;
static struct delayed_work *waiting[32];

struct multiroot_ledger *mr_ledger = &machine_ledger;
unsigned int tsc_khz;
struct irq_cfg shim_irq_cfg = { .vector = 0x41 };
unsigned long jiffies = 1000, irq_flags;
int interrupted, interrupted_vector, uevents, queued, directly, mapped, unmapped;
char last_uevent[64];
struct mr_peer child = { .index = MULTIROOT_CHILD, .root = 2 };

/* What the core has of the machine. */
int misc_register(struct miscdevice *device)
{
	static struct device told;

	device->this_device = &told;
	devices[!!devices[0]] = device;
	return 0;
}

int register_memory_notifier(struct notifier_block *nb)
{
	memory_notifier = nb;
	return 0;
}

int request_irq(int irq, irqreturn_t (*handler)(int irq, void *data), unsigned long flags, const char *name, void *data)
{
	interrupt = handler;
	interrupt_data = data;
	irq_flags = flags;
	return 0;
}

/* The direct map of RAM, of which KASAN knows nothing while it is offline. */
void *memremap(phys_addr_t phys, size_t size, int how)
{
	directly++;
	return ram + (phys - RAM);
}

void *vmap(struct page **list, unsigned int count, unsigned long flags, int prot)
{
	unsigned int i;

	for (i = 1; i < count; i++)
		if (list[i] != list[0] + i)
			return NULL;
	mapped += count;
	return ram + (list[0] - pages) * PAGE_SIZE;
}

void vunmap(const void *at)
{
	unmapped += !offset_in_page(at);
}

void memunmap(void *memory)
{
}

struct page *pfn_to_page(unsigned long pfn)
{
	u64 index = pfn - PHYS_PFN(RAM);

	return index < PAGES ? &pages[index] : NULL;
}

int region_intersects(u64 base, u64 size, unsigned long flags, unsigned long desc)
{
	return flags == IORESOURCE_SYSTEM_RAM && base >= RAM ? REGION_INTERSECTS : REGION_DISJOINT;
}

bool queue_delayed_work(struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
	int i = 0;

	queued++;
	if (work->pending)
		return false;
	while (waiting[i])
		i++;
	waiting[i] = work;
	work->pending = true;
	work->at = jiffies + delay;
	return true;
}

int kobject_uevent_env(struct kobject *kobj, int action, char *env[])
{
	uevents++;
	snprintf(last_uevent, sizeof(last_uevent), "%s %s %s", env[0], env[1], env[2]);
	return 0;
}

/* In jiffies. */
void let_time_pass(unsigned long until)
{
	for (; jiffies < until; jiffies++) {
		int i;

		for (i = 0; i < ARRAY_SIZE(waiting); i++) {
			struct delayed_work *work = waiting[i];

			if (!work || time_before(jiffies, work->at))
				continue;
			waiting[i] = NULL;
			work->pending = false;
			work->function(&work->work);
		}
	}
}

/* Other files of the core. */
phys_addr_t mr_ledger_phys(void) { return 0x10000; }
u32 mr_ledger_root(void) { return 1; }
u32 mr_ledger_cpu_root(u32 hardware_id) { return hardware_id ? 2 : 1; }
u32 mr_hardware_id(unsigned int cpu) { return cpu; }
u32 mr_ipi_info_flags(void) { return 0; }
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size) { return true; }
struct mr_peer *mr_peer(u32 index) { return index == MULTIROOT_CHILD && child.phys ? &child : NULL; }
bool mr_peer_alive(const struct mr_peer *peer) { return true; }
bool mr_map_close(u32 index) { return true; }
int mr_map(struct file *file, struct vm_area_struct *vma) { return -EINVAL; }
bool mr_cpu_any_granted(void) { return false; }
bool mr_cpu_any_started(void) { return false; }
int mr_cpu_get(struct multiroot_cpu *cpu) { return -EINVAL; }
int mr_cpu_grant(struct multiroot_cpu *cpu) { return -EINVAL; }
int mr_cpu_start(struct multiroot_cpu_start *start) { return -EINVAL; }
int mr_cpu_reclaim(struct multiroot_cpu *cpu) { return -EINVAL; }
int mr_adopt_inherit(void) { return -EINVAL; }
int mr_adopt_cpu(struct multiroot_cpu *cpu) { return -EINVAL; }
int mr_adopt_memory(struct multiroot_memory *memory) { return -EINVAL; }
int mr_bridge_let_in(u32 segment, u32 rid) { return -EINVAL; }

void mr_ipi_vector(u32 hardware_id, u8 vector)
{
	if (!hardware_id) {
		interrupt(0, interrupt_data);
		return;
	}
	interrupted++;
	interrupted_vector = vector;
}

int mr_join_create_child(phys_addr_t phys, u32 root)
{
	child.phys = phys;
	child.shared = shared;
	child.control = child.shared;
	child.mine = &child.control->side[0];
	child.theirs = &child.control->side[1];
	mr_console_child_changed(&child);
	return 0;
}

void mr_join_detach(struct mr_peer *peer)
{
	mr_console_child_changed(NULL);
	child.phys = 0;
}

static void tell_state(struct mr_peer *peer)
{
	mr_event_send(peer, MR_EVENT_STATE);
}

static const struct mr_listener listeners[] = { { MULTIROOT_EVENT_STATE, tell_state }, {} };

/* What a test does. */
int up(void)
{
	ram = calloc(1, RAM_SIZE);
	return mr_doorbell_init(listeners) ?: mr_segments_init() ?: mr_console_init() ?: mr_dev_init();
}

struct page *page(unsigned long number)
{
	return &pages[number];
}

static int call(unsigned int command, void *argument)
{
	static struct file file;

	return devices[1]->fops->unlocked_ioctl(&file, command, (unsigned long)argument);
}

int claim(void)
{
	return call(MULTIROOT_IOC_CLAIM, NULL);
}

int info(void)
{
	struct multiroot_info answer;

	return call(MULTIROOT_IOC_INFO, &answer);
}

int carve(void)
{
	struct multiroot_carve request = {
		.base = RAM, .size = RAM_SIZE, .low_base = LOW, .low_size = LOW_SIZE, .shared = RAM,
	};

	return call(MULTIROOT_IOC_CARVE, &request);
}

int uncarve(void)
{
	return call(MULTIROOT_IOC_UNCARVE, NULL);
}

static int move(unsigned int command, u64 offset, void *buffer, u64 size)
{
	struct multiroot_segment request = { .phys = RAM + offset, .size = size, .buf = (unsigned long)buffer };

	return call(command, &request);
}

int put(u64 offset, void *buffer, u64 size)
{
	return move(MULTIROOT_IOC_WRITE, offset, buffer, size);
}

int get(u64 offset, void *buffer, u64 size)
{
	return move(MULTIROOT_IOC_READ, offset, buffer, size);
}

int ring(u32 events)
{
	struct multiroot_ring request = { .peer = MULTIROOT_CHILD, .events = events };

	return call(MULTIROOT_IOC_RING, &request);
}

/* The child rings, with this state. */
void is_rung(u32 state)
{
	child.theirs->state = state;
	child.mine->events |= MULTIROOT_EVENT_STATE;
	interrupt(0, interrupt_data);
}

/* The child says where it is to be rung. */
void child_at(u32 hardware_id, u32 vector)
{
	child.theirs->hardware_id = hardware_id;
	child.theirs->vector = vector;
}

/* Text of the child that nobody has read yet. */
void say(const char *text)
{
	u64 *written = child.shared + MR_CONSOLE_OFFSET;

	strcpy(child.shared + MR_CONSOLE_OFFSET + 128 + *written, text);
	*written += strlen(text);
}

int hear(char *text, size_t size)
{
	static struct file file;

	if (!file.private_data)
		devices[0]->fops->open(NULL, &file);
	return devices[0]->fops->read(&file, text, size, NULL);
}

/* A step of a block of memory. */
int block(unsigned long number, unsigned long action)
{
	struct memory_notify range = { PHYS_PFN(RAM + number * BLOCK), BLOCK / PAGE_SIZE };

	return memory_notifier->notifier_call(memory_notifier, action, &range);
}
