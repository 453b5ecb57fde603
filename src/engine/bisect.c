/*-------------------------------------------------------------------------
 *
 * bisect.c
 *		Halving a range until the rows that cannot be processed stand alone.
 *
 * NOTES
 *	  This is for a job that has used up its attempts, of a migration with
 *	  on_error "split".  All of a sub-batch is one transaction: each half runs
 *	  in a subtransaction, and the rows that cannot be processed are recorded in
 *	  the transaction that processes the others and records the sub-batch.  Only errors
 *	  that may be due to the data are treated like this; any other error ends
 *	  the whole transaction, and the job is retried or not, as usual.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/bisect.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "base/cancel.h"
#include "base/point.h"
#include "base/txn.h"
#include "catalog/errors.h"
#include "catalog/shard_errors.h"
#include "engine/error_class.h"
#include "engine/run_range.h"
#include "target/bound.h"
#include "target/target.h"

typedef struct Bisection
{
	BbmTarget  *target;
	BbmPartition *partition;
	const BbmJob *job;
	int64		rows;			/* done so far */
	int64		errors;			/* of the migration, these included */
} Bisection;

/* Runs the job on a part of its range; returns NULL, or the error with which it was rolled back. */
static ErrorData *
try_half(Bisection *bisection, const BbmRange *sub_batch)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		int64		rows;

		PushActiveSnapshot(GetTransactionSnapshot());
		rows = bbm_run_range(bisection->target, bisection->partition, sub_batch,
							 (int) Min(Max(bisection->job->batch_size, sub_batch->key_count), INT_MAX));
		PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		bisection->rows = bbm_add_counts(bisection->rows, rows);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = bbm_copy_error();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	return error;
}

/*
 * Records the rows of a range that cannot be halved any more, unless there are
 * too many already.  They have one key, which alone is recorded: an integer's
 * range begins after the key before it.  If another session has inserted a key
 * since the range was tried, nobody knows which one it was: all of it is recorded.
 */
static void
quarantine(Bisection *bisection, const BbmRange *sub_batch, const ErrorData *error)
{
	BbmTarget  *target = bisection->target;
	BbmRange	rest = *sub_batch;
	BbmRange	one;
	BbmRange	other;

	if (++bisection->errors > target->migration->max_errors)
	{
		bbm_failing_code = BBM_CODE_ATTEMPTS;
		ThrowErrorData(bbm_errors_too_many(target->migration, error));
	}
	BBM_POINT("batch-bisected");
	target->strategy->first_sub_batch(target, bisection->partition, sub_batch, false, 1, &one);
	rest.min = one.max;
	target->strategy->first_sub_batch(target, bisection->partition, &rest, true, 1, &other);
	/* the job fails where there is no row, or there are several keys now */
	if (one.key_count == 0 || other.key_count > 0)
		one = *sub_batch;
	else
		one.min = one.max;
	bbm_error_add(bisection->job, &one.min, &one.max, error);
	if (target->shard)
		bbm_shard_error_add(target->shard, &one.min, &one.max, error);
}

/*
 * Processes a range, or else its two halves.  The recursion is at most as deep
 * as the logarithm of the number of keys.
 */
static void
bisect(Bisection *bisection, const BbmRange *sub_batch)
{
	const BbmStrategy *strategy = bisection->target->strategy;
	BbmRange	all;
	BbmRange	half;
	int			failing_code = bbm_failing_code;
	ErrorData  *error;

	CHECK_FOR_INTERRUPTS();
	error = try_half(bisection, sub_batch);
	if (error == NULL)
		return;
	if (bbm_error_class(error) != BBM_ERROR_DATA && bbm_error_class(error) != BBM_ERROR_SIZE)
		ThrowErrorData(error);
	/* the location of an earlier error says nothing about another one */
	bbm_failing_code = failing_code;
	strategy->first_sub_batch(bisection->target, bisection->partition, sub_batch, false, PG_INT32_MAX, &all);
	half = all;
	if (all.key_count > 1)
		strategy->first_sub_batch(bisection->target, bisection->partition, sub_batch, false, (int) (all.key_count / 2),
								  &half);
	/* the key cannot distinguish rows with equal keys */
	if (all.key_count <= 1 || half.key_count >= all.key_count)
	{
		quarantine(bisection, sub_batch, error);
		return;
	}
	FreeErrorData(error);
	all.max = sub_batch->max;
	bisect(bisection, &half);
	half.min = half.max;
	half.max = sub_batch->max;
	strategy->first_sub_batch(bisection->target, bisection->partition, &half, true, PG_INT32_MAX, &all);
	if (all.key_count > 0)
	{
		all.max = sub_batch->max;
		bisect(bisection, &all);
	}
}

