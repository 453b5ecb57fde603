/*-------------------------------------------------------------------------
 *
 * serial.h
 *		Ranges in the order of a key, for all strategies that have one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_STRATEGY_SERIAL_H
#define BBM_STRATEGY_SERIAL_H

#include "base/bbm.h"

#include "target/target.h"

extern void bbm_key_next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation,
							   bool distinct,
							   BbmRange *range);
extern void bbm_key_first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after,
									int n, bool distinct,
									BbmRange *sub_batch);
extern char *bbm_key_predicate(BbmTarget *target, BbmPartition *partition, const char *alias);

#endif							/* BBM_STRATEGY_SERIAL_H */
