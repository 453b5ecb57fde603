/*-------------------------------------------------------------------------
 *
 * serial.c
 *		SerialKeySetBatchingStrategy: key order, cut by rows along the index.
 *
 * The ranges of an integer key follow each other without a gap in the key,
 * from min_value to max_value; a range over a billion ids without a row costs
 * nothing.  Other keys have no next value to begin with, so a range begins
 * with the first existing key after the last range.  Rows that tie in the key
 * are never in two ranges.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy/serial.h"

#include "base/bbm.h"
#include "strategy/strategy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/key_query.h"
#include "target/key_scan.h"
#include "target/key_sql.h"
#include "target/target.h"

/* Allocates the next range; its key_count is 0 if no key is left. */
void
bbm_key_next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *cut, bool distinct, BbmRange *range)
{
	const BbmMigration *migration = target->migration;
	BbmKeyWalk	walk = {.target = target, .partition = partition, .to = cut->max, .limit = cut->size,
		.distinct = distinct};
	BbmBound	from = cut->after ? *cut->after : migration->min;
	BbmBound	first;

	memset(range, 0, sizeof(BbmRange));
	if (cut->after)
		bbm_key_check_bound(&target->key, cut->after);
	else if (DatumGetPointer(cut->max->key))
		bbm_key_check_bound(&target->key, cut->max);
	/* the table had no rows when the bounds were determined */
	if (!target->key.is_integer && !DatumGetPointer(cut->max->key))
		return;
	if (cut->open_below && !cut->after && target->key.is_integer && bbm_key_end(target, partition, false, &first))
		from.number = Min(from.number, first.number);
	else if (cut->open_below && !cut->after)
		from.key = (Datum) 0;
	if (target->key.is_integer)
	{
		/* max_value may have been lowered during the run: then all ranges are allocated */
		if (cut->after ? from.number >= cut->max->number : from.number > cut->max->number)
			return;
		if (cut->after)
			from.number++;
		walk.from = &from;
	}
	else
	{
		walk.from = from.key ? &from : NULL;
		walk.after = cut->after != NULL;
	}
	bbm_key_walk(&walk);
	range->key_count = walk.count;
	range->max = walk.count >= cut->size ? walk.last : *cut->max;
	range->min = target->key.is_integer ? from : walk.first;
	if (!target->key.is_integer)
		range->min.number = range->max.number = cut->after ? cut->after->number + 1 : 1;
}

/*
 * For a single table, the last range of an integer key is allocated even if it
 * contains no rows, so that the ranges cover all that was requested.
 */
static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *cut, BbmRange *range)
{
	bool		whole = target->key.is_integer && !target->per_partition && !cut->verifies;
	bool		left = target->key.is_integer &&
		(cut->after ? cut->after->number < cut->max->number : target->migration->min.number <= cut->max->number);

	bbm_key_next_range(target, partition, cut, false, range);
	return range->key_count > 0 || (whole && left);
}

void
bbm_key_first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
						bool distinct,
						BbmRange *part)
{
	BbmKeyWalk	walk = {.target = target, .partition = partition, .from = &rest->min, .after = after, .to = &rest->max,
	.limit = n, .distinct = distinct, .condition = bbm_job_found(target)};
	BbmBound	next = rest->min;

	*part = *rest;
	if (target->key.is_integer && after)
	{
		next.number++;
		walk.from = &next;
		walk.after = false;
	}
	bbm_key_walk(&walk);
	part->key_count = walk.count;
	if (target->key.is_integer && (walk.condition == NULL || walk.count == 0))
		part->min = next;
	else if (walk.count > 0)
	{
		part->min.key = walk.first.key;
		if (target->key.is_integer)
			part->min.number = walk.first.number;
	}
	if (walk.count >= n)
	{
		part->max = walk.last;
		if (!target->key.is_integer)
			part->max.number = rest->max.number;
	}
}

static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n, BbmRange *part)
{
	bbm_key_first_sub_batch(target, partition, rest, after, n, false, part);
}

char *
bbm_key_predicate(BbmTarget *target, BbmPartition *partition, const char *alias)
{
	return bbm_key_range_sql(&target->key, alias);
}

static double
share(BbmTarget *target, double rows)
{
	return rows;
}

const BbmStrategy bbm_strategy_serial = {
	.name = "SerialKeySetBatchingStrategy",
	.has_key = true,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = bbm_key_predicate,
	.share = share
};
