/* SPDX-License-Identifier: GPL-2.0-only */
/* Returns what is in the register for return values; see skip.c. */
#include <linux/linkage.h>
#include <asm/ibt.h>

	.text
	.globl	mr_skip_return
	.type	mr_skip_return, @function
mr_skip_return:
	ENDBR
	RET
	.size	mr_skip_return, . - mr_skip_return
