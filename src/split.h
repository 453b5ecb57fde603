/*-------------------------------------------------------------------------
 *
 * split.h
 *		Halving a range until the rows that cannot be done stand alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BISECT_H
#define BBM_BISECT_H

#include "strategy.h"

extern int64 bbm_bisect(BbmTarget *target, BbmPartition *partition, const BbmJob *job);

#endif							/* BBM_BISECT_H */
