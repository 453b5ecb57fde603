/*-------------------------------------------------------------------------
 *
 * bisect.h
 *		Halving a range until the rows that cannot be done stand alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_BISECT_H
#define BBM_ENGINE_BISECT_H

#include "base/bbm.h"

#include "target/target.h"

extern void bbm_quarantine_end(BbmTarget *target, BbmPartition *partition, const BbmJob *job);
extern int64 bbm_bisect(BbmTarget *target, BbmPartition *partition, const BbmJob *job, const BbmRange *sub_batch);

#endif							/* BBM_ENGINE_BISECT_H */
