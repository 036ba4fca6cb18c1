// SPDX-License-Identifier: GPL-2.0
/*
 * A stand-in for the GPUs' driver of shape D: regions exist as long as it is loaded. It uses a
 * symbol of the driver of the regions, which therefore has a reference at rest.
 */
#include <linux/module.h>

#include "stand_in.h"

static int __init gpu_driver_init(void)
{
	return egm_stand_in_add_regions();
}
module_init(gpu_driver_init);

static void __exit gpu_driver_exit(void)
{
	egm_stand_in_remove_regions();
}
module_exit(gpu_driver_exit);

MODULE_DESCRIPTION("Stand-in for the driver of NVIDIA Grace GPUs");
MODULE_LICENSE("GPL");
