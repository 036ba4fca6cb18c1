// SPDX-License-Identifier: GPL-2.0
/*
 * A stand-in for the driver of NVIDIA Grace's EGM regions, for tests in a virtual machine: class
 * "egm" with one character device per region, for the PCI functions in a parameter. It counts
 * calls of open, in debugfs: a tool that only inspects regions must leave the counters at 0.
 * In shape D, gpu_driver.c adds and removes the regions.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "stand_in.h"

#define MINORS		256
#define REGIONS_MAX	4
#define GPUS_MAX	4
/* The actual memory of a region, which is repeated. A power of two, and contiguous: private mappings require that. */
#define BACKED		(2UL << 20)

static char *shape = "D";
module_param(shape, charp, 0444);
MODULE_PARM_DESC(shape, "D: a text file gpu_devices; E: links to the GPUs");

static int number[REGIONS_MAX];
static unsigned int region_count;
module_param_array(number, int, &region_count, 0444);
MODULE_PARM_DESC(number, "the number of each region, which is its minor");

static unsigned long long size[REGIONS_MAX];
module_param_array(size, ullong, NULL, 0444);
MODULE_PARM_DESC(size, "the size of each region in bytes; 64 MiB where nothing is said");

static char *gpus[REGIONS_MAX];
module_param_array(gpus, charp, NULL, 0444);
MODULE_PARM_DESC(gpus, "the GPUs of each region, as 0000:20:01.0+0000:20:02.0");

static bool exclusive;
module_param(exclusive, bool, 0444);
MODULE_PARM_DESC(exclusive, "a region that is open cannot be opened; without regions there is no class");

static unsigned int scrub_ms;
module_param(scrub_ms, uint, 0644);
MODULE_PARM_DESC(scrub_ms, "how long the first open of a region takes");

static unsigned int init_delay_ms;
module_param(init_delay_ms, uint, 0444);
MODULE_PARM_DESC(init_delay_ms, "how long after its last region the module is not live");

static unsigned int attr_delay_us;
module_param(attr_delay_us, uint, 0444);
MODULE_PARM_DESC(attr_delay_us, "how long a region has no attributes after it was announced");

static unsigned int gpu_delay_us;
module_param(gpu_delay_us, uint, 0444);
MODULE_PARM_DESC(gpu_delay_us, "how long each GPU after a region's first is late");

static unsigned int remove_delay_ms;
module_param(remove_delay_ms, uint, 0644);
MODULE_PARM_DESC(remove_delay_ms, "how long a region that is removed has no GPUs");

struct region {
	int number;
	u64 size;
	struct device *dev;
	void *memory;
	/* Number of attempts to open the device, and of open files. */
	atomic_t opens;
	atomic_t users;
	/* Guards the list below. */
	struct mutex lock;
	struct pci_dev *gpus[GPUS_MAX];
	unsigned int gpu_count;
};

static struct region regions[REGIONS_MAX];
/* NULL if there is none. */
static struct class *egm_class;
static struct cdev egm_cdev;
static dev_t first_number;
static struct dentry *debug_dir;
/* One change of the regions at a time. */
static DEFINE_MUTEX(control_lock);

static bool has_list(void)
{
	return shape[0] == 'D';
}

static struct region *region_of(int minor)
{
	for (unsigned int i = 0; i < region_count; i++)
		if (regions[i].number == minor)
			return &regions[i];
	return NULL;
}

/* The character device */

static int egm_open(struct inode *inode, struct file *file)
{
	struct region *region = region_of(iminor(inode));

	if (!region)
		return -ENODEV;
	atomic_inc(&region->opens);
	pr_info("egm%d opened by %s[%d]\n", region->number, current->comm,
		task_tgid_nr(current));
	if (!READ_ONCE(region->dev))
		return -ENODEV;
	file->private_data = region;
	if (atomic_inc_return(&region->users) > 1) {
		if (!exclusive)
			return 0;
		atomic_dec(&region->users);
		return -EBUSY;
	}
	/* The real driver clears the whole region. Until it has, no process shows the file. */
	memset(region->memory, 0, BACKED);
	if (scrub_ms)
		msleep(scrub_ms);
	return 0;
}

/* Also called when the last mapping is removed. */
static int egm_release(struct inode *inode, struct file *file)
{
	struct region *region = file->private_data;

	atomic_dec(&region->users);
	return 0;
}

