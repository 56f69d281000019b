// SPDX-License-Identifier: GPL-2.0-or-later
/* What a test calls of csrc/kmod/vfio. */
#include "iommu/iommu.h"
#include "pci/pci.h"
#include "vfio/vfio.h"

#define VECTORS	4

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

/*
 * The card's interrupts: VFIO makes and frees their descriptors with igate held. Their table is there while the card's
 * memory is on, which VFIO turns on and off with memory_lock held.
 */
static struct msi_desc descriptors[VECTORS];
static u32 table[VECTORS][4];
static struct mr_vfio mine = {
	.core = {
		.pdev = &card,
		.igate = __MUTEX_INITIALIZER(igate),
		.memory_lock = { __MUTEX_INITIALIZER(memory_lock) },
	},
	.lock = __MUTEX_INITIALIZER(lock),
	.state = VFIO_DEVICE_STATE_RUNNING,
};
int unguarded, undecoded, injected, restored;

static void look(void)
{
	unguarded += !mine.core.igate.held || !mine.core.memory_lock.lock.held;
	undecoded += !(card.command & PCI_COMMAND_MEMORY);
}

int pci_msix_vec_count(struct pci_dev *pdev)
{
	return VECTORS;
}

int pci_irq_vector(struct pci_dev *pdev, unsigned int vector)
{
	look();
	return vector < VECTORS - 1 ? 30 + (int)vector : -EINVAL;
}

struct msi_desc *irq_get_msi_desc(unsigned int irq)
{
	look();
	return &descriptors[irq - 30];
}

int irq_inject_interrupt(unsigned int irq)
{
	look();
	injected++;
	return 0;
}

void pci_restore_msi_state(struct pci_dev *pdev)
{
	look();
	restored++;
}

bool multiroot_iommu_remap(struct pci_dev *pdev, unsigned int vector, const struct msi_msg *message, u32 *address)
{
	look();
	*address = 0xfee00010 | vector << 5;
	return true;
}

/* The card's table after SET_IRQS: what it holds for a vector. */
u32 remap(unsigned int vector)
{
	int i;

	card.msix_enabled = true;
	for (i = 0; i < VECTORS; i++)
		descriptors[i] = (struct msi_desc){ .msi_index = i, .pci.mask_base = table };
	mr_vectors_remap(&mine.core);
	return table[vector][0];
}

/* What the VMM does to the card's command register. */
void set_command(u16 command)
{
	card.command = command;
}

u16 command(void)
{
	return card.command;
}

int raise_all(void)
{
	card.msix_enabled = true;
	return mr_vectors_raise(&mine.core);
}

bool multiroot_iommu_owned(struct pci_dev *pdev)
{
	return true;
}

int multiroot_pci_hold(struct pci_dev *pdev, enum mr_pci_hold hold)
{
	return 0;
}

/* 0, or a negative error; the file that belongs to the new state, if any, in *file. */
int set_state(enum vfio_device_mig_state state, struct file **file)
{
	*file = mr_migration_ops.migration_set_state(&mine.core.vdev, state);
	return IS_ERR(*file) ? PTR_ERR(*file) : 0;
}
