// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the VMM's migration stream carries of a device: a token. The device goes on working, so there is no state of it
 * to be carried.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "pci/pci.h"
#include "vfio/vfio.h"

#define STREAM_MAGIC 0x314f4956464f524dULL
#define STREAM_VERSION 1

/* All that the VMM's stream carries: that it came from this driver, and of which device. */
struct stream {
	__le64 magic;
	__le32 version;
	__le16 vendor;
	__le16 device;
};

/**
 * struct transfer - an open file of it
 * @lock: protects what is written; one that is read never changes
 * @stream: the bytes
 * @length: how many have been written
 */
struct transfer {
	struct mutex lock;	/* see above */
	struct stream stream;
	size_t length;
};

static ssize_t mr_stream_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct transfer *transfer = file->private_data;

	if (pos)
		return -ESPIPE;
	return simple_read_from_buffer(buf, count, &file->f_pos, &transfer->stream, sizeof(transfer->stream));
}

static ssize_t mr_stream_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	struct transfer *transfer = file->private_data;
	u8 part[sizeof(transfer->stream)];
	ssize_t done = -EINVAL;

	if (pos)
		return -ESPIPE;
	if (count > sizeof(part))
		return -EINVAL;
	if (copy_from_user(part, buf, count))
		return -EFAULT;
	mutex_lock(&transfer->lock);
	if (count <= sizeof(transfer->stream) - transfer->length) {
		memcpy((void *)&transfer->stream + transfer->length, part, count);
		transfer->length += count;
		done = count;
	}
	mutex_unlock(&transfer->lock);
	return done;
}

static int mr_stream_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations mr_stream_read_fops = {
	.owner = THIS_MODULE,
	.read = mr_stream_read,
	.release = mr_stream_release,
};

static const struct file_operations mr_stream_write_fops = {
	.owner = THIS_MODULE,
	.write = mr_stream_write,
	.release = mr_stream_release,
};

static struct file *mr_stream_open(struct pci_dev *pdev, const struct file_operations *fops, int flags)
{
	struct transfer *transfer = kzalloc(sizeof(*transfer), GFP_KERNEL);
	struct file *file;

	if (!transfer)
		return ERR_PTR(-ENOMEM);
	mutex_init(&transfer->lock);
	file = anon_inode_getfile(MR_VFIO_DRIVER, fops, transfer, flags);
	if (IS_ERR(file)) {
		kfree(transfer);
		return file;
	}
	stream_open(file->f_inode, file);
	if (fops == &mr_stream_read_fops)
		transfer->stream = (struct stream){
			.magic = cpu_to_le64(STREAM_MAGIC),
			.version = cpu_to_le32(STREAM_VERSION),
			.vendor = cpu_to_le16(pdev->vendor),
			.device = cpu_to_le16(pdev->device),
		};
	return file;
}

/* Size of a whole stream in bytes. */
size_t mr_stream_size(void)
{
	return sizeof(struct stream);
}

/* A file from which the device's stream is read; or an error pointer. */
struct file *mr_stream_save(struct pci_dev *pdev)
{
	return mr_stream_open(pdev, &mr_stream_read_fops, O_RDONLY);
}

/* A file to which a stream is written; or an error pointer. */
struct file *mr_stream_load(struct pci_dev *pdev)
{
	return mr_stream_open(pdev, &mr_stream_write_fops, O_WRONLY);
}

static bool mr_stream_is_of(const struct transfer *transfer, const struct pci_dev *pdev)
{
	return transfer->length == sizeof(transfer->stream) &&
	       transfer->stream.magic == cpu_to_le64(STREAM_MAGIC) &&
	       transfer->stream.version == cpu_to_le32(STREAM_VERSION) &&
	       transfer->stream.vendor == cpu_to_le16(pdev->vendor) &&
	       transfer->stream.device == cpu_to_le16(pdev->device);
}

/* True when a whole stream of such a device was written to the file. */
bool mr_stream_fits(const struct file *file, const struct pci_dev *pdev)
{
	struct transfer *transfer = file->private_data;
	bool fits;

	/* The file is still open, so somebody may be writing. */
	mutex_lock(&transfer->lock);
	fits = mr_stream_is_of(transfer, pdev);
	mutex_unlock(&transfer->lock);
	return fits;
}
