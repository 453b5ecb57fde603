/*-------------------------------------------------------------------------
 *
 * loose.c
 *		LooseIndexScanBatchingStrategy: so many distinct values a job.
 *
 * The walk skips along the index from one value to the next, however many rows
 * share it.  A value is never in two ranges.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "access/htup_details.h"
#include "catalog/pg_statistic.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "strategy/serial.h"
#include "strategy/strategy.h"
#include "target/target.h"

static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, BbmRange *range)
{
	bbm_key_next_range(target, partition, allocation, true, range);
	return range->key_count > 0;
}

static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
				BbmRange *sub_batch)
{
	bbm_key_first_sub_batch(target, partition, rest, after, n, true, sub_batch);
}

/* The number of values by ANALYZE's statistics; for several columns, at most their product. */
static double
share(BbmTarget *target, double rows)
{
	double		values = 1;

	/* ANALYZE's statistics include rows that the owner may not see */
	if (target->as_owner)
		return rows;
	for (int i = 0; i < target->key.n; i++)
	{
		AttrNumber	attnum = get_attnum(target->relid, target->key.columns[i].name);
		HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(target->relid),
											Int16GetDatum(attnum), BoolGetDatum(target->has_partitions));
		double		distinct = -1;

		if (HeapTupleIsValid(tuple))
		{
			distinct = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;
			ReleaseSysCache(tuple);
		}
		/* negative: distinct values as a fraction of the rows */
		values *= distinct > 0 ? distinct : -distinct * rows;
	}
	return Min(values, rows);
}

const BbmStrategy bbm_strategy_loose = {
	.name = "LooseIndexScanBatchingStrategy",
	.has_key = true,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = bbm_key_predicate,
	.share = share
};