/* Is a quarantined row in the job's range, and does "target->repairs" find it there? */
static bool
is_found(BbmTarget *target, BbmPartition *partition, const BbmJob *job, const BbmQuarantined *entry)
{
	BbmRange	range = {entry->min, entry->max, 0};
	BbmRange	found;

	if ((!partition->as_one_table && entry->relation != job->relation) ||
		bbm_key_compare_bounds(&target->key, &entry->max, &job->min) < 0 ||
		bbm_key_compare_bounds(&target->key, &entry->min, &job->max) > 0)
		return false;
	target->strategy->first_sub_batch(target, partition, &range, false, 1, &found);
	return found.key_count > 0;
}

/*
 * A range that verification has checked is about to be processed again.
 * Quarantined rows of it that verification finds are processed along with it,
 * or quarantined anew: were they to stay what bbm_retry tries again, they would
 * be done twice.  Others stay; they are as they should be, and may be not done.
 * In the job's transaction, whose row is locked, and so is the record of a
 * shard: bbm_retry may take them before that, under the migration's lock.
 */
void
bbm_quarantine_end(BbmTarget *target, BbmPartition *partition, const BbmJob *job)
{
	ListCell   *cell;

	foreach(cell, bbm_errors(job->migration_id))
	{
		const BbmQuarantined *entry = lfirst(cell);

		if (is_found(target, partition, job, entry))
			bbm_error_delete(entry->id);
	}
	/* those that this node has not found itself are in the record alone */
	foreach(cell, target->shard ? bbm_shard_errors(target->shard) : NIL)
	{
		const BbmQuarantined *entry = lfirst(cell);

		if (is_found(target, partition, job, entry))
			bbm_shard_error_end(target->shard, &entry->min, &entry->max);
	}
}

/*
 * The same for only those keys that verification has found in the range: a
 * user's job always processes the whole range that it gets.
 */
static void
bisect_keys(Bisection *bisection, BbmRange *rest, bool after)
{
	const BbmStrategy *strategy = bisection->target->strategy;
	BbmRange	sub_batch;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		strategy->first_sub_batch(bisection->target, bisection->partition, rest, after, 1, &sub_batch);
		if (sub_batch.key_count == 0)
			return;
		bisect(bisection, &sub_batch);
		rest->min = sub_batch.max;
		after = true;
	}
}

/*
 * Processes what can be processed of a sub-batch and records the other rows,
 * in the caller's transaction, which also records the sub-batch as done.  If a
 * user's job has a range that verification has checked, processes all that is
 * left of it.  Returns how many rows were changed.  The job's row is locked.
 */
int64
bbm_bisect(BbmTarget *target, BbmPartition *partition, const BbmJob *job, const BbmRange *sub_batch)
{
	Bisection	bisection = {
		target, partition, job, 0,
		target->shard ? bbm_shard_errors_count(target->shard) : bbm_errors_count(job->migration_id)
	};
	BbmRange	rest = {job->has_cursor ? job->cursor : job->min, job->max, job->key_count};

	if (sub_batch == NULL)
		bisect_keys(&bisection, &rest, job->has_cursor);
	else
		bisect(&bisection, sub_batch);
	return bisection.rows;
}
