// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_vfio.ko: a vfio-pci variant driver with which a stock VMM carries a device through a migration to another
 * root of the same machine. No state of the migration touches the device: it goes on working. Its DMA is switched by
 * multiroot_iommu.ko, its configuration space guarded by multiroot_pci.ko.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "compat.h"
#include "iommu/iommu.h"
#include "pci/pci.h"
#include "vfio/vfio.h"

static long mr_vfio_device_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long arg)
{
	long ret = vfio_pci_core_ioctl(vdev, command, arg);

	if (!ret && command == VFIO_DEVICE_SET_IRQS)
		mr_vectors_remap(&mr_vfio_of(vdev)->core);
	return ret;
}

/* Of a device that another root has, nothing may be changed by opening it: it is only looked at. */
static int mr_vfio_open_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = mr_vfio_of(vdev);
	struct pci_dev *pdev = mine->core.pdev;
	int err;

	err = multiroot_pci_hold(pdev, multiroot_iommu_owned(pdev) ? MR_PCI_FREE : MR_PCI_TAKING);
	if (!err)
		err = vfio_pci_core_enable(&mine->core);
	if (err)
		return err;
	mine->state = VFIO_DEVICE_STATE_RUNNING;
	mine->paused = false;
	vfio_pci_core_finish_enable(&mine->core);
	return 0;
}

static void mr_vfio_close_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = mr_vfio_of(vdev);
	struct pci_dev *pdev = mine->core.pdev;
	void *table = NULL;

	if (!multiroot_iommu_owned(pdev)) {
		/* It is another root's: no reset, bus mastering and MSI-X stay as they are. */
		if (multiroot_pci_hold(pdev, MR_PCI_HELD))
			pci_err(pdev, "no memory to guard it from being reset\n");
		mine->core.reset_works = false;
		table = mr_vectors_divert(pdev);
	}
	vfio_pci_core_close_device(vdev);
	multiroot_iommu_unmap_interrupts(mine->core.pdev);
	mr_migration_drop(mine);
	kfree(table);
}

static int mr_vfio_init_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = mr_vfio_of(vdev);

	mutex_init(&mine->lock);
	/* A root that another one started has no interrupt router: no VM gets an interrupt by pin, in any root. */
	mine->core.nointx = true;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY;
	vdev->mig_ops = &mr_migration_ops;
	return vfio_pci_core_init_dev(vdev);
}

static const struct vfio_device_ops mr_vfio_device_ops = {
	.name = MR_VFIO_DRIVER,
	.init = mr_vfio_init_device,
	.release = vfio_pci_core_release_dev,
	.open_device = mr_vfio_open_device,
	.close_device = mr_vfio_close_device,
	.ioctl = mr_vfio_device_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
#if MR_VFIO_TOKENS
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#endif
#if MR_VFIO_REGIONS
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#endif
};

static int mr_vfio_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct mr_vfio *mine = vfio_alloc_device(mr_vfio, core.vdev, &pdev->dev, &mr_vfio_device_ops);
	int err;

	if (IS_ERR(mine))
		return PTR_ERR(mine);
	mine->core.disable_idle_d3 = true;
	dev_set_drvdata(&pdev->dev, &mine->core);
	err = vfio_pci_core_register_device(&mine->core);
	if (err)
		vfio_put_device(&mine->core.vdev);
	return err;
}

static void mr_vfio_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* Only for devices that are given to it by driver_override. */
static const struct pci_device_id mr_vfio_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{}
};

static struct pci_driver mr_vfio_driver = {
	.name = MR_VFIO_DRIVER,
	.id_table = mr_vfio_ids,
	.probe = mr_vfio_probe,
	.remove = mr_vfio_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};

module_pci_driver(mr_vfio_driver);

MODULE_DESCRIPTION("VFIO devices that go to another root while they are at work");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");
