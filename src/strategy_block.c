/*-------------------------------------------------------------------------
 *
 * strategy_block.c
 *		BlockRangeBatchingStrategy: runs of heap blocks, in physical order.
 *
 * NOTES
 *	  Rows move when they are updated, by us or by anybody: out of a block that
 *	  is still to be read into one that has been.  So a pass over all blocks
 *	  proves nothing, even if it has found no row to do.  After each pass that
 *	  works, one look is taken at the whole table with a single snapshot; what
 *	  a done row no longer meets tells the rest.  Only when that look finds
 *	  none is the migration finished.  Otherwise another pass follows.
 *
 *	  Neither the look nor a later pass reads a page twice without need.  A page
 *	  was left clean by a pass if no row visible to it is to be done.  It is so
 *	  still if nobody has changed it since, and if no transaction that had
 *	  changed it before has committed since: then it is all-visible, and has
 *	  been from before the pass began, which the LSN of the page of the
 *	  visibility map tells, as setting a bit there is logged and clearing one
 *	  makes the page not all-visible.
 *
 *	  A pass ends at the block that was the last when it began.  What comes after
 *	  it are new rows, and new versions of old ones; the look reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

#include "access/table.h"
#include "access/visibilitymap.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

#include "target.h"
#include "txn.h"

static void
resolve(BbmTarget *target)
{
	target->column_type = TIDOID;
	if (target->migration->where_clause == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("BlockRangeBatchingStrategy needs a \"where\""),
				 errdetail("Rows move when they are updated, so only a condition that a done row no longer meets tells which are done."),
				 errhint("Give one, or name a key and use SerialKeySetBatchingStrategy.")));
}

/* The leaf, which must be a heap. */
static Relation
open_heap(BbmTarget *target, BbmLeaf *leaf)
{
	Relation	rel = try_table_open(leaf->relid, AccessShareLock);

	if (rel == NULL)
		bbm_table_is_gone(leaf->name);
	return rel;
}

/*
 * Does a pass leave no row of a page that it does not change?  A job of the
 * user's may do as it likes, and so may a trigger or a rule.
 */
static bool
leaves_clean(const BbmTarget *target, const BbmLeaf *leaf, Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	return !XLogRecPtrIsInvalid(leaf->clean_lsn) && RelationNeedsWAL(rel) && target->form == BBM_JOB_COMPOSED &&
		rel->rd_rules == NULL &&
		!(triggers && (triggers->trig_update_before_row || triggers->trig_delete_before_row));
}

/* Has nobody changed the page since the pass that has left it clean began? */
static bool
page_is_clean(Relation rel, const BbmLeaf *leaf, BlockNumber block, Buffer *map)
{
	return VM_ALL_VISIBLE(rel, block, map) && BufferGetLSNAtomic(*map) <= leaf->clean_lsn;
}

/*
 * The first run of at most n blocks from "block" on that are not known to be
 * clean, before "end".  False when there is none.
 */
static bool
next_run(BbmTarget *target, BbmLeaf *leaf, BlockNumber block, BlockNumber end, BlockNumber n, BbmRange *run)
{
	Relation	rel = open_heap(target, leaf);
	BlockNumber blocks = RelationGetNumberOfBlocks(rel);
	Buffer		map = InvalidBuffer;
	BlockNumber last;
	bool		skip = leaves_clean(target, leaf, rel);
	bool		found;

	/* VACUUM may have cut off the end */
	end = Min(end, blocks);
	while (skip && block < end && page_is_clean(rel, leaf, block, &map))
	{
		CHECK_FOR_INTERRUPTS();
		block++;
	}
	found = block < end;
	last = block;
	if (found && !skip)
		last = block + Min(n, end - block) - 1;
	while (found && skip && last + 1 < end && last + 1 - block < n && !page_is_clean(rel, leaf, last + 1, &map))
		last++;
	if (BufferIsValid(map))
		ReleaseBuffer(map);
	table_close(rel, AccessShareLock);
	memset(run, 0, sizeof(BbmRange));
	run->min.number = block;
	run->max.number = last;
	run->key_count = (int64) ((last - block + 1) * leaf->rows_per_block);
	return found;
}

/* So many rows are about so many blocks. */
static BlockNumber
blocks_for(const BbmLeaf *leaf, int rows)
{
	double		blocks = rows / Max(leaf->rows_per_block, 0.001);

	return blocks < 1 ? 1 : blocks > MaxBlockNumber / 2 ? MaxBlockNumber / 2 : (BlockNumber) blocks;
}

static bool
next_range(BbmTarget *target, BbmLeaf *leaf, const BbmCut *cut, BbmRange *range)
{
	/* the look at all is one job, with one snapshot */
	if (cut->verifies)
	{
		memset(range, 0, sizeof(BbmRange));
		range->max.number = MaxBlockNumber - 1;
		return cut->after == NULL;
	}
	return next_run(target, leaf, cut->after ? (BlockNumber) cut->after->number + 1 : 0, leaf->end_block,
					blocks_for(leaf, cut->size), range);
}

/* Without a run left, the part reaches to the end of the rest and has no keys. */
static void
first_of(BbmTarget *target, BbmLeaf *leaf, const BbmRange *rest, bool after, int n, BbmRange *part)
{
	if (next_run(target, leaf, (BlockNumber) rest->min.number + (after ? 1 : 0), (BlockNumber) rest->max.number + 1,
				 n == PG_INT32_MAX ? MaxBlockNumber : blocks_for(leaf, n), part))
	{
		/* a run of few rows is still one */
		part->key_count = Max(part->key_count, 1);
		return;
	}
	*part = *rest;
	part->key_count = 0;
}

static char *
predicate(BbmTarget *target, BbmLeaf *leaf, const char *alias)
{
	return psprintf("%s.ctid OPERATOR(pg_catalog.>=) $1 AND %s.ctid OPERATOR(pg_catalog.<=) $2", alias, alias);
}

static char *
undone(BbmTarget *target, const char *alias)
{
	return target->migration->where_clause;
}

static double
share(BbmTarget *target, double rows)
{
	return rows;
}

const BbmStrategy bbm_strategy_block = {
	.name = "BlockRangeBatchingStrategy",
	.sweeps = true,
	.resolve = resolve,
	.next_range = next_range,
	.first_of = first_of,
	.predicate = predicate,
	.undone = undone,
	.share = share
};
