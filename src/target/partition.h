/*-------------------------------------------------------------------------
 *
 * partition.h
 *		A table with rows of its own, opened.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_PARTITION_H
#define BBM_TARGET_PARTITION_H

#include "base/bbm.h"

#include "target/target.h"

extern PGDLLEXPORT BbmPartition *bbm_partition_open(BbmTarget *target, Oid relid);
extern BbmPartition *bbm_partitions_open_as_one(BbmTarget *target);
extern void bbm_partition_close(BbmTarget *target);
extern bool bbm_could_change_key(const BbmTarget *target, Oid relid, bool whole);

#endif							/* BBM_TARGET_PARTITION_H */
