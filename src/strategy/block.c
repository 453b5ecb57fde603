/*-------------------------------------------------------------------------
 *
 * block.c
 *		BlockRangeBatchingStrategy: runs of heap blocks, in physical order.
 *
 * NOTES
 *	  Rows move when they are updated, by us or by others: out of a block that
 *	  is still to be read into one that has been read.  So a pass over all
 *	  blocks proves nothing, even if it has found no row to do.  After each
 *	  working pass, one verification reads the whole table, with all its
 *	  partitions or child tables, with a single snapshot (engine/verify.c); the
 *	  filter, which a finished row no longer meets, shows which rows are left.
 *	  Only when the verification finds none is the migration finished.
 *	  Otherwise another pass follows.
 *
 *	  Neither the verification nor a later pass reads a page twice without
 *	  need.  A pass has left a page clean if no row visible to the pass is
 *	  still to be done.  The page is still clean if nobody has changed it
 *	  since, and if no transaction that had changed it before has committed
 *	  since: then it is all-visible, and has been so since before the pass
 *	  began.  The LSN of the page of the visibility map shows that, as setting
 *	  a bit there is logged and clearing one makes the page not all-visible.  A
 *	  bit and the LSN are read under the map page's lock: VACUUM sets the bit
 *	  first.  Servers that also log the clearing (17 and later, by their minor
 *	  version) advance the LSN then as well: a page that changes voids the
 *	  map's page, and all of its 32,672 blocks count as changed.  That costs
 *	  reads and loses no row.
 *
 *	  A session that is changing such a page at this moment has not committed,
 *	  so the snapshot of a verification, taken before the map is read, sees the
 *	  rows as they were, and they were clean.
 *
 *	  That is true only if the pass does all rows that it sees: not where a
 *	  trigger, a rule or a policy may have kept one back, nor where a row comes
 *	  to meet the condition without being changed (see target->fixed).  These
 *	  are checked whenever a range is allocated, and by each batch when it is
 *	  done, while it has the lock that prevents their removal.
 *
 *	  A pass ends at the block that was the last one when it began.  The blocks
 *	  after it contain new rows, and new versions of old rows; the verification
 *	  reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "access/table.h"
#include "access/visibilitymap.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

#include "base/compat.h"
#include "catalog/partitions.h"
#include "strategy/strategy.h"
#include "target/relation.h"
#include "target/target.h"

/* Up to so many clean blocks between others are read too: to stop and start again costs more. */
#define BBM_GAP 16

#define MAP_BYTES (BLCKSZ - MAXALIGN(SizeOfPageHeaderData))
#define BLOCKS_PER_BYTE (BITS_PER_BYTE / BITS_PER_HEAPBLOCK)
#define BLOCKS_PER_MAP_PAGE (MAP_BYTES * BLOCKS_PER_BYTE)

/* A page of the visibility map as of one moment; its bits are 0 if it has changed since clean_lsn. */
typedef struct CleanMap
{
	Relation	rel;
	XLogRecPtr	clean_lsn;		/* invalid: no page is clean */
	BlockNumber first;			/* InvalidBlockNumber: no page is loaded */
	uint8		bits[MAP_BYTES];
} CleanMap;

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

/*
 * Opens the partition, which must be a heap.  The lock is kept until the
 * transaction ends: what was found out about its blocks must not be applied to
 * other files.
 */
static Relation
open_heap(BbmTarget *target, BbmPartition *partition)
{
	Relation	rel = try_table_open(partition->relid, AccessShareLock);

	if (rel == NULL)
		bbm_table_is_gone(partition->name);
	return rel;
}

/* Does a pass do all rows on a page that it does not change?  As far as the migration shows. */
static bool
does_all(const BbmTarget *target)
{
	/* a user's own job may leave rows out */
	return target->form == BBM_JOB_COMPOSED && target->fixed;
}

/* The same, as far as the table shows. */
static bool
lets_all_be_done(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return RelationNeedsWAL(rel) && rel->rd_rules == NULL && !rel->rd_rel->relrowsecurity &&
		!(triggers && (triggers->trig_update_before_row || triggers->trig_delete_before_row));
}

/*
 * Called before each range of a working pass is allocated: records when and at
 * which block the pass began on the partition.  Caller has the migration's
 * lock.
 */
static void
begin_pass(BbmTarget *target, BbmPartition *partition, int pass)
{
	int64		id = target->migration->id;
	BbmPartitionState *part = bbm_partition_state(id, partition->relid);
	Relation	rel;
	Oid			filenode;

	if (part == NULL)
	{
		bbm_partition_add(id, partition->relid, partition->name, false);
		part = bbm_partition_state(id, partition->relid);
	}
	rel = open_heap(target, partition);
	filenode = bbm_relation_filenode(rel);
	if (part->begun < pass)
	{
		part->begun = pass;
		part->clean_lsn = part->filenode == filenode ? part->begun_lsn : InvalidXLogRecPtr;
		/* the position first: a page that is added in between counts as changed */
		part->begun_lsn = does_all(target) && lets_all_be_done(rel) ? GetXLogInsertRecPtr() : InvalidXLogRecPtr;
		part->end_block = RelationGetNumberOfBlocks(rel);
		part->filenode = filenode;
		bbm_partition_begin(id, part);
	}
	else if (!XLogRecPtrIsInvalid(part->begun_lsn) && !lets_all_be_done(rel))
		bbm_partition_unclean(id, partition->relid);
	table_close(rel, NoLock);
	partition->end_block = part->end_block;
	partition->clean_lsn = part->clean_lsn;
	partition->filenode = part->filenode;
}

