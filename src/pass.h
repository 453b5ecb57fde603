/*-------------------------------------------------------------------------
 *
 * pass.h
 *		What follows when a pass over the table has ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_COMPLETION_H
#define BBM_COMPLETION_H

#include "strategy.h"

extern bool bbm_pass_ended(BbmTarget *target);

#endif							/* BBM_COMPLETION_H */
