// SPDX-License-Identifier: GPL-2.0-or-later
/* A page that is zeroed, by hardware or by what emulates it. */
#include "core/arch.h"

bool emulated;

bool boot_cpu_has(unsigned int feature) { return feature == X86_FEATURE_HYPERVISOR && emulated; }

void *memchr_inv(const void *start, int c, size_t bytes)
{
	const unsigned char *at = start;

	for (; bytes; at++, bytes--)
		if (*at != (unsigned char)c)
			return (void *)at;
	return NULL;
}
