/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of multiroot_vfio.ko share, one section a file. */
#ifndef _MR_VFIO_H
#define _MR_VFIO_H

#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

struct file;
struct pci_dev;

/**
 * struct mr_vfio - a device bound to this driver
 * @core: vfio-pci's part
 * @lock: protects what follows
 * @state: of the migration
 * @incoming: what is being loaded, or NULL
 * @paused: it was stopped here, so interrupts may have gone astray
 */
struct mr_vfio {
	struct vfio_pci_core_device core;
	struct mutex lock;	/* protects what follows */
	enum vfio_device_mig_state state;
	struct file *incoming;
	bool paused;
};

static inline struct mr_vfio *mr_vfio_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct mr_vfio, core.vdev);
}

/* stream.c: what the VMM's migration stream carries. */
size_t mr_stream_size(void);
struct file *mr_stream_save(struct pci_dev *pdev);
struct file *mr_stream_load(struct pci_dev *pdev);
bool mr_stream_fits(const struct file *file, const struct pci_dev *pdev);

/* vectors.c: the device's interrupts. */
void mr_vectors_remap(struct vfio_pci_core_device *core);
int mr_vectors_raise(struct vfio_pci_core_device *core);
void *mr_vectors_divert(struct pci_dev *pdev);

/* migration.c: states of the migration. */
extern const struct vfio_migration_ops mr_migration_ops;
void mr_migration_drop(struct mr_vfio *mine);

#endif /* _MR_VFIO_H */
