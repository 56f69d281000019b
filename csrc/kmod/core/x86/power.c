// SPDX-License-Identifier: GPL-2.0-only
/* The end of the machine by the ports that the first root found in the firmware's tables. */
#include <linux/io.h>

#include "core/arch.h"
#include "uapi/multiroot.h"

/* Reset the machine. Returns when the ledger knows no port for it, or the port does nothing. */
void mr_power_reset(const struct multiroot_ledger *ledger)
{
	if (ledger->reset_port)
		outb(ledger->reset_value, ledger->reset_port);
}

/* Turn the machine off. Returns as mr_power_reset() does. */
void mr_power_off(const struct multiroot_ledger *ledger)
{
	if (ledger->pm1a_control)
		outw(ledger->pm1a_off, ledger->pm1a_control);
}
