/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A CPU under a hypervisor or not, for csrc/kmod/core/x86/zero.c. */
#ifndef _SHIM_ZERO_H
#define _SHIM_ZERO_H

#include "kernel.h"

enum { X86_FEATURE_HYPERVISOR = 1 };
bool boot_cpu_has(unsigned int feature);
void *memchr_inv(const void *start, int c, size_t bytes);

#undef wmb
#define wmb()	__builtin_ia32_sfence()

#endif
