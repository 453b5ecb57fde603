/*-------------------------------------------------------------------------
 *
 * block.c
 *		BlockRangeBatchingStrategy: runs of heap blocks, in physical order.
 *
 * NOTES
 *	  Rows move when they are updated, by us or by others: out of a block that
 *	  is still to be read into one that has been read.  So a scan of all
 *	  blocks proves nothing, even if it has found no row to do.  After each
 *	  round of work, one verification reads the whole table, with all its
 *	  partitions or child tables, with a single snapshot (engine/verify.c); the
 *	  filter, which a finished row no longer meets, shows which rows are left.
 *	  Only when the verification finds none is the migration finished.
 *	  Otherwise another round follows.
 *
 *	  Each round and each verification reads all blocks.  An update of a row
 *	  changes its page, so a migration of all rows leaves no page that could be
 *	  passed over.
 *
 *	  A round ends at the block that was the last one when it began.  The blocks
 *	  after it contain new rows, and new versions of old rows; the verification
 *	  reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"

#include "catalog/partitions.h"
#include "strategy/strategy.h"
#include "target/relation.h"
#include "target/target.h"

static void
resolve(BbmTarget *target)
{
	target->column_type = TIDOID;
	if (target->migration->filter == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("BlockRangeBatchingStrategy needs a \"filter\""),
				 errdetail("Rows move when they are updated, so only a condition that a done row no longer meets shows which are done."),
				 errhint("Give one, or name a key and use SerialKeySetBatchingStrategy.")));
}

/* Opens the partition, which must be a heap; the lock is kept until the transaction ends. */
static Relation
open_heap(BbmPartition *partition)
{
	Relation	rel = try_table_open(partition->relid, AccessShareLock);

	if (rel == NULL)
		bbm_table_is_gone(partition->name);
	return rel;
}

/*
 * Called before each range to be processed is allocated: records at which
 * block the round ends on the partition.  Caller has the migration's lock.
 */
static void
begin_round(BbmTarget *target, BbmPartition *partition, int round)
{
	int64		id = target->migration->id;
	BbmPartitionState *entry = bbm_partition_state(id, partition->relid);
	Relation	rel;

	if (entry && entry->started_round >= round)
	{
		partition->end_block = entry->end_block;
		return;
	}
	if (entry == NULL)
		bbm_partition_add(id, partition->relid, partition->name, false);
	rel = open_heap(partition);
	partition->end_block = RelationGetNumberOfBlocks(rel);
	table_close(rel, NoLock);
	bbm_partition_begin(id, partition->relid, round, partition->end_block);
}

/* The planner's estimate; with less than one row per block, a batch costs what its blocks cost. */
static double
rows_per_block(Relation rel)
{
	BlockNumber pages = 0;
	double		tuples = 0;
	double		all_visible;

	estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
	return pages > 0 && tuples > pages ? tuples / pages : 1;
}

/* The first blocks from "block" on, and before "end", with about "rows" rows; false when there is none. */
static bool
next_run(BbmPartition *partition, BlockNumber block, BlockNumber end, int rows, BbmRange *run)
{
	Relation	rel = open_heap(partition);
	double		density = rows_per_block(rel);
	BlockNumber n = (BlockNumber) Max(rows / density, 1);

	/* VACUUM may have truncated the table */
	end = Min(end, RelationGetNumberOfBlocks(rel));
	table_close(rel, NoLock);
	memset(run, 0, sizeof(BbmRange));
	if (block >= end)
		return false;
	n = Min(n, end - block);
	run->min.number = block;
	run->max.number = (int64) block + n - 1;
	run->key_count = Max(bbm_count_of(n * density), 1);
	return true;
}

static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, BbmRange *range)
{
	/* a verification is one job, with one snapshot */
	if (allocation->verifies)
	{
		memset(range, 0, sizeof(BbmRange));
		range->max.number = MaxBlockNumber - 1;
		return allocation->after == NULL;
	}
	return next_run(partition, allocation->after ? (BlockNumber) allocation->after->number + 1 : 0,
					partition->end_block,
					allocation->size, range);
}

/* If no run is left, the sub-batch extends to the end of the job's range and has no keys. */
static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n, BbmRange *entry)
{
	if (next_run(partition, (BlockNumber) rest->min.number + (after ? 1 : 0),
				 (BlockNumber) rest->max.number + 1, n, entry))
		return;
	*entry = *rest;
	entry->key_count = 0;
}

static char *
predicate(BbmTarget *target, BbmPartition *partition, const char *alias)
{
	return psprintf("%s.ctid OPERATOR(pg_catalog.>=) $1 AND %s.ctid OPERATOR(pg_catalog.<=) $2", alias, alias);
}

static char *
undone(BbmTarget *target, const char *alias)
{
	return target->migration->filter;
}

const BbmStrategy bbm_strategy_block = {
	.name = "BlockRangeBatchingStrategy",
	.table_scans = true,
	.resolve = resolve,
	.begin_round = begin_round,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = predicate,
	.undone = undone
};
