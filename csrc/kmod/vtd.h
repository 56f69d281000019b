/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registers of a VT-d unit (VT-d specification 4.1, section 11.4), for the module that drives one and for the core,
 * which stops those of ended roots.
 */
#ifndef _MR_VTD_H
#define _MR_VTD_H

#include <linux/bits.h>

#define VTD_CAP		0x08
#define VTD_ECAP	0x10
#define VTD_GCMD	0x18
#define VTD_GSTS	0x1c
#define VTD_RTADDR	0x20
#define VTD_FSTS	0x34
#define VTD_FECTL	0x38
#define VTD_IQH		0x80
#define VTD_IQT		0x88
#define VTD_IQA		0x90
#define VTD_IECTL	0xa0
#define VTD_IRTA	0xb8
#define VTD_PECTL	0xe0

/* Each has the same place in the command and in the status register. */
#define VTD_TE		BIT(31)		/* translation */
#define VTD_SRTP	BIT(30)
#define VTD_QIE		BIT(26)		/* the queue of invalidations */
#define VTD_IRE		BIT(25)		/* interrupt remapping */
#define VTD_SIRTP	BIT(24)
#define VTD_CFI		BIT(23)
#define VTD_KEPT	0x96ffffff	/* without the one-shot bits, which must not be written again */
#define VTD_MASKED	BIT(31)		/* of an event's control register */

#endif /* _MR_VTD_H */
