/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI devices, their interrupts and VFIO, as far as csrc/kmod/vfio knows them. */
#ifndef _SHIM_VFIO_H
#define _SHIM_VFIO_H

#include "kernel.h"
#include <linux/pci.h>
#include <linux/vfio.h>

struct pci_bus;

struct pci_dev {
	u16 vendor, device;
	bool msix_enabled;
	char *driver_override;
};

struct vfio_device {
	int unused;
};

struct vfio_migration_ops;

struct vfio_pci_core_device {
	struct vfio_device vdev;
	struct pci_dev *pdev;
	struct mutex igate;
};

#define cpu_to_le64(x)	(x)
#define cpu_to_le32(x)	(x)
#define cpu_to_le16(x)	(x)

static inline struct file *anon_inode_getfile(const char *name, const struct file_operations *fops, void *data,
					      int flags)
{
	struct file *file = kzalloc(sizeof(*file), GFP_KERNEL);

	file->f_op = fops;
	file->private_data = data;
	return file;
}

static inline ssize_t simple_read_from_buffer(void *to, size_t size, loff_t *pos, const void *from, size_t there)
{
	size_t part = min(size, there - *pos);

	memcpy(to, from + *pos, part);
	*pos += part;
	return part;
}

#endif /* _SHIM_VFIO_H */
