// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine's memory map as its firmware gave it to the first root, kept in the ledger: later roots see only the map
 * they were started with, and memmap= changes what a kernel has, not what there is. The kernel shows this map
 * in /sys/firmware/memmap and nowhere to modules, so it is read from there.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "core/arch.h"
#include "uapi/multiroot.h"

#define FILE_SIZE	64
#define TYPE_RAM	1	/* enum e820_type is spelled differently from release to release */

static int mr_e820_read_entry(int index, const char *name, char *to)
{
	char path[64];
	struct file *file;
	loff_t pos = 0;
	ssize_t size;

	snprintf(path, sizeof(path), "/sys/firmware/memmap/%d/%s", index, name);
	file = filp_open(path, O_RDONLY, 0);
	if (IS_ERR(file))
		return PTR_ERR(file);
	size = kernel_read(file, to, FILE_SIZE - 1, &pos);
	filp_close(file, NULL);
	if (size < 0)
		return size;
	to[size] = '\0';
	strim(to);
	return 0;
}

static int mr_e820_read_number(int index, const char *name, u64 *number)
{
	char text[FILE_SIZE];

	return mr_e820_read_entry(index, name, text) ?: kstrtou64(text, 0, number);
}

/**
 * mr_e820_read() - fill a ledger's copy of the firmware's memory map
 * @ledger: the ledger to be
 *
 * Only "System RAM" keeps its type; everything else is of no use to a root and gets type 2, reserved.
 * Return: 0; -ENOENT when the kernel shows no map; another negative error.
 */
int mr_e820_read(struct multiroot_ledger *ledger)
{
	char type[FILE_SIZE];
	u64 start, end;
	int i, err;

	for (i = 0; i < MULTIROOT_LEDGER_E820; i++) {
		err = mr_e820_read_number(i, "start", &start);
		if (err == -ENOENT)
			break;
		err = err ?: mr_e820_read_number(i, "end", &end);
		err = err ?: mr_e820_read_entry(i, "type", type);
		if (err)
			return err;
		ledger->e820[i] = (struct multiroot_ledger_e820) {
			.addr = start,
			.size = end - start + 1,
			.type = strcmp(type, "System RAM") ? TYPE_RAM + 1 : TYPE_RAM,
		};
	}
	ledger->e820_entries = i;
	return i ? 0 : -ENOENT;
}

/**
 * mr_e820_is_ram() - whether a range is RAM to the firmware
 * @ledger: whose copy of the firmware's map is asked
 * @base: physical address
 * @size: in bytes; base + size does not overflow
 *
 * True when every byte of it is.
 */
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size)
{
	u32 entries = min_t(u32, ledger->e820_entries, MULTIROOT_LEDGER_E820);
	u64 at = base;
	u32 i = 0;

	/* Entries may be in any order and may touch: go on from the end of whichever covers the point reached. */
	while (at < base + size && i < entries) {
		const struct multiroot_ledger_e820 *entry = &ledger->e820[i++];

		if (entry->type == TYPE_RAM && at >= entry->addr && at - entry->addr < entry->size) {
			at = entry->addr + entry->size;
			if (at < entry->addr)
				return false;
			i = 0;
		}
	}
	return at >= base + size;
}
