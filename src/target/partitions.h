/*-------------------------------------------------------------------------
 *
 * partitions.h
 *		The partitions of a migration's table, and allocating ranges of them one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_PARTITIONS_H
#define BBM_TARGET_PARTITIONS_H

#include "base/bbm.h"

#include "catalog/claims.h"
#include "target/target.h"

extern bool bbm_next_range(BbmTarget *target, const BbmClaimState *state, int size, bool at_once, BbmRange *range,
						   BbmPartition **partition);
extern void bbm_partitions_report(BbmTarget *target);
extern bool bbm_partitions_have_joined(const BbmTarget *target, BbmPhase phase);
extern bool bbm_partitions_have_new(BbmTarget *target);

#endif							/* BBM_TARGET_PARTITIONS_H */
