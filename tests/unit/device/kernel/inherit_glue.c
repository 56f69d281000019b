// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A root whose parent has ended, on a machine whose CPUs, PCI functions and IOMMUs are as a test wants them. What was
 * done to them is noted in its order.
 */
#include "core/core.h"

#define ECAM		0xb0000000ULL	/* of segment 0; those of others follow, 1 GiB each */
#define ECAM_SIZE	0x40000000ULL
#define UNIT		0xfed90000ULL
#define PMEM		0x800000000ULL
#define PMEM_SIZE	0x40000000ULL
#define FUNCTIONS	16
#define ROOT		2

struct function {
	u32 segment, rid;
	u16 command;
	u8 type, secondary, subordinate;
	bool there;
};

static struct multiroot_ledger machine_ledger;
static struct pci_bus buses[4];
static struct pci_dev handed[4];
static int handed_count;
static struct mr_peer peers[2];
static char unit_memory[MULTIROOT_LEDGER_UNITS][0x4000];

struct function functions[FUNCTIONS];
bool parked[MULTIROOT_LEDGER_CPUS];
char done[4096];			/* in words */
bool others_live, unit_stuck, ports, hangs;
u64 now = 1000 * NSEC_PER_SEC;
u64 block = SZ_128K * 1024ULL;
int node = NUMA_NO_NODE, added_node;

struct multiroot_ledger *mr_ledger = &machine_ledger;

static void note(const char *format, u64 what)
{
	size_t length = strlen(done);

	snprintf(done + length, sizeof(done) - length, format, what);
}

/* Other files of the core. */
u32 mr_ledger_root(void) { return ROOT; }
u32 mr_ledger_cpu_root(u32 id) { return mr_ledger->cpu[id].root; }
u32 mr_ledger_cpu_state(u32 id) { return mr_ledger->cpu[id].state; }
bool mr_ledger_others(void) { return others_live; }
bool mr_slot_parked(u32 id) { return parked[id]; }
bool mr_map_close(u32 index) { return true; }
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size) { return true; }
bool mr_memory_foreign(u64 base, u64 size) { return true; }
void mr_zero_page(u64 *words) { note("zero ", 0); }
int mr_cpu_find(u32 id, struct multiroot_cpu *cpu) { return 0; }

bool mr_memory_is_pmem(u64 base, u64 size)
{
	return base >= PMEM && base < PMEM + PMEM_SIZE;
}

void mr_ledger_set_cpu(u32 id, u32 root, u32 state)
{
	mr_ledger->cpu[id].root = root;
	mr_ledger->cpu[id].state = state;
}

struct mr_peer *mr_peer(u32 index)
{
	return peers[index].phys ? &peers[index] : NULL;
}

void mr_join_detach(struct mr_peer *peer)
{
	peer->phys = 0;
	note("detached ", 0);
}

int mr_ioapic_mask(phys_addr_t phys)
{
	note("ioapic ", 0);
	return 0;
}

u64 ktime_get_ns(void) { return now; }

/* Of the machine's boot CPU there is no taking: it is asked if it listens, and comes if it can. */
int mr_slot_take(u32 id, bool listens)
{
	note(listens ? "lead%llu " : "take%llu ", id);
	parked[id] = !hangs && (listens || id != machine_ledger.boot_hardware_id);
	return parked[id] ? 0 : -ETIMEDOUT;
}

/* Memory and CPUs that come. */
void *memremap(phys_addr_t phys, size_t size, int how)
{
	static u64 chunk[SZ_2M / 8];

	return chunk;
}

void memunmap(void *memory) {}
u64 memory_block_size_bytes(void) { return block; }
int phys_to_target_node(u64 base) { return node; }
bool node_possible(int which) { return which < 2; }
int acpi_get_handle(void *parent, const char *name, acpi_handle *handle) { return 0; }

int add_memory_driver_managed(int on, u64 base, u64 size, const char *name, int how)
{
	added_node = on;
	note("added%llu ", size);
	return 0;
}

/* Configuration space and registers of units: an address is what it is, but for units' registers. */
void *ioremap(phys_addr_t phys, size_t size)
{
	return phys >= UNIT && phys < UNIT + sizeof(unit_memory) ? unit_memory[(phys - UNIT) / 0x4000] : (void *)phys;
}

static bool is_config(const void *at)
{
	return (u64)at >= ECAM && (u64)at < ECAM + MULTIROOT_LEDGER_ECAMS * ECAM_SIZE;
}

static struct function *function_at(const void *at)
{
	u64 offset = (u64)at - ECAM;
	int i;

	for (i = 0; i < FUNCTIONS; i++)
		if (functions[i].there && functions[i].segment == offset / ECAM_SIZE &&
		    functions[i].rid == (offset % ECAM_SIZE) >> 12)
			return &functions[i];
	return NULL;
}

static u32 config_read(const void *at)
{
	const struct function *function = function_at(at);

	if (!function)
		return ~0U;
	switch ((u64)at & 0xfff) {
	case PCI_COMMAND:
		return function->command;
	case PCI_HEADER_TYPE:
		return function->type;
	case PCI_SECONDARY_BUS:
		return function->secondary;
	case PCI_SUBORDINATE_BUS:
		return function->subordinate;
	default:
		return 0x12348086;
	}
}

/* The two ports by which functions of segment 0 are reached without an ECAM. */
static u32 port_address;