static int egm_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct region *region = file->private_data;
	u64 start = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 length = vma->vm_end - vma->vm_start;
	unsigned long pfn = page_to_pfn(virt_to_page(region->memory));

	/* The older driver neither reads the offset nor checks the length. */
	if (has_list())
		start = 0;
	else if (start > region->size || length > region->size - start)
		return -EINVAL;
	start &= BACKED - 1;
	/*
	 * Only a single range can be private. The kernel replaces its offset with the physical
	 * address, as with the real driver.
	 */
	if (!(vma->vm_flags & VM_SHARED)) {
		if (length > BACKED - start)
			return -EINVAL;
		return remap_pfn_range(vma, vma->vm_start, pfn + (start >> PAGE_SHIFT), length,
				       vma->vm_page_prot);
	}
	for (u64 at = 0; at < length; at += PAGE_SIZE) {
		u64 page = ((start + at) & (BACKED - 1)) >> PAGE_SHIFT;
		int err = remap_pfn_range(vma, vma->vm_start + at, pfn + page, PAGE_SIZE,
					  vma->vm_page_prot);
		if (err)
			return err;
	}
	return 0;
}

/* Each open file has two references to the module: that of its operations, and that of the cdev. */
static const struct file_operations egm_fops = {
	.owner = THIS_MODULE,
	.open = egm_open,
	.release = egm_release,
	.mmap = egm_mmap,
};

/* Attributes */

static ssize_t egm_size_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct region *region = dev_get_drvdata(dev);

	return sysfs_emit(buf, "0x%llx\n", region->size);
}
static DEVICE_ATTR_RO(egm_size);

static ssize_t gpu_devices_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct region *region = dev_get_drvdata(dev);
	int length = 0;

	mutex_lock(&region->lock);
	for (unsigned int i = 0; i < region->gpu_count; i++)
		length += sysfs_emit_at(buf, length, "%s\n", pci_name(region->gpus[i]));
	mutex_unlock(&region->lock);
	return length;
}
static DEVICE_ATTR_RO(gpu_devices);

/* GPUs */

static int join_gpu(struct region *region, const char *name)
{
	unsigned int domain, bus, slot, function;
	struct pci_dev *gpu;
	int err = 0;

	if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return -EINVAL;
	gpu = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, function));
	if (!gpu) {
		pr_err("there is no PCI function %s\n", name);
		return -ENODEV;
	}
	if (region->gpu_count == GPUS_MAX)
		err = -ENOSPC;
	else if (!has_list())
		err = sysfs_create_link(&region->dev->kobj, &gpu->dev.kobj, pci_name(gpu));
	if (err) {
		pci_dev_put(gpu);
		return err;
	}
	mutex_lock(&region->lock);
	region->gpus[region->gpu_count++] = gpu;
	mutex_unlock(&region->lock);
	return 0;
}

static int leave_gpu(struct region *region, const char *name)
{
	struct pci_dev *gpu = NULL;

	mutex_lock(&region->lock);
	for (unsigned int i = 0; i < region->gpu_count; i++) {
		if (!gpu && !strcmp(pci_name(region->gpus[i]), name))
			gpu = region->gpus[i];
		if (gpu && i + 1 < region->gpu_count)
			region->gpus[i] = region->gpus[i + 1];
	}
	if (gpu)
		region->gpu_count--;
	mutex_unlock(&region->lock);
	if (!gpu)
		return -ENODEV;
	if (!has_list())
		sysfs_remove_link(&region->dev->kobj, pci_name(gpu));
	pci_dev_put(gpu);
	return 0;
}

/* Regions */

static void remove_region(struct region *region)
{
	if (!region->dev)
		return;
	/* Like the real driver: file by file, the attributes before the device. */
	if (has_list())
		device_remove_file(region->dev, &dev_attr_gpu_devices);
	while (region->gpu_count)
		leave_gpu(region, pci_name(region->gpus[0]));
	if (remove_delay_ms)
		msleep(remove_delay_ms);
	device_remove_file(region->dev, &dev_attr_egm_size);
	WRITE_ONCE(region->dev, NULL);
	device_destroy(egm_class, MKDEV(MAJOR(first_number), region->number));
}

static int add_region(struct region *region, char *names)
{
	struct device *dev;
	char *name;
	int err;

	dev = device_create(egm_class, NULL, MKDEV(MAJOR(first_number), region->number), region,
			    "egm%d", region->number);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	WRITE_ONCE(region->dev, dev);
	/* The real driver announces a region before it has any attributes. */
	fsleep(attr_delay_us);
	err = device_create_file(dev, &dev_attr_egm_size);
	if (!err && has_list())
		err = device_create_file(dev, &dev_attr_gpu_devices);
	while (!err && (name = strsep(&names, "+"))) {
		if (region->gpu_count)
			fsleep(gpu_delay_us);
		err = join_gpu(region, name);
	}
	if (err)
		remove_region(region);
	return err;
}

/* debugfs: join NUMBER GPU, leave NUMBER GPU, remove NUMBER */

