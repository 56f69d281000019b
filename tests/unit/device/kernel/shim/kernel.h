/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * As much of the kernel as files of csrc/kmod need to run in a test. Headers of the kernel that the host has for user
 * space are its own; all others are empty, and what they would declare is here. Locks are real ones, between threads.
 */
#ifndef _SHIM_KERNEL_H
#define _SHIM_KERNEL_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/version.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef u64 phys_addr_t;
typedef u64 dma_addr_t;
typedef unsigned int gfp_t;

#define __user
#define __iomem
#define __force
#define __init
#define __exit
#define __aligned(n)		__attribute__((aligned(n)))
#define __packed		__attribute__((packed))

#define KBUILD_MODNAME		"shim"
#define THIS_MODULE		NULL
#define GFP_KERNEL		0
#define PAGE_SHIFT		12
#define PAGE_SIZE		4096UL
#define PAGE_MASK		(~(PAGE_SIZE - 1))
#define U16_MAX			0xffff
#define U32_MAX			0xffffffffU
#define SZ_4K			0x1000
#define SZ_64K			0x10000
#define SZ_128K			0x20000
#define SZ_512K			0x80000
#define SZ_1M			0x100000
#define SZ_2M			0x200000
#define SZ_64M			0x4000000
#define SZ_1G			0x40000000
#define USEC_PER_MSEC		1000L
#define USEC_PER_SEC		1000000L
#define BIT(n)			(1UL << (n))
#define BIT_ULL(n)		(1ULL << (n))
#define GENMASK(h, l)		((~0U << (l)) & (~0U >> (31 - (h))))
#define GENMASK_ULL(h, l)	((~0ULL << (l)) & (~0ULL >> (63 - (h))))
#define FIELD_PREP(mask, value)	((u64)(value) << __builtin_ctzll(mask) & (mask))
#define FIELD_GET(mask, value)	(((u64)(value) & (mask)) >> __builtin_ctzll(mask))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define ALIGN(x, a)		(((x) + (a) - 1) & ~((__typeof__(x))(a) - 1))
#define ALIGN_DOWN(x, a)	((x) & ~((__typeof__(x))(a) - 1))
#define IS_ALIGNED(x, a)	(!((x) & ((__typeof__(x))(a) - 1)))
#define PAGE_ALIGNED(x)		IS_ALIGNED((u64)(x), PAGE_SIZE)
#define PHYS_PFN(x)		((unsigned long)((x) >> PAGE_SHIFT))
#define PFN_PHYS(x)		((phys_addr_t)(x) << PAGE_SHIFT)
#define min(a, b)		((a) < (b) ? (a) : (b))
#define min_t(type, a, b)	min((type)(a), (type)(b))
#define min3(a, b, c)		min(a, min(b, c))
#define max(a, b)		((a) > (b) ? (a) : (b))
#define max_t(type, a, b)	max((type)(a), (type)(b))
#define container_of(p, type, member)	((type *)((char *)(p) - offsetof(type, member)))
#define check_add_overflow(a, b, sum)	__builtin_add_overflow(a, b, sum)
#define u64_to_user_ptr(x)	((void *)(uintptr_t)(x))
#define EXPORT_SYMBOL_GPL(name)	extern __typeof__(name) name
#define module_param(name, type, mode)	extern int shim_unused
#define MODULE_PARM_DESC(name, text)	extern int shim_unused
#define MODULE_DESCRIPTION(text)	extern int shim_unused
#define MODULE_AUTHOR(text)	extern int shim_unused
#define MODULE_LICENSE(text)	extern int shim_unused
#define __module_get(module)	do {} while (0)
#define module_put(module)	do {} while (0)

/* A test can look in at places that say their name; see kernel_code.py. */
void shim_at(const char *where);

/* What the modules say goes nowhere, but must be well formed. */
#define shim_say(...)		((void)(0 && printf(__VA_ARGS__)))
#define pr_err(...)		shim_say(__VA_ARGS__)
#define pr_err_once(...)	shim_say(__VA_ARGS__)
#define pr_warn(...)		shim_say(__VA_ARGS__)
#define pr_warn_ratelimited(...)	shim_say(__VA_ARGS__)
#define pr_err_ratelimited(...)	shim_say(__VA_ARGS__)
#define pr_info(...)		shim_say(__VA_ARGS__)

#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value)	(*(volatile __typeof__(x) *)&(x) = (value))
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xchg(p, value)		__atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)

/* As in a kernel that runs on one CPU: it patches the lock prefix away. */
#define cmpxchg(p, old, new)						\
({									\
	__typeof__(*(p)) _was = (old);					\
	asm volatile("cmpxchg %2, %1" : "+a" (_was), "+m" (*(p)) : "r" (new) : "memory", "cc");	\
	_was;								\
})

struct mutex {
	pthread_mutex_t real;
	bool held;
};

#define __MUTEX_INITIALIZER(name)	{ .real = PTHREAD_MUTEX_INITIALIZER }
#define DEFINE_MUTEX(name)	struct mutex name = __MUTEX_INITIALIZER(name)

static inline void mutex_init(struct mutex *lock)
{
	pthread_mutex_init(&lock->real, NULL);
	lock->held = false;
}

static inline void mutex_lock(struct mutex *lock)
{
	pthread_mutex_lock(&lock->real);
	lock->held = true;
}

static inline int mutex_lock_interruptible(struct mutex *lock)
{
	mutex_lock(lock);
	return 0;
}

static inline void mutex_unlock(struct mutex *lock)
{
	lock->held = false;
	pthread_mutex_unlock(&lock->real);
}

/* Bits. */
#define BITS_PER_LONG		64

