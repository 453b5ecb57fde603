/*-------------------------------------------------------------------------
 *
 * whole.c
 *		How much a migration has to do, and how much of it is done.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/whole.h"

#include "catalog/partitions.h"

/* The ends of the range, counted from the last key that was allocated; if none was, from the one before the first. */
static void
set_ends(BbmWhole *whole, int64 first, int64 last, const BbmTotals *totals)
{
	whole->first = totals->has_allocated ? bbm_distance(totals->allocated_to, first) : 1;
	whole->last = totals->has_allocated ? bbm_distance(totals->allocated_to, last) : bbm_distance(first, last) + 1;
}

/*
 * The keys of block ranges are estimated by the planner's idea of the rows per
 * page, which changes as the table grows; how many blocks there are to do is
 * known, if it is one table.
 */
static void
count_blocks(const BbmMigration *migration, const BbmTotals *totals, BbmWhole *whole)
{
	List	   *parts = bbm_partitions(migration->id);
	const BbmPartitionState *part = list_length(parts) == 1 ? linitial(parts) : NULL;

	if (part == NULL || totals->per_partition || part->end_block == 0)
		return;
	whole->has_ends = true;
	whole->estimate = -1;
	set_ends(whole, 0, (int64) part->end_block - 1, totals);
}

/* What is known about how many keys there are to do; "total" is negative where no estimate was made. */
void
bbm_whole_of(const BbmMigration *migration, const BbmTotals *totals, int64 total, BbmWhole *whole)
{
	bool		serial = migration->strategy == NULL || strcmp(migration->strategy, "SerialKeySetBatchingStrategy") == 0;
	bool		loose = migration->strategy && strcmp(migration->strategy, "LooseIndexScanBatchingStrategy") == 0;

	memset(whole, 0, sizeof(BbmWhole));
	whole->done = bbm_totals_keys(totals);
	whole->allocated = (double) totals->finished.keys + totals->open.keys;
	whole->estimate = total;
	/*
	 * The ranges of an integer key follow each other without a gap, except
	 * where each partition has its own.  While rows arrive beyond the last key,
	 * that is no end.
	 */
	whole->has_ends = (serial || loose) && !bbm_is_of_cluster(migration) && !totals->per_partition &&
		migration->key_order == NULL && DatumGetPointer(migration->max.key) == NULL &&
		!(migration->follow && total >= 0);
	set_ends(whole, migration->min.number, migration->max.number, totals);
	if (migration->strategy && strcmp(migration->strategy, "BlockRangeBatchingStrategy") == 0)
		count_blocks(migration, totals, whole);
	whole->complete = !bbm_phase_is(migration->phase, BBM_WORK(1)) ||
		(whole->has_ends && totals->has_allocated && whole->allocated_to >= whole->last);
}
