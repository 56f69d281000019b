/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a module begins and ends, and what its kernel says of itself, as far as csrc/kmod/core/main.c knows it. */
#ifndef _SHIM_MAIN_H
#define _SHIM_MAIN_H

#include "kernel.h"

/* A test sets the parameters, begins the module and ends it. */
#define MODULE
#undef module_param
#define module_param(name, type, mode)	__typeof__(name) *parameter_##name = &name
#define module_init(function)	int begin(void) { return function(); } extern int shim_unused
#define module_exit(function)	void end(void) { function(); } extern int shim_unused

#undef __module_get
#define __module_get(module)	(holds++)
#undef pr_err
#define pr_err(...)		snprintf(said[lines++], sizeof(said[0]), __VA_ARGS__)

extern int holds, lines;
extern char said[4][160];
bool is_kdump_kernel(void);

#undef LOCKDOWN_KEXEC
#undef security_locked_down
enum lockdown_reason { LOCKDOWN_NONE, LOCKDOWN_KEXEC };
int security_locked_down(enum lockdown_reason what);

#endif /* _SHIM_MAIN_H */
