// SPDX-License-Identifier: GPL-2.0-or-later
/* A machine of four CPUs that are in VMX root operation or not, and do what they are told when they get to run. */
#include "core/core.h"
#include "core/x86/park.h"

#define LEDGER		0x10000
#define PARK		(LEDGER + MR_PARK_OFFSET)
#define BOOT		0
#define ADDED		MACHINE_CPUS	/* a CPU that the machine gets later */

enum place { IN_KERNEL, WAITS_FOR_SIPI, IN_PARK, STARTED };

static struct {
	enum place place;
	bool online;				/* in this root */
	bool vmx;				/* INIT is blocked */
	bool listens;				/* runs our module */
	u64 sleeps_until;
	bool init, nmi;				/* pending */
	u32 sipi;				/* " , the page */
	u32 began_at;
	int inits;
} cpus[MACHINE_CPUS];

static union {
	struct multiroot_ledger data;
	unsigned char room[MULTIROOT_LEDGER_SIZE];
} ledger;
static struct multiroot_control control;
static struct mr_peer child = { .index = MULTIROOT_CHILD, .root = 2 };
static bool has_child, has_parent, has_room;
static unsigned char trampoline[PAGE_SIZE];
static u32 stage;

static int resets;
static u32 first_cpu, added_id;
static int (*going_online)(unsigned int cpu);
static bool child_was_told;

u64 now;
pthread_rwlock_t hotplug = PTHREAD_RWLOCK_INITIALIZER;
void (*nmi_hook)(u32 cpu);

static struct mr_park_slot *slot_of(u32 cpu)
{
	return (struct mr_park_slot *)(ledger.room + MR_PARK_OFFSET + MR_PARK_SLOTS) + cpu;
}

static void park(u32 cpu)
{
	cpus[cpu].place = IN_PARK;
	slot_of(cpu)->state = MR_SLOT_PARKED;
}

static void take_init(u32 cpu)
{
	/* Pending until VMXOFF. */
	if (!cpus[cpu].init || cpus[cpu].vmx)
		return;
	cpus[cpu].init = false;
	cpus[cpu].place = WAITS_FOR_SIPI;
}

static void take_sipi(u32 cpu)
{
	u32 page = cpus[cpu].sipi;

	cpus[cpu].sipi = 0;
	if (!page || cpus[cpu].place != WAITS_FOR_SIPI)
		return;
	cpus[cpu].began_at = page;
	if (page == PARK)
		park(cpu);
	else
		cpus[cpu].place = STARTED;
}

static void take_nmi(u32 cpu)
{
	if (!cpus[cpu].nmi)
		return;
	cpus[cpu].nmi = false;
	if (cpus[cpu].place == IN_PARK && slot_of(cpu)->state == MR_SLOT_WAKE)
		slot_of(cpu)->state = MR_SLOT_AWAKE;
	if (cpus[cpu].place != IN_KERNEL || !cpus[cpu].listens || !mr_slot_wanted(cpu))
		return;
	mr_slot_answer(cpu);
	cpus[cpu].vmx = false;
	take_init(cpu);
	if (cpus[cpu].place == IN_KERNEL)
		park(cpu);
}

static void look_at_slot(u32 cpu)
{
	u32 state = slot_of(cpu)->state;

	if (cpus[cpu].place != IN_PARK || !(state & MR_SLOT_GO))
		return;
	cpus[cpu].began_at = (state & 0xff) << PAGE_SHIFT;
	cpus[cpu].place = STARTED;
	slot_of(cpu)->state = MR_SLOT_FREE;
}

static void let_run(void)
{
	u32 cpu;

	for (cpu = 0; cpu < MACHINE_CPUS; cpu++) {
		if (now < cpus[cpu].sleeps_until)
			continue;
		take_init(cpu);
		take_sipi(cpu);
		take_nmi(cpu);
		look_at_slot(cpu);
	}
}

void let_pass(u64 us)
{
	now += us;
	let_run();
}

/* What the core has of the machine. */
u64 ktime_get_ns(void) { return 1000 * NSEC_PER_SEC + now * 1000; }

void mr_ipi_stop(u32 cpu)
{
	if (cpu == ledger.data.boot_hardware_id)
		resets++;
	cpus[cpu].inits++;
	cpus[cpu].init = true;
	let_pass(10000);
}

void mr_ipi_startup(u32 cpu, phys_addr_t page)
{
	cpus[cpu].sipi = page;
	let_pass(600);
}

void mr_ipi_nmi(u32 cpu)
{
	if (nmi_hook)
		nmi_hook(cpu);
	cpus[cpu].nmi = true;
	let_run();
}

void *memremap(phys_addr_t phys, size_t size, int how) { return trampoline; }
void memunmap(void *memory) {}
u32 mr_hardware_id(unsigned int cpu) { return cpu == ADDED ? added_id : (cpu + first_cpu) % MACHINE_CPUS; }
bool is_online(unsigned int cpu) { return cpus[cpu].online; }
u32 *mr_trampoline_fill(u8 *page, const struct multiroot_cpu_start *start) { return &stage; }
int mr_firmware_read(struct multiroot_ledger *ledger) { return 0; }
int mr_ecam_silence(void) { return 0; }
int mr_iommu_stop(const struct multiroot_ledger_unit *unit) { return 0; }
bool mr_memory_is_pmem(u64 base, u64 size) { return false; }
int mr_e820_read(struct multiroot_ledger *ledger) { return 0; }
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size) { return false; }
bool mr_memory_unused(u64 base, u64 size) { return false; }
bool mr_memory_foreign(u64 base, u64 size) { return false; }
void mr_zero_page(u64 *words) {}
int mr_ioapic_mask(phys_addr_t phys) { return 0; }
bool mr_map_close(u32 index) { return true; }
bool mr_carve_has(u64 phys, u64 size) { return true; }
bool mr_low_has(u64 phys, u64 size) { return true; }
void mr_peer_child_starts(struct mr_peer *peer) {}

