// SPDX-License-Identifier: GPL-2.0-or-later
/* The power button: whoever runs this guest asks it to end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "ticker.h"

enum {
	INPUTS = 8,	/* more than a guest here has */
};

void open_buttons(struct buttons *buttons)
{
	char path[64];

	for (int i = 0; i < INPUTS && buttons->count < BUTTONS; i++) {
		int fd;

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			buttons->input[buttons->count++] = fd;
	}
}

bool is_pressed(const struct buttons *buttons)
{
	struct input_event event;

	for (int i = 0; i < buttons->count; i++)
		while (read(buttons->input[i], &event, sizeof(event)) == sizeof(event))
			if (event.type == EV_KEY && event.code == KEY_POWER && event.value)
				return true;
	return false;
}

void power_off(void)
{
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
