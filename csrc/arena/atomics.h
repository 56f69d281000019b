/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What Python cannot say about memory that two kernels map at once: atomic 64-bit words, cache-line
 * write-back, a checksum, and the clock both kernels share. x86-64 only.
 */
#ifndef MULTIROOT_ARENA_ATOMICS_H
#define MULTIROOT_ARENA_ATOMICS_H

#include <cpuid.h>
#include <stddef.h>
#include <stdint.h>

#define MRA_CACHE_LINE 64
#define MRA_CRC32C_POLY 0x82f63b78u	/* Castagnoli, bit-reversed: RFC 3720 section 12.1 */

/* Instruction that mra_flush() uses; values are what mra_flush_kind() returns. */
enum { MRA_CLFLUSH = 0, MRA_CLFLUSHOPT = 1, MRA_CLWB = 2 };

static int mra_flush_kind_;
static int mra_have_sse42_;
static uint32_t mra_crc_table_[256];

/* CPUID leaves: Intel SDM volume 2, CPUID. */
static void mra_init(void)
{
	uint32_t a, b, c, d, i, bit, crc;

	if (__get_cpuid(1, &a, &b, &c, &d))
		mra_have_sse42_ = !!(c & bit_SSE4_2);
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
		mra_flush_kind_ = b & bit_CLWB ? MRA_CLWB : b & bit_CLFLUSHOPT ? MRA_CLFLUSHOPT : MRA_CLFLUSH;
	for (i = 0; i < 256; i++) {
		for (crc = i, bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? MRA_CRC32C_POLY : 0);
		mra_crc_table_[i] = crc;
	}
}

static int mra_flush_kind(void)
{
	return mra_flush_kind_;
}

static uint64_t mra_load_acquire(const void *word)
{
	return __atomic_load_n((const uint64_t *)word, __ATOMIC_ACQUIRE);
}

static void mra_store_release(void *word, uint64_t value)
{
	__atomic_store_n((uint64_t *)word, value, __ATOMIC_RELEASE);
}

/* Returns what the word held before: the exchange took place when that equals `expected`. */
static uint64_t mra_compare_exchange(void *word, uint64_t expected, uint64_t desired)
{
	__atomic_compare_exchange_n((uint64_t *)word, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return expected;
}

/* Write every cache line of the range back to memory; the fence orders it before what follows. */
static void mra_flush(const void *start, size_t size)
{
	const char *line = (const char *)((uintptr_t)start & ~(uintptr_t)(MRA_CACHE_LINE - 1));
	const char *end = (const char *)start + size;

	for (; line < end; line += MRA_CACHE_LINE) {
		if (mra_flush_kind_ == MRA_CLWB)
			__asm__ volatile("clwb %0" : : "m"(*line) : "memory");
		else if (mra_flush_kind_ == MRA_CLFLUSHOPT)
			__asm__ volatile("clflushopt %0" : : "m"(*line) : "memory");
		else
			__asm__ volatile("clflush %0" : : "m"(*line) : "memory");
	}
	__asm__ volatile("sfence" : : : "memory");
}

static uint32_t mra_crc32c_table(const void *data, size_t size)
{
	const uint8_t *byte = (const uint8_t *)data;
	uint32_t crc = ~0u;

	while (size--)
		crc = (crc >> 8) ^ mra_crc_table_[(crc ^ *byte++) & 0xff];
	return ~crc;
}

static uint32_t mra_crc32c(const void *data, size_t size)
{
	const uint8_t *byte = (const uint8_t *)data;
	uint64_t crc = 0xffffffffu;

	if (!mra_have_sse42_)
		return mra_crc32c_table(data, size);
	for (; size >= 8; size -= 8, byte += 8) {
		uint64_t word;

		__builtin_memcpy(&word, byte, sizeof(word));
		__asm__("crc32q %1, %0" : "+r"(crc) : "rm"(word));
	}
	for (; size; size--, byte++)
		__asm__("crc32b %1, %0" : "+r"(crc) : "rm"(*byte));
	return ~(uint32_t)crc;
}

/* The time-stamp counter, not read before earlier instructions are done. */
static uint64_t mra_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

#endif
