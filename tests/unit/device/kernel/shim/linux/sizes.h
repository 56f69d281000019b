/* SPDX-License-Identifier: GPL-2.0-or-later */
#define SZ_4K	0x1000
#define SZ_2M	0x200000
#define SZ_1G	0x40000000
