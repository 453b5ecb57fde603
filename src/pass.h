/*-------------------------------------------------------------------------
 *
 * pass.h
 *		What follows when a pass over the table has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_PASS_H
#define BBM_PASS_H

#include "strategy.h"

extern bool bbm_pass_ended(BbmTarget *target);

#endif							/* BBM_PASS_H */
