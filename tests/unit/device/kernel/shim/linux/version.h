/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The modules are compiled for this kernel here, whatever the host's is. */
#define KERNEL_VERSION(a, b, c)	(((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE	KERNEL_VERSION(6, 12, 0)
