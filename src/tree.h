/*-------------------------------------------------------------------------
 *
 * tree.h
 *		The leaves of a migration's table, and cutting them one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_PARTITIONS_H
#define BBM_PARTITIONS_H

#include "strategy.h"

extern bool bbm_has_partitions(Oid relid);
extern List *bbm_partitions_all(Oid root);
extern bool bbm_has_triggers(Oid relid);
extern List *bbm_partitions_list(Oid root);
extern void bbm_partitions_lock(Oid root, LOCKMODE lock);
extern bool bbm_partitions_include(Oid root, Oid relid);
extern bool bbm_next_range(BbmTarget *target, const BbmClaimState *state, int size, bool at_once, BbmRange *range,
						   BbmPartition **partition);
extern void bbm_partitions_report(BbmTarget *target);
extern bool bbm_partitions_have_joined(const BbmTarget *target, int pass);
extern bool bbm_partitions_have_new(BbmTarget *target);

#endif							/* BBM_PARTITIONS_H */