static ssize_t control_write(struct file *file, const char __user *from, size_t length,
			     loff_t *at)
{
	char line[64], what[8], name[16] = "";
	struct region *region;
	int minor, err = -EINVAL;

	if (length >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, length))
		return -EFAULT;
	line[length] = 0;
	if (sscanf(line, "%7s %d %15s", what, &minor, name) < 2)
		return -EINVAL;
	region = region_of(minor);
	mutex_lock(&control_lock);
	if (!region || !region->dev) {
		err = -ENODEV;
	} else if (!strcmp(what, "join")) {
		err = join_gpu(region, name);
	} else if (!strcmp(what, "leave")) {
		err = leave_gpu(region, name);
	} else if (!strcmp(what, "remove")) {
		remove_region(region);
		err = 0;
	}
	mutex_unlock(&control_lock);
	return err ? err : length;
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = control_write,
};

/* The module */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static char *egm_devnode(const struct device *dev, umode_t *mode)
#else
static char *egm_devnode(struct device *dev, umode_t *mode)
#endif
{
	if (mode)
		*mode = 0600;
	return NULL;
}

static struct class *create_class(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	return class_create("egm");
#else
	return class_create(THIS_MODULE, "egm");
#endif
}

void egm_stand_in_remove_regions(void)
{
	mutex_lock(&control_lock);
	for (unsigned int i = 0; i < region_count; i++)
		remove_region(&regions[i]);
	mutex_unlock(&control_lock);
}
EXPORT_SYMBOL_GPL(egm_stand_in_remove_regions);

int egm_stand_in_add_regions(void)
{
	int err = 0;

	mutex_lock(&control_lock);
	for (unsigned int i = 0; i < region_count && !err; i++) {
		/* Parsing modifies the list, which is needed again when the GPUs are bound again. */
		char *names = kstrdup(gpus[i], GFP_KERNEL);

		err = names ? add_region(&regions[i], names) : -ENOMEM;
		kfree(names);
	}
	mutex_unlock(&control_lock);
	if (err)
		egm_stand_in_remove_regions();
	return err;
}
EXPORT_SYMBOL_GPL(egm_stand_in_add_regions);

static void remove_all(void)
{
	debugfs_remove_recursive(debug_dir);
	if (!egm_class)
		return;
	egm_stand_in_remove_regions();
	cdev_del(&egm_cdev);
	for (unsigned int i = 0; i < region_count; i++)
		free_pages((unsigned long)regions[i].memory, get_order(BACKED));
	class_destroy(egm_class);
	unregister_chrdev_region(first_number, MINORS);
}

static int prepare_region(struct region *region, unsigned int index)
{
	char name[16];
	struct dentry *dir;

	region->number = number[index];
	region->size = size[index] ? size[index] : 64ULL << 20;
	mutex_init(&region->lock);
	region->memory = (void *)__get_free_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN,
						  get_order(BACKED));
	if (!region->memory)
		return -ENOMEM;
	snprintf(name, sizeof(name), "egm%d", region->number);
	dir = debugfs_create_dir(name, debug_dir);
	debugfs_create_atomic_t("opens", 0444, dir, &region->opens);
	return 0;
}

static int __init egm_init(void)
{
	int err;

	if (strcmp(shape, "D") && strcmp(shape, "E"))
		return -EINVAL;
	for (unsigned int i = 0; i < region_count; i++)
		if (number[i] < 0 || number[i] >= MINORS || !gpus[i])
			return -EINVAL;
	debug_dir = debugfs_create_dir("egm-stand-in", NULL);
	if (exclusive && !region_count)
		return 0;
	err = alloc_chrdev_region(&first_number, 0, MINORS, "egm");
	if (err)
		goto no_number;
	egm_class = create_class();
	if (IS_ERR(egm_class)) {
		err = PTR_ERR(egm_class);
		goto no_class;
	}
	egm_class->devnode = egm_devnode;
	cdev_init(&egm_cdev, &egm_fops);
	egm_cdev.owner = THIS_MODULE;
	err = cdev_add(&egm_cdev, first_number, MINORS);
	if (err)
		goto no_cdev;
	for (unsigned int i = 0; i < region_count && !err; i++)
		err = prepare_region(&regions[i], i);
	/* In shape D they come with the GPUs' driver. */
	if (!err && !has_list())
		err = egm_stand_in_add_regions();
	if (err) {
		remove_all();
		return err;
	}
	debugfs_create_file("control", 0200, debug_dir, NULL, &control_fops);
	if (init_delay_ms)
		msleep(init_delay_ms);
	return 0;

no_cdev:
	class_destroy(egm_class);
no_class:
	unregister_chrdev_region(first_number, MINORS);
no_number:
	debugfs_remove_recursive(debug_dir);
	return err;
}
module_init(egm_init);

static void __exit egm_exit(void)
{
	remove_all();
}
module_exit(egm_exit);

MODULE_DESCRIPTION("Stand-in for the driver of NVIDIA Grace EGM regions");
MODULE_LICENSE("GPL");
