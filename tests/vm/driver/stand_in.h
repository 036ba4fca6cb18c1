/* SPDX-License-Identifier: GPL-2.0 */
/* Functions of the stand-in driver for the GPUs' driver. */
#ifndef STAND_IN_H
#define STAND_IN_H

int egm_stand_in_add_regions(void);
void egm_stand_in_remove_regions(void);

#endif