/*
 * A batch is done, and the table locked as by any writer: checks whether
 * something was added that can keep a row back.
 */
static void
after_batch(BbmTarget *target, BbmPartition *partition)
{
	Relation	rel;

	if (!does_all(target))
		return;
	rel = open_heap(target, partition);
	if (!lets_all_be_done(rel))
		bbm_partition_unclean(target->migration->id, partition->relid);
	table_close(rel, NoLock);
}

/* Prepares to verify a partition: all of it, or without the pages that the last pass has left clean. */
static void
begin_check(BbmTarget *target, BbmPartition *partition, bool at_all)
{
	BbmPartitionState *part = at_all ? NULL : bbm_partition_state(target->migration->id, partition->relid);

	partition->clean_lsn = part ? part->begun_lsn : InvalidXLogRecPtr;
	partition->filenode = part ? part->filenode : InvalidOid;
}

/* Loads the page of the visibility map that covers the block. */
static void
load_map(CleanMap *map, BlockNumber block)
{
	Buffer		buffer = InvalidBuffer;
	Page		page;

	map->first = block - block % BLOCKS_PER_MAP_PAGE;
	memset(map->bits, 0, sizeof(map->bits));
	/* pins the map's page, if it exists */
	(void) visibilitymap_get_status(map->rel, block, &buffer);
	if (!BufferIsValid(buffer))
		return;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (PageGetLSN(page) <= map->clean_lsn)
		memcpy(map->bits, PageGetContents(page), sizeof(map->bits));
	UnlockReleaseBuffer(buffer);
}

/* Is the page unchanged since the beginning of the pass that has left it clean? */
static bool
is_clean(CleanMap *map, BlockNumber block)
{
	BlockNumber n;

	if (XLogRecPtrIsInvalid(map->clean_lsn))
		return false;
	if (map->first == InvalidBlockNumber || block < map->first || block - map->first >= BLOCKS_PER_MAP_PAGE)
	{
		CHECK_FOR_INTERRUPTS();
		load_map(map, block);
	}
	n = block - map->first;
	return (map->bits[n / BLOCKS_PER_BYTE] >> (n % BLOCKS_PER_BYTE * BITS_PER_HEAPBLOCK)) & VISIBILITYMAP_ALL_VISIBLE;
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

/*
 * Finds the first run of about "rows" rows (0: of any length) from "block" on,
 * and before "end", that begins and ends with a block that is not known to be
 * clean.  False when there is none.
 */
static bool
next_run(BbmTarget *target, BbmPartition *partition, BlockNumber block, BlockNumber end, int rows, BbmRange *run)
{
	Relation	rel = open_heap(target, partition);
	double		density = rows_per_block(rel);
	CleanMap	map = {.rel = rel, .first = InvalidBlockNumber};
	BlockNumber n = rows > 0 ? (BlockNumber) Max(rows / density, 1) : MaxBlockNumber;
	BlockNumber last;
	bool		found;

	if (partition->filenode == bbm_relation_filenode(rel) && RelationNeedsWAL(rel))
		map.clean_lsn = partition->clean_lsn;
	/* VACUUM may have truncated the table */
	end = Min(end, RelationGetNumberOfBlocks(rel));
	while (block < end && is_clean(&map, block))
		block++;
	found = block < end;
	last = block;
	if (found && XLogRecPtrIsInvalid(map.clean_lsn))
		last = block + Min(n, end - block) - 1;
	else if (found)
	{
		for (BlockNumber next = block + 1; next < end && next - block < n && next - last <= BBM_GAP; next++)
		{
			if (!is_clean(&map, next))
				last = next;
		}
	}
	table_close(rel, NoLock);
	memset(run, 0, sizeof(BbmRange));
	run->min.number = block;
	run->max.number = last;
	run->key_count = Max(bbm_count_of(((double) last - block + 1) * density), 1);
	return found;
}

static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *cut, BbmRange *range)
{
	/* a verification is one job, with one snapshot */
	if (cut->verifies)
	{
		memset(range, 0, sizeof(BbmRange));
		range->max.number = MaxBlockNumber - 1;
		return cut->after == NULL;
	}
	return next_run(target, partition, cut->after ? (BlockNumber) cut->after->number + 1 : 0, partition->end_block,
					cut->size, range);
}

/* If no run is left, the sub-batch extends to the end of the job's range and has no keys. */
static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n, BbmRange *part)
{
	if (next_run(target, partition, (BlockNumber) rest->min.number + (after ? 1 : 0),
				 (BlockNumber) rest->max.number + 1,
				 n == PG_INT32_MAX ? 0 : n, part))
		return;
	*part = *rest;
	part->key_count = 0;
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

static double
share(BbmTarget *target, double rows)
{
	return rows;
}

const BbmStrategy bbm_strategy_block = {
	.name = "BlockRangeBatchingStrategy",
	.table_scans = true,
	.resolve = resolve,
	.begin_pass = begin_pass,
	.after_batch = after_batch,
	.begin_check = begin_check,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = predicate,
	.undone = undone,
	.share = share
};
