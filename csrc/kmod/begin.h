/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When a module begins: when it is loaded. In a kernel that loads none it is built in, and begins when user space
 * writes anything to /sys/module/NAME/parameters/begin, which is when it would load it; sysfs and the rest are there
 * by then.
 */
#ifndef _MULTIROOT_BEGIN_H
#define _MULTIROOT_BEGIN_H

#include <linux/kernel.h>
#include <linux/module.h>

#ifdef MODULE
#define __mr_begin		__init
#define MR_BEGINS(function)	module_init(function)
#define MR_BEGIN_MODE		0444	/* of parameters */
#else
#define __mr_begin
#define MR_BEGINS(function)	module_param_cb(begin, &mr_begin_ops, function, 0200)
#define MR_BEGIN_MODE		0600

static int mr_begin_set(const char *value, const struct kernel_param *parameter)
{
	int (*function)(void) = parameter->arg;
	static bool begun;
	int err;

	if (system_state < SYSTEM_RUNNING || begun)
		return -EBUSY;
	err = function();
	begun = !err;
	return err;
}

static const struct kernel_param_ops mr_begin_ops = { .set = mr_begin_set };
#endif

#endif
