/*-------------------------------------------------------------------------
 *
 * partitions.h
 *		The state of each partition of a migration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_PARTITIONS_H
#define BBM_CATALOG_PARTITIONS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"
#include "storage/block.h"

/* catalog/partitions.c: the state of a partition of a migration */
typedef struct BbmPartitionState
{
	Oid			relation;
	char	   *name;
	bool		attached;		/* it is part of the table at present */
	BbmPhase	phase;			/* the last one in which all its ranges were allocated */
	int			started_round;	/* block ranges: the last round that has begun on it; 0: none ... */
	BlockNumber end_block;		/* ... ends before this block */
	bool		joined;			/* it was attached while the migration ran */
	bool		has_extent;		/* if ranges are by key: it had keys when its first range was allocated ... */
	BbmBound	low;			/* ... from here ... */
	BbmBound	high;			/* ... to here */
} BbmPartitionState;

extern List *bbm_partitions(int64 migration_id);
extern BbmPartitionState *bbm_partition_state(int64 migration_id, Oid relation);
extern void bbm_partition_add(int64 migration_id, Oid relation, const char *name, bool joined);
extern void bbm_partition_begin(int64 migration_id, Oid relation, int round, BlockNumber end_block);
extern void bbm_partition_done(int64 migration_id, Oid relation, BbmPhase phase);
extern void bbm_partition_attached(int64 migration_id, Oid relation, bool attached);
extern void bbm_partition_rename(int64 migration_id, Oid relation, const char *name);
extern void bbm_partition_clean(int64 migration_id, Oid relation, int round);
extern void bbm_partitions_reopen(int64 migration_id);
extern void bbm_partitions_forget(int64 migration_id);
extern void bbm_partitions_accept(int64 migration_id);
extern int64 bbm_jobs_rows(int64 migration_id, Oid relation);
extern void bbm_jobs_revive(int64 migration_id, List *partitions);
extern void bbm_partition_extent(int64 migration_id, Oid relation, const BbmBound *low, const BbmBound *high);
extern bool bbm_jobs_last(int64 migration_id, Oid root, Oid relation, BbmPhase phase, BbmBound *last);

#endif							/* BBM_CATALOG_PARTITIONS_H */
