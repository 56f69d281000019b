// SPDX-License-Identifier: GPL-2.0-or-later
/* What a test calls of csrc/kmod/vfio. */
#include "vfio/vfio.h"

struct pci_dev card = { .vendor = 0x8086, .device = 0x10c9 };

struct file *save(void)
{
	return mr_stream_save(&card);
}

struct file *load(void)
{
	return mr_stream_load(&card);
}

ssize_t put(struct file *file, const char *from, size_t size)
{
	return file->f_op->write(file, from, size, NULL);
}

ssize_t get(struct file *file, char *to, size_t size)
{
	return file->f_op->read(file, to, size, NULL);
}

bool fits(struct file *file)
{
	return mr_stream_fits(file, &card);
}

void end(struct file *file)
{
	file->f_op->release(NULL, file);
	free(file);
}
