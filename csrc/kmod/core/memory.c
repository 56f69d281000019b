// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which physical memory this kernel uses. What it does not use can be the ledger's or another root's.
 */
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>

#include "core/core.h"

/*
 * Linux keeps the first MiB out of its allocator after boot, and has its own real-mode code at the top of
 * it (memblock hands it out from above): the part below this is as good as free.
 */
#define LOW_FREE_END	SZ_512K

/* Of a range, whose first byte need not be the first of a page. */
static unsigned int mr_memory_pages(phys_addr_t phys, size_t size)
{
	return PHYS_PFN(PAGE_ALIGN(phys + size)) - PHYS_PFN(phys);
}

static void *mr_memory_vmap(phys_addr_t phys, size_t size)
{
	unsigned int i, count = mr_memory_pages(phys, size);
	struct page **pages = kvmalloc_array(count, sizeof(*pages), GFP_KERNEL);
	void *at;

	if (!pages)
		return NULL;
	for (i = 0; i < count; i++)
		pages[i] = pfn_to_page(PHYS_PFN(phys) + i);
	at = vmap(pages, count, VM_MAP, PAGE_KERNEL);
	kvfree(pages);
	return at ? at + offset_in_page(phys) : NULL;
}

/**
 * mr_memory_map() - map memory that is another root's, or shared with one
 * @window: where it is mapped afterwards
 * @phys: physical address
 * @size: in bytes; some MiB at most
 *
 * RAM of this kernel that is offline is not used by its place in the direct map, which memremap() would give: KASAN
 * has no shadow for that, if the memory was added after boot. Return: 0; -ENOMEM.
 */
int mr_memory_map(struct mr_window *window, phys_addr_t phys, size_t size)
{
	window->by_pages = pfn_valid(PHYS_PFN(phys)) && pfn_valid(PHYS_PFN(phys + size - 1)) &&
			   region_intersects(phys, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) == REGION_INTERSECTS;
	window->at = window->by_pages ? mr_memory_vmap(phys, size) : memremap(phys, size, MEMREMAP_WB);
	return window->at ? 0 : -ENOMEM;
}

/* Undo mr_memory_map(). */
void mr_memory_unmap(struct mr_window *window)
{
	if (window->by_pages)
		vunmap((void *)((unsigned long)window->at & PAGE_MASK));
	else
		memunmap(window->at);
	window->at = NULL;
}

/* True when some of a range is persistent memory of this kernel. */
bool mr_memory_is_pmem(u64 base, u64 size)
{
	return region_intersects(base, size, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY) != REGION_DISJOINT ||
	       region_intersects(base, size, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY_LEGACY) !=
		       REGION_DISJOINT;
}

/*
 * True when the kernel has found the page's memory to be broken. Offline, it keeps that in mind; pages of memory that
 * never was online say nothing.
 */
static bool mr_memory_broken(unsigned long pfn)
{
	struct page *page = pfn_valid(pfn) ? pfn_to_page(pfn) : NULL;

	return page && !PagePoisoned(page) && PageHWPoison(page);
}

/**
 * mr_memory_unused() - whether this kernel leaves a range alone
 * @base: physical address, page aligned
 * @size: in bytes, page aligned
 *
 * A range is unused when it is no System RAM of this kernel (kept away by memmap= at boot), or when all of
 * it is offline, or when it lies in the low memory that Linux does not use. PageReserved alone is no proof: the
 * kernel's image and its struct pages are reserved, too. A mix of the above is refused as used, and so is broken
 * memory, for no other root would know of it.
 */
bool mr_memory_unused(u64 base, u64 size)
{
	bool low = base + size <= LOW_FREE_END, offline_only;
	u64 phys;

	if (mr_memory_is_pmem(base, size))
		return false;
	switch (region_intersects(base, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE)) {
	case REGION_DISJOINT:
		offline_only = false;
		break;
	case REGION_INTERSECTS:
		offline_only = !low;
		break;
	default:
		return false;
	}
	for (phys = base; phys < base + size; phys += PAGE_SIZE) {
		struct page *page = pfn_to_online_page(PHYS_PFN(phys));

		if ((page && (offline_only || !PageReserved(page))) || mr_memory_broken(PHYS_PFN(phys)))
			return false;
		if (IS_ALIGNED(phys, SZ_64M))
			cond_resched();
	}
	return true;
}

/**
 * mr_memory_foreign() - whether a range is no memory of this kernel at all
 * @base: physical address, page aligned
 * @size: in bytes, page aligned
 *
 * True when this kernel has no name for any byte of it: no RAM, online or not, nothing reserved for its own use, no
 * PMEM.
 */
bool mr_memory_foreign(u64 base, u64 size)
{
	return region_intersects(base, size, IORESOURCE_MEM, IORES_DESC_NONE) == REGION_DISJOINT &&
	       region_intersects(base, size, IORESOURCE_MEM, IORES_DESC_RESERVED) == REGION_DISJOINT &&
	       region_intersects(base, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) == REGION_DISJOINT &&
	       !mr_memory_is_pmem(base, size);
}
