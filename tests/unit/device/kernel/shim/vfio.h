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
	u16 command;
	bool msix_enabled;
	char *driver_override;
};

#define PCI_COMMAND		4
#define PCI_COMMAND_MEMORY	2

static inline int pci_read_config_word(struct pci_dev *pdev, int where, u16 *value)
{
	assert(where == PCI_COMMAND);
	*value = pdev->command;
	return 0;
}

static inline int pci_write_config_word(struct pci_dev *pdev, int where, u16 value)
{
	assert(where == PCI_COMMAND);
	pdev->command = value;
	return 0;
}

/* Only ever written to here. */
struct rw_semaphore {
	struct mutex lock;
};

#define down_write(semaphore)	mutex_lock(&(semaphore)->lock)
#define up_write(semaphore)	mutex_unlock(&(semaphore)->lock)

struct vfio_device {
	int unused;
};

struct vfio_migration_ops {
	struct file *(*migration_set_state)(struct vfio_device *vdev, enum vfio_device_mig_state state);
	int (*migration_get_state)(struct vfio_device *vdev, enum vfio_device_mig_state *state);
	int (*migration_get_data_size)(struct vfio_device *vdev, unsigned long *length);
};

/* Between these states every way leads through STOP. */
static inline int vfio_mig_get_next_state(struct vfio_device *vdev, enum vfio_device_mig_state now,
					  enum vfio_device_mig_state wanted, enum vfio_device_mig_state *next)
{
	*next = now == VFIO_DEVICE_STATE_STOP ? wanted : VFIO_DEVICE_STATE_STOP;
	return 0;
}

struct vfio_pci_core_device {
	struct vfio_device vdev;
	struct pci_dev *pdev;
	struct mutex igate;
	struct rw_semaphore memory_lock;
};

struct msi_msg {
	u32 address_lo, address_hi, data;
};

struct msi_desc {
	struct msi_msg msg;
	void (*write_msi_msg)(struct msi_desc *desc, void *data);
	void *write_msi_msg_data;
	u16 msi_index;
	struct {
		void *mask_base;
		u32 msix_ctrl;
	} pci;
};

int pci_msix_vec_count(struct pci_dev *pdev);
int pci_irq_vector(struct pci_dev *pdev, unsigned int vector);
void pci_restore_msi_state(struct pci_dev *pdev);
struct msi_desc *irq_get_msi_desc(unsigned int irq);
int irq_inject_interrupt(unsigned int irq);

#define writel(value, address)	WRITE_ONCE(*(u32 *)(address), (value))
#define readl(address)		READ_ONCE(*(u32 *)(address))

#define pci_info(pdev, ...)	((void)(pdev), shim_say(__VA_ARGS__))
#define get_file(file)		(file)
#define fput(file)		((void)(file))

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
