// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_vfio.ko: a vfio-pci variant driver with which a stock VMM carries a device through a migration to another
 * root of the same machine. No state of the migration touches the device: it goes on working. Its DMA is switched by
 * multiroot_iommu.ko, its configuration space guarded by multiroot_pci.ko.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "compat.h"
#include "iommu/iommu.h"
#include "pci/pci.h"

#define STREAM_MAGIC 0x314f4956464f524dULL
#define STREAM_VERSION 1

/* All that the VMM's stream carries: that it came from this driver, and of which device. */
struct stream {
	__le64 magic;
	__le32 version;
	__le16 vendor;
	__le16 device;
};

/* An open file of it. */
struct transfer {
	struct stream stream;
	size_t length;		/* bytes that have been written */
};

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

static struct mr_vfio *to_mr(struct vfio_device *vdev)
{
	return container_of(vdev, struct mr_vfio, core.vdev);
}

static ssize_t stream_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct transfer *transfer = file->private_data;

	if (pos)
		return -ESPIPE;
	return simple_read_from_buffer(buf, count, &file->f_pos, &transfer->stream, sizeof(transfer->stream));
}

static ssize_t stream_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	struct transfer *transfer = file->private_data;

	if (pos)
		return -ESPIPE;
	if (count > sizeof(transfer->stream) - transfer->length)
		return -EINVAL;
	if (copy_from_user((void *)&transfer->stream + transfer->length, buf, count))
		return -EFAULT;
	transfer->length += count;
	return count;
}

static int stream_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations read_fops = {
	.owner = THIS_MODULE,
	.read = stream_read,
	.release = stream_release,
};

static const struct file_operations write_fops = {
	.owner = THIS_MODULE,
	.write = stream_write,
	.release = stream_release,
};

static struct file *open_stream(struct mr_vfio *mine, const struct file_operations *fops, int flags)
{
	struct transfer *transfer = kzalloc(sizeof(*transfer), GFP_KERNEL);
	struct file *file;

	if (!transfer)
		return ERR_PTR(-ENOMEM);
	file = anon_inode_getfile(MR_VFIO_DRIVER, fops, transfer, flags);
	if (IS_ERR(file)) {
		kfree(transfer);
		return file;
	}
	stream_open(file->f_inode, file);
	if (fops == &read_fops)
		transfer->stream = (struct stream){
			.magic = cpu_to_le64(STREAM_MAGIC),
			.version = cpu_to_le32(STREAM_VERSION),
			.vendor = cpu_to_le16(mine->core.pdev->vendor),
			.device = cpu_to_le16(mine->core.pdev->device),
		};
	return file;
}

static bool stream_fits(const struct mr_vfio *mine)
{
	const struct transfer *transfer = mine->incoming->private_data;

	return transfer->length == sizeof(transfer->stream) &&
	       transfer->stream.magic == cpu_to_le64(STREAM_MAGIC) &&
	       transfer->stream.version == cpu_to_le32(STREAM_VERSION) &&
	       transfer->stream.vendor == cpu_to_le16(mine->core.pdev->vendor) &&
	       transfer->stream.device == cpu_to_le16(mine->core.pdev->device);
}

static void drop_incoming(struct mr_vfio *mine)
{
	if (mine->incoming)
		fput(mine->incoming);
	mine->incoming = NULL;
}

/*
 * The guest goes on here. What the device raised since it was stopped went to a guest that was not to see it
 * more, or to another root: every vector is raised once, which to a driver is no different from interrupts that
 * coalesced.
 */
static int go_on(struct mr_vfio *mine)
{
	struct pci_dev *pdev = mine->core.pdev;
	int i, err, raised = 0, vectors = pdev->msix_enabled ? pci_msix_vec_count(pdev) : 0;

	if (!multiroot_iommu_owned(pdev))
		return -EPERM;
	err = multiroot_pci_hold(pdev, MR_PCI_FREE);
	if (err || !mine->paused)
		return err;
	/* Another root may have written its own addresses into the table before it gave up. */
	if (vectors)
		pci_restore_msi_state(pdev);
	for (i = 0; i < vectors; i++) {
		int irq = pci_irq_vector(pdev, i);

		if (irq >= 0 && !irq_inject_interrupt(irq))
			raised++;
	}
	pci_info(pdev, "goes on in this root, %d vectors raised\n", raised);
	mine->paused = false;
	return 0;
}

/* Linux wrote a message to the device's table: where the interrupts are remapped, the device gets an entry's name. */
static void remap(struct msi_desc *desc, void *data)
{
	void __iomem *entry = desc->pci.mask_base + desc->msi_index * PCI_MSIX_ENTRY_SIZE;
	struct mr_vfio *mine = data;
	u32 address;

	if (!multiroot_iommu_remap(mine->core.pdev, desc->msi_index, &desc->msg, &address))
		return;
	writel(desc->pci.msix_ctrl | PCI_MSIX_ENTRY_CTRL_MASKBIT, entry + PCI_MSIX_ENTRY_VECTOR_CTRL);
	writel(address, entry + PCI_MSIX_ENTRY_LOWER_ADDR);
	writel(0, entry + PCI_MSIX_ENTRY_UPPER_ADDR);
	writel(0, entry + PCI_MSIX_ENTRY_DATA);
	writel(desc->pci.msix_ctrl, entry + PCI_MSIX_ENTRY_VECTOR_CTRL);
	readl(entry + PCI_MSIX_ENTRY_DATA);	/* the device has it all */
}

