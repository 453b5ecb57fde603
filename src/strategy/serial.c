/*-------------------------------------------------------------------------
 *
 * serial.c
 *		SerialKeySetBatchingStrategy: key order, split by rows along the index.
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

#include "strategy/strategy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/key_query.h"
#include "target/key_scan.h"
#include "target/key_sql.h"
#include "target/size.h"
#include "target/target.h"

/* Allocates the next range; its key_count is 0 if no key is left. */
void
bbm_key_next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, bool distinct,
				   BbmRange *range)
{
	const BbmMigration *migration = target->migration;
	BbmKeyWalk	walk = {.target = target, .partition = partition, .to = allocation->max, .limit = allocation->size,
		.distinct = distinct};
	BbmBound	from = allocation->after ? *allocation->after : migration->min;
	BbmBound	first;

	memset(range, 0, sizeof(BbmRange));
	if (allocation->after)
		bbm_key_check_bound(&target->key, allocation->after);
	else if (DatumGetPointer(allocation->max->key))
		bbm_key_check_bound(&target->key, allocation->max);
	/* the table had no rows when the bounds were determined */
	if (!target->key.is_integer && !DatumGetPointer(allocation->max->key))
		return;
	if (allocation->open_below && !allocation->after && target->key.is_integer && bbm_key_end(target, partition,
																							  false, &first))
		from.number = Min(from.number, first.number);
	else if (allocation->open_below && !allocation->after)
		from.key = (Datum) 0;
	if (target->key.is_integer)
	{
		/* max_value may have been lowered during the run: then all ranges are allocated */
		if (allocation->after ? from.number >= allocation->max->number : from.number > allocation->max->number)
			return;
		if (allocation->after)
			from.number++;
		walk.from = &from;
	}
	else
	{
		walk.from = from.key ? &from : NULL;
		walk.after = allocation->after != NULL;
	}
	if (target->key.is_integer && !distinct && !allocation->verifies)
		walk.marks = range->marks = bbm_marks_prepare(target, allocation->size);
	bbm_key_walk(&walk);
	if (range->marks)
		range->marks->is_open = walk.count < allocation->size;
	range->key_count = walk.count;
	range->max = walk.count >= allocation->size ? walk.last : *allocation->max;
	range->min = target->key.is_integer ? from : walk.first;
	if (!target->key.is_integer)
		range->min.number = range->max.number = allocation->after ? allocation->after->number + 1 : 1;
}

/*
 * For a single table, the last range of an integer key is allocated even if it
 * contains no rows, so that the ranges cover all that was requested.
 */
static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, BbmRange *range)
{
	bool		whole = target->key.is_integer && !target->per_partition && !allocation->verifies;
	bool		left = target->key.is_integer &&
		(allocation->after ? allocation->after->number < allocation->max->number :
		 target->migration->min.number <= allocation->max->number);

	bbm_key_next_range(target, partition, allocation, false, range);
	return range->key_count > 0 || (whole && left);
}

void
bbm_key_first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
						bool distinct,
						BbmRange *sub_batch)
{
	BbmKeyWalk	walk = {.target = target, .partition = partition, .from = &rest->min, .after = after, .to = &rest->max,
	.limit = n, .distinct = distinct, .condition = bbm_job_found(target)};
	BbmBound	next = rest->min;

	*sub_batch = *rest;
	/* nothing is after the last number that there is */
	if (target->key.is_integer && after && next.number == PG_INT64_MAX)
	{
		sub_batch->key_count = 0;
		return;
	}
	if (target->key.is_integer && after)
	{
		next.number++;
		walk.from = &next;
		walk.after = false;
	}
	bbm_key_walk(&walk);
	sub_batch->key_count = walk.count;
	if (target->key.is_integer && (walk.condition == NULL || walk.count == 0))
		sub_batch->min = next;
	else if (walk.count > 0)
	{
		sub_batch->min.key = walk.first.key;
		if (target->key.is_integer)
			sub_batch->min.number = walk.first.number;
	}
	if (walk.count >= n)
	{
		sub_batch->max = walk.last;
		if (!target->key.is_integer)
			sub_batch->max.number = rest->max.number;
	}
}

static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
				BbmRange *sub_batch)
{
	bbm_key_first_sub_batch(target, partition, rest, after, n, false, sub_batch);
}

char *
bbm_key_predicate(BbmTarget *target, BbmPartition *partition, const char *alias)
{
	return bbm_key_range_sql(&target->key, alias);
}

const BbmStrategy bbm_strategy_serial = {
	.name = "SerialKeySetBatchingStrategy",
	.has_key = true,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = bbm_key_predicate
};
