// SPDX-License-Identifier: GPL-2.0-or-later
/* Memory that is rewritten and checked all the time, and memory that is only made dirty. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "ticker.h"

enum {
	WORDS = 4096 / 8,		/* in a page */
	PAGES_A_TICK = 16,
	DIRTY_PAGES = 64 << 8,		/* 64 MiB that are only made dirty */
};

/* A page holds the stream that starts from `seed`; `sum` is its checksum and the seed of the next contents. */
struct page {
	uint64_t seed;
	uint64_t sum;
};

/* xorshift64; the state is never 0. */
static uint64_t step(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

/* FNV-1a over words. */
static uint64_t fold(uint64_t sum, uint64_t word)
{
	return (sum ^ word) * UINT64_C(1099511628211);
}

static unsigned int wrong_bytes(uint64_t difference)
{
	unsigned int count = 0;

	for (; difference; difference >>= 8)
		count += (difference & 0xff) != 0;
	return count;
}

static void write_page(struct region *region, size_t number, uint64_t seed)
{
	uint64_t *words = region->words + number * WORDS, x = seed | 1, sum = seed;

	for (int i = 0; i < WORDS; i++) {
		x = step(x);
		words[i] = x;
		sum = fold(sum, x);
	}
	region->pages[number] = (struct page){ seed, sum };
}

static void check_page(struct region *region, size_t number)
{
	volatile uint64_t *words = region->words + number * WORDS;
	struct page *page = &region->pages[number];
	uint64_t x = page->seed | 1, sum = page->seed;
	unsigned int bad = 0;

	for (int i = 0; i < WORDS; i++) {
		uint64_t word = words[i];

		x = step(x);
		bad += wrong_bytes(word ^ x);
		sum = fold(sum, word);
	}
	/* Damage to the bookkeeping is damage too. */
	region->bad += bad ? bad : sum == page->sum ? 0 : sizeof(*page);
	region->checked += WORDS * sizeof(uint64_t);
}

void make_region(struct region *region, size_t mib)
{
	region->count = mib * (1024 * 1024 / 4096);
	region->pages = calloc(region->count, sizeof(*region->pages));
	region->words = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!region->pages || region->words == MAP_FAILED)
		die("region");
	for (size_t i = 0; i < region->count; i++)
		write_page(region, i, (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

void make_dirty(struct region *region, size_t mib_a_second, uint64_t period)
{
	region->dirty_a_tick = (mib_a_second << 8) * period / 1000000000;
	if (!region->dirty_a_tick)
		return;
	region->dirty = mmap(NULL, DIRTY_PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region->dirty == MAP_FAILED)
		die("dirty");
}

void work(struct region *region)
{
	for (size_t i = 0; i < region->dirty_a_tick; i++) {
		region->dirty[region->dirty_next * WORDS]++;
		region->dirty_next = (region->dirty_next + 1) % DIRTY_PAGES;
	}
	for (int i = 0; i < PAGES_A_TICK; i++) {
		check_page(region, region->next);
		write_page(region, region->next, region->pages[region->next].sum);
		region->next = (region->next + 1) % region->count;
	}
}