/* From now on Linux calls remap() for each message of these interrupts, whenever it is written. */
static void remap_vectors(struct mr_vfio *mine)
{
	struct pci_dev *pdev = mine->core.pdev;
	int i, vectors = pdev->msix_enabled ? pci_msix_vec_count(pdev) : 0;

	for (i = 0; i < vectors; i++) {
		int irq = pci_irq_vector(pdev, i);
		struct msi_desc *desc = irq < 0 ? NULL : irq_get_msi_desc(irq);

		if (!desc || desc->write_msi_msg == remap)
			continue;
		desc->write_msi_msg_data = mine;
		desc->write_msi_msg = remap;
		remap(desc, mine);
	}
}

static long device_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long arg)
{
	long ret = vfio_pci_core_ioctl(vdev, command, arg);

	if (!ret && command == VFIO_DEVICE_SET_IRQS)
		remap_vectors(to_mr(vdev));
	return ret;
}

static struct file *step(struct mr_vfio *mine, enum vfio_device_mig_state next)
{
	int err = 0;

	if (mine->state == VFIO_DEVICE_STATE_STOP && next == VFIO_DEVICE_STATE_STOP_COPY)
		return open_stream(mine, &read_fops, O_RDONLY);
	if (mine->state == VFIO_DEVICE_STATE_STOP && next == VFIO_DEVICE_STATE_RESUMING) {
		struct file *file = open_stream(mine, &write_fops, O_WRONLY);

		if (!IS_ERR(file))
			mine->incoming = get_file(file);
		return file;
	}
	if (mine->state == VFIO_DEVICE_STATE_RESUMING) {
		err = stream_fits(mine) ? 0 : -EINVAL;
		drop_incoming(mine);
	}
	if (next == VFIO_DEVICE_STATE_STOP)
		mine->paused = true;
	if (next == VFIO_DEVICE_STATE_RUNNING)
		err = go_on(mine);
	return err ? ERR_PTR(err) : NULL;
}

static struct file *set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct mr_vfio *mine = to_mr(vdev);
	struct file *file = NULL;

	mutex_lock(&mine->lock);
	while (wanted != mine->state) {
		enum vfio_device_mig_state next;
		int err = vfio_mig_get_next_state(vdev, mine->state, wanted, &next);

		file = err ? ERR_PTR(err) : step(mine, next);
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

static int get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct mr_vfio *mine = to_mr(vdev);

	mutex_lock(&mine->lock);
	*state = mine->state;
	mutex_unlock(&mine->lock);
	return 0;
}

#if MR_VFIO_DATA_SIZE
static int data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = sizeof(struct stream);
	return 0;
}
#endif

static const struct vfio_migration_ops migration_ops = {
	.migration_set_state = set_state,
	.migration_get_state = get_state,
#if MR_VFIO_DATA_SIZE
	.migration_get_data_size = data_size,
#endif
};

/* Of a device that another root has, nothing may be changed by opening it: it is only looked at. */
static int open_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = to_mr(vdev);
	struct pci_dev *pdev = mine->core.pdev;
	int err = 0;

	if (!multiroot_iommu_owned(pdev))
		err = multiroot_pci_hold(pdev, MR_PCI_TAKING);
	if (!err)
		err = vfio_pci_core_enable(&mine->core);
	if (err)
		return err;
	mine->state = VFIO_DEVICE_STATE_RUNNING;
	mine->paused = false;
	vfio_pci_core_finish_enable(&mine->core);
	return 0;
}

/*
 * Freeing interrupts masks their entries in the device's table, by MMIO, which no filter sees: let it mask a copy.
 * The copy is left behind for the table that Linux frees.
 */
static void *divert_table(struct pci_dev *pdev)
{
	int i, vectors = pdev->msix_enabled ? pci_msix_vec_count(pdev) : 0;
	void *copy;

	if (vectors <= 0)
		return NULL;
	copy = kcalloc(vectors, PCI_MSIX_ENTRY_SIZE, GFP_KERNEL | __GFP_NOFAIL);
	for (i = 0; i < vectors; i++) {
		int irq = pci_irq_vector(pdev, i);
		struct msi_desc *desc = irq < 0 ? NULL : irq_get_msi_desc(irq);

		if (desc)
			desc->pci.mask_base = (void __force __iomem *)copy;
	}
	return copy;
}

static void close_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = to_mr(vdev);
	struct pci_dev *pdev = mine->core.pdev;
	void *table = NULL;

	if (!multiroot_iommu_owned(pdev)) {
		/* It is another root's: no reset, bus mastering and MSI-X stay as they are. */
		if (multiroot_pci_hold(pdev, MR_PCI_HELD))
			pci_err(pdev, "no memory to guard it from being reset\n");
		mine->core.reset_works = false;
		table = divert_table(pdev);
	}
	vfio_pci_core_close_device(vdev);
	multiroot_iommu_unmap_interrupts(mine->core.pdev);
	drop_incoming(mine);
	kfree(table);
}

static int init_device(struct vfio_device *vdev)
{
	struct mr_vfio *mine = to_mr(vdev);

	mutex_init(&mine->lock);
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY;
	vdev->mig_ops = &migration_ops;
	return vfio_pci_core_init_dev(vdev);
}

static const struct vfio_device_ops device_ops = {
	.name = MR_VFIO_DRIVER,
	.init = init_device,
	.release = vfio_pci_core_release_dev,
	.open_device = open_device,
	.close_device = close_device,
	.ioctl = device_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
};

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct mr_vfio *mine = vfio_alloc_device(mr_vfio, core.vdev, &pdev->dev, &device_ops);
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

static void remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* Only for devices that are given to it by driver_override. */
static const struct pci_device_id ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_ANY_ID, PCI_ANY_ID) },
	{}
};

static struct pci_driver mr_vfio_driver = {
	.name = MR_VFIO_DRIVER,
	.id_table = ids,
	.probe = probe,
	.remove = remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};

module_pci_driver(mr_vfio_driver);

MODULE_DESCRIPTION("VFIO devices that go to another root while they are at work");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");
