/*-------------------------------------------------------------------------
 *
 * run_range.h
 *		Running the job on a range of keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_RUN_RANGE_H
#define BBM_ENGINE_RUN_RANGE_H

#include "base/bbm.h"

#include "target/target.h"

extern int64 bbm_run_range(BbmTarget *target, BbmPartition *partition, const BbmRange *range, int size);

#endif							/* BBM_ENGINE_RUN_RANGE_H */