static void *at_port(u16 port)
{
	u64 rid = port_address >> 8 & 0xffff;

	assert(port_address >> 31 && port >= 0xcfc && port <= 0xcff);
	return (void *)(ECAM + (rid << 12) + (port_address & 0xfc) + (port & 3));
}

u32 inl(u16 port) { return port == 0xcf8 ? ports ? port_address : ~0U : config_read(at_port(port)); }
u16 inw(u16 port) { return config_read(at_port(port)); }
u8 inb(u16 port) { return config_read(at_port(port)); }
void outb(u8 value, u16 port) { assert(false); }

void outw(u16 value, u16 port)
{
	note("port:", 0);
	writew(value, at_port(port));
}

void outl(u32 value, u16 port)
{
	assert(port == 0xcf8);
	port_address = value;
}

/* A unit does what it is told, in its own order: status follows the command, and AMD's logs run as long as they may. */
static void unit_obey(char *unit)
{
	if (unit_stuck)
		return;
	*(u32 *)(unit + 0x1c) = *(u32 *)(unit + 0x18);
	*(u32 *)(unit + 0x2020) = *(u64 *)(unit + 0x18) & (1 << 2 | 1 << 12) ? 1 << 4 : 0;
}

u8 readb(const void *at) { return is_config(at) ? config_read(at) : *(const u8 *)at; }
u16 readw(const void *at) { return is_config(at) ? config_read(at) : *(const u16 *)at; }
u32 readl(const void *at) { return is_config(at) ? config_read(at) : *(const u32 *)at; }
u64 readq(const void *at) { return *(const u64 *)at; }
void writeb(u8 value, void *at) { assert(false); }

void writew(u16 value, void *at)
{
	struct function *function = function_at(at);

	assert(((u64)at & 0xfff) == PCI_COMMAND);
	function->command = value;
	note("silent%llx ", (u64)function->segment << 16 | function->rid);
}

void writel(u32 value, void *at)
{
	char *unit = unit_memory[((char *)at - unit_memory[0]) / 0x4000];

	*(u32 *)at = value;
	if ((char *)at == unit + 0x18) {
		note("unit=%llx ", value);
		unit_obey(unit);
	}
}

void writeq(u64 value, void *at)
{
	*(u64 *)at = value;
	note("unit=%llx ", value);
	unit_obey(unit_memory[((char *)at - unit_memory[0]) / 0x4000]);
}

struct pci_dev *pci_next_dev(struct pci_dev *pdev)
{
	int next = pdev ? pdev - handed + 1 : 0;

	return next < handed_count ? &handed[next] : NULL;
}

/* What a test does. */
void attach(void)
{
	peers[MULTIROOT_PARENT].phys = 1;
}

void ecam(u32 segment, u32 first, u32 last)
{
	int i = 0;

	while (mr_ledger->ecam[i].base)
		i++;
	mr_ledger->ecam[i] = (struct multiroot_ledger_ecam){ ECAM + segment * ECAM_SIZE, segment, first, last };
}

void bridge(u32 segment, u32 first, u32 last)
{
	mr_ledger->bridge[mr_ledger->bridges++] = (struct multiroot_ledger_bridge){ segment, first, last };
}

void function(int index, u32 segment, u32 rid, int type, int secondary, int subordinate)
{
	functions[index] = (struct function){
		segment, rid, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY, type, secondary, subordinate, true,
	};
}

/* This kernel has it, by a bus of somebody else's. */
void show(u32 domain, u32 rid)
{
	static struct pci_ops theirs;

	buses[handed_count] = (struct pci_bus){ .domain = domain, .number = rid >> 8, .ops = &theirs };
	handed[handed_count] = (struct pci_dev){ .bus = &buses[handed_count], .devfn = rid & 0xff };
	handed_count++;
}

/* Shown in a segment of its own, by another module. */
void hand(u32 rid)
{
	show(rid, rid);
}

void take_back(void)
{
	handed_count = 0;
}

char *unit(int index, u32 kind)
{
	mr_ledger->unit[index] = (struct multiroot_ledger_unit){ UNIT + index * 0x4000, kind };
	return unit_memory[index];
}

void ioapic(void)
{
	mr_ledger->ioapic[0] = 0xfec00000;
}

int memory(u32 action, u64 base, u64 size)
{
	struct multiroot_memory request = { .base = base, .size = size, .action = action };

	return mr_adopt_memory(&request);
}

/* What this kernel sees of a function by a host bridge of ours. */
u32 seen(u32 segment, u32 rid)
{
	struct pci_bus bus = { .domain = segment, .number = rid >> 8, .ops = &mr_ecam_ops };
	u32 value;

	mr_ecam_ops.read(&bus, rid & 0xff, PCI_VENDOR_ID, 4, &value);
	return value;
}

u32 seen_at(u32 segment, u32 rid, int where)
{
	struct pci_bus bus = { .domain = segment, .number = rid >> 8, .ops = &mr_ecam_ops };
	u32 value;

	mr_ecam_ops.read(&bus, rid & 0xff, where, 4, &value);
	return value;
}

int write_command(u32 segment, u32 rid, u32 value)
{
	struct pci_bus bus = { .domain = segment, .number = rid >> 8, .ops = &mr_ecam_ops };

	return mr_ecam_ops.write(&bus, rid & 0xff, PCI_COMMAND, 2, value);
}