static inline void set_bit(unsigned long bit, unsigned long *map)
{
	__atomic_fetch_or(&map[bit / BITS_PER_LONG], 1UL << bit % BITS_PER_LONG, __ATOMIC_SEQ_CST);
}

static inline void clear_bit(unsigned long bit, unsigned long *map)
{
	__atomic_fetch_and(&map[bit / BITS_PER_LONG], ~(1UL << bit % BITS_PER_LONG), __ATOMIC_SEQ_CST);
}

#define __set_bit		set_bit
#define __clear_bit		clear_bit
#define test_bit(bit, map)	((map)[(bit) / BITS_PER_LONG] >> (bit) % BITS_PER_LONG & 1)
#define DECLARE_BITMAP(name, size)	unsigned long name[((size) + BITS_PER_LONG - 1) / BITS_PER_LONG]

/* Not the same type, as it is not in a kernel that preempts everywhere. */
typedef struct { pthread_mutex_t real; } spinlock_t;
typedef struct { pthread_mutex_t real; } raw_spinlock_t;

#define __SPIN_LOCK_UNLOCKED(name)	{ .real = PTHREAD_MUTEX_INITIALIZER }
#define __RAW_SPIN_LOCK_UNLOCKED(name)	{ .real = PTHREAD_MUTEX_INITIALIZER }
#define DEFINE_SPINLOCK(name)	spinlock_t name = __SPIN_LOCK_UNLOCKED(name)
#define DEFINE_RAW_SPINLOCK(name)	raw_spinlock_t name = __RAW_SPIN_LOCK_UNLOCKED(name)
#define spin_lock_init(lock)	pthread_mutex_init(&(lock)->real, NULL)
#define spin_lock_irqsave(lock, flags)	((flags) = 0, pthread_mutex_lock(&(lock)->real))
#define spin_unlock_irqrestore(lock, flags)	((void)(flags), pthread_mutex_unlock(&(lock)->real))
#define raw_spin_lock_irqsave	spin_lock_irqsave
#define raw_spin_unlock_irqrestore	spin_unlock_irqrestore
#define cond_resched()		shim_at("cond_resched")

/* What compat.h speaks of. */
#define rdmsr(msr, low, high)	((low) = (high) = 0)
#define rdmsr_safe(msr, low, high)	(*(low) = *(high) = 0)
#define wrmsr(msr, low, high)	((void)(low), (void)(high))
#define driver_set_override(...)	0

#define MAX_ERRNO		4095
#define IS_ERR(p)		((uintptr_t)(p) >= (uintptr_t)-MAX_ERRNO)
#define PTR_ERR(p)		((long)(p))
#define ERR_PTR(err)		((void *)(long)(err))
#define ERESTARTSYS		512

static inline void *kzalloc(size_t size, gfp_t how)
{
	return calloc(1, size);
}

static inline void *kvmalloc(size_t size, gfp_t how)
{
	return malloc(size);
}

#define kvzalloc(size, how)	kzalloc(size, how)
#define kmalloc(size, how)	kvmalloc(size, how)
#define kcalloc(n, size, how)	calloc(n, size)
#define kfree(p)		free((void *)(p))
#define kvfree(p)		free((void *)(p))
#define __GFP_NOFAIL		0

struct device;
struct inode;
struct poll_table_struct;
struct vm_area_struct;

struct file {
	const struct file_operations *f_op;
	void *private_data;
	struct inode *f_inode;
	loff_t f_pos;
	unsigned int f_flags;
};

struct file_operations {
	void *owner;
	int (*open)(struct inode *inode, struct file *file);
	int (*release)(struct inode *inode, struct file *file);
	ssize_t (*read)(struct file *file, char *to, size_t size, loff_t *pos);
	ssize_t (*write)(struct file *file, const char *from, size_t size, loff_t *pos);
	long (*unlocked_ioctl)(struct file *file, unsigned int command, unsigned long argument);
	long (*compat_ioctl)(struct file *file, unsigned int command, unsigned long argument);
	int (*mmap)(struct file *file, struct vm_area_struct *vma);
	unsigned int (*poll)(struct file *file, struct poll_table_struct *wait);
};

static inline int stream_open(struct inode *inode, struct file *file)
{
	return 0;
}

#define nonseekable_open(inode, file)	stream_open(inode, file)
#define compat_ptr_ioctl	NULL

/* User memory may be a file system's in user space, which answers when it wants to. */
static inline unsigned long copy_from_user(void *to, const void *from, unsigned long size)
{
	shim_at("copy_from_user");
	memcpy(to, from, size);
	return 0;
}

static inline unsigned long copy_to_user(void *to, const void *from, unsigned long size)
{
	shim_at("copy_to_user");
	memcpy(to, from, size);
	return 0;
}

struct miscdevice {
	int minor;
	const char *name;
	const struct file_operations *fops;
	unsigned int mode;
	struct device *this_device;
};

#define MISC_DYNAMIC_MINOR	255
#define module_misc_device(device)	struct miscdevice *const shim_device = &(device)
#define CAP_SYS_BOOT		22
#define LOCKDOWN_KEXEC		0
#define capable(what)		true
#define security_locked_down(what)	0

#define MEMREMAP_WB		0
void *memremap(phys_addr_t phys, size_t size, int how);
void memunmap(void *memory);

enum { IORESOURCE_MEM = 1, IORESOURCE_SYSTEM_RAM, IORESOURCE_IO = 4, IORESOURCE_PREFETCH = 8 };
enum { IORES_DESC_NONE, IORES_DESC_PERSISTENT_MEMORY, IORES_DESC_PERSISTENT_MEMORY_LEGACY, IORES_DESC_RESERVED };
enum { REGION_INTERSECTS, REGION_DISJOINT, REGION_MIXED };

struct work_struct {
	int unused;
};

#endif /* _SHIM_KERNEL_H */