bool mr_peer_alive(const struct mr_peer *peer)
{
	return peer->theirs->state == MULTIROOT_SIDE_ATTACHED || peer->theirs->state == MULTIROOT_SIDE_READY;
}

void mr_event_send(const struct mr_peer *peer, enum mr_event_kind kind)
{
	if (kind != MR_EVENT_ONLINE_VETOED)
		return;
	shim_at("online vetoed");
	/* A child that is known to the caller is there for as long as the caller speaks of it. */
	child_was_told = peer && has_child;
}

void mr_join_child_gone(struct mr_peer *peer) { peer->theirs->state = MULTIROOT_SIDE_ABSENT; }
void mr_join_detach(struct mr_peer *peer) { has_parent = false; }
int acpi_get_handle(void *parent, const char *name, acpi_handle *handle) { return !has_room; }

int cpuhp_setup_state_nocalls(int state, const char *name, int (*up)(unsigned int cpu), int (*down)(unsigned int cpu))
{
	if (state == CPUHP_BP_PREPARE_DYN)
		going_online = up;
	return state;
}

struct mr_peer *mr_peer(u32 index)
{
	return (index == MULTIROOT_CHILD ? has_child : has_parent) ? &child : NULL;
}

/* What a test does. Root 1 has all CPUs, and CPU 0 is the boot CPU; CPUs 2 and 3 are offline. */
void begin(void)
{
	u32 cpu;

	memset(cpus, 0, sizeof(cpus));
	memset(&ledger, 0, sizeof(ledger));
	memset(&control, 0, sizeof(control));
	mr_ledger = &ledger.data;
	mr_ledger->park_offset = MR_PARK_OFFSET;
	mr_ledger->roots_alive = 1;
	now = 0;
	resets = 0;
	first_cpu = BOOT;
	has_child = false;
	has_parent = false;
	for (cpu = 0; cpu < MACHINE_CPUS; cpu++) {
		cpus[cpu].online = cpu < 2;
		mr_ledger_set_cpu(cpu, 1, cpu < 2 ? MULTIROOT_CPU_ONLINE : MULTIROOT_CPU_OFFLINE);
	}
	child.control = &control;
	child.mine = &control.side[0];
	child.theirs = &control.side[1];
}

/* It asks for a ledger to be made, which fails, and so does not touch ours; what stays is who we are. */
void be_root(u32 root)
{
	mr_ledger_init(LEDGER, root, true);
	mr_ledger = &ledger.data;
}

void put(u32 cpu, bool vmx, bool listens)
{
	cpus[cpu].place = IN_KERNEL;
	cpus[cpu].vmx = vmx;
	cpus[cpu].listens = listens;
}

void put_in_park(u32 cpu, u32 state)
{
	park(cpu);
	slot_of(cpu)->state = state;
}

void descheduled(u32 cpu, u64 us)
{
	cpus[cpu].sleeps_until = now + us;
}

void first_cpu_is(u32 hardware_id) { first_cpu = hardware_id; }
void ended_parent(void) { has_parent = true; }
void room(bool is_there) { has_room = is_there; }
void carved(void) { has_child = true; }
void child_is(u32 state) { child.theirs->state = state; }
u32 place(u32 cpu) { return cpus[cpu].place; }
u32 began_at(u32 cpu) { return cpus[cpu].began_at; }
int inits(u32 cpu) { return cpus[cpu].inits; }
bool asked(u32 cpu) { return slot_of(cpu)->wanted; }
int resets_so_far(void) { return resets; }
u32 alive(void) { return ledger.data.roots_alive; }

static struct multiroot_cpu asked_for(u32 cpu)
{
	return (struct multiroot_cpu){ .cpu = cpu, .hardware_id = cpu };
}

int grant(u32 number)
{
	struct multiroot_cpu cpu = asked_for(number);

	return mr_cpu_grant(&cpu);
}

/* The child runs there, and tells so. */
void start(u32 number)
{
	struct multiroot_cpu_start request = { .cpu = number, .timeout_ms = 10, .stack = SZ_1M };

	mr_cpu_start(&request);
	put(number, false, false);
}

/* Into the state in which a CPU is that the child has and this root takes back. */
int reclaim(u32 number)
{
	struct multiroot_cpu cpu = asked_for(number);

	return mr_cpu_reclaim(&cpu);
}

u32 state(u32 number)
{
	struct multiroot_cpu cpu = asked_for(number);

	mr_cpu_get(&cpu);
	return cpu.state;
}

int adopt(u32 number)
{
	struct multiroot_cpu cpu = asked_for(number);

	return mr_adopt_cpu(&cpu);
}

/* As the kernel does: nobody else changes CPUs meanwhile. */
int bring_online(u32 number)
{
	int err;

	pthread_rwlock_wrlock(&hotplug);
	err = going_online(number);
	pthread_rwlock_unlock(&hotplug);
	return err;
}

int bring_added_online(u32 hardware_id)
{
	added_id = hardware_id;
	return bring_online(ADDED);
}

bool uncarve(void)
{
	if (mr_cpu_any_granted())
		return false;
	has_child = false;
	return true;
}

bool told(void) { return child_was_told; }
