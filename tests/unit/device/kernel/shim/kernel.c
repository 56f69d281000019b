// SPDX-License-Identifier: GPL-2.0-or-later
/* Compiled into each library of a test. */

void (*shim_hook)(const char *where);

void shim_at(const char *where)
{
	if (shim_hook)
		shim_hook(where);
}
