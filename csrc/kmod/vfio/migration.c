// SPDX-License-Identifier: GPL-2.0-only
/* States of the VFIO migration. None of them touches the device. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/pci.h>

#include "compat.h"
#include "iommu/iommu.h"
#include "pci/pci.h"
#include "vfio/vfio.h"

/* Forget what is being loaded. */
void mr_migration_drop(struct mr_vfio *mine)
{
	if (mine->incoming)
		fput(mine->incoming);
	mine->incoming = NULL;
}

/*
 * The guest goes on here. What the device raised since it was stopped went to a guest that was not to see it
 * more, or to another root: every vector is raised once.
 */
static int mr_migration_go_on(struct mr_vfio *mine)
{
	struct pci_dev *pdev = mine->core.pdev;
	int err;

	if (!multiroot_iommu_owned(pdev))
		return -EPERM;
	err = multiroot_pci_hold(pdev, MR_PCI_FREE);
	if (err || !mine->paused)
		return err;
	pci_info(pdev, "goes on in this root, %d vectors raised\n", mr_vectors_raise(&mine->core));
	mine->paused = false;
	return 0;
}

static struct file *mr_migration_step(struct mr_vfio *mine, enum vfio_device_mig_state next)
{
	int err = 0;

	if (mine->state == VFIO_DEVICE_STATE_STOP && next == VFIO_DEVICE_STATE_STOP_COPY)
		return mr_stream_save(mine->core.pdev);
	if (mine->state == VFIO_DEVICE_STATE_STOP && next == VFIO_DEVICE_STATE_RESUMING) {
		struct file *file = mr_stream_load(mine->core.pdev);

		if (!IS_ERR(file))
			mine->incoming = get_file(file);
		return file;
	}
	if (mine->state == VFIO_DEVICE_STATE_RESUMING) {
		/* It goes on resuming then, so its stream stays. */
		if (!mr_stream_fits(mine->incoming, mine->core.pdev))
			return ERR_PTR(-EINVAL);
		mr_migration_drop(mine);
	}
	if (next == VFIO_DEVICE_STATE_STOP)
		mine->paused = true;
	if (next == VFIO_DEVICE_STATE_RUNNING)
		err = mr_migration_go_on(mine);
	return err ? ERR_PTR(err) : NULL;
}

static struct file *mr_migration_set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct mr_vfio *mine = mr_vfio_of(vdev);
	struct file *file = NULL;

	mutex_lock(&mine->lock);
	while (wanted != mine->state) {
		enum vfio_device_mig_state next;
		int err = vfio_mig_get_next_state(vdev, mine->state, wanted, &next);

		file = err ? ERR_PTR(err) : mr_migration_step(mine, next);
		if (IS_ERR(file))
			break;
		mine->state = next;
		if (file && next != wanted) {
			fput(file);
			file = ERR_PTR(-EINVAL);
			break;
		}
	}
	mutex_unlock(&mine->lock);
	return file;
}

static int mr_migration_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct mr_vfio *mine = mr_vfio_of(vdev);

	mutex_lock(&mine->lock);
	*state = mine->state;
	mutex_unlock(&mine->lock);
	return 0;
}

#if MR_VFIO_DATA_SIZE
static int mr_migration_data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = mr_stream_size();
	return 0;
}
#endif

const struct vfio_migration_ops mr_migration_ops = {
	.migration_set_state = mr_migration_set_state,
	.migration_get_state = mr_migration_get_state,
#if MR_VFIO_DATA_SIZE
	.migration_get_data_size = mr_migration_data_size,
#endif
};
