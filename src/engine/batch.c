/*-------------------------------------------------------------------------
 *
 * batch.c
 *		The second transaction of a job: the batch and its record.
 *
 * NOTES
 *	  The transaction first locks the job's row, and only if the row still
 *	  carries the claim_epoch of our claim.  From then on nobody can take the
 *	  job over, and if somebody did before, we change nothing.  The batch, the
 *	  record that it is done and the row's lock end in the same commit: this
 *	  alone makes a batch run exactly once.  A pause, a DELETE of the migration
 *	  or another claim may come at any moment; a pause lets the batch end, and
 *	  a DELETE waits for it.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/batch.h"

#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/cancel.h"
#include "base/clock.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/txn.h"
#include "catalog/claims.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/job_progress.h"
#include "catalog/job_record.h"
#include "catalog/shard_errors.h"
#include "catalog/shards.h"
#include "engine/bisect.h"
#include "engine/claim.h"
#include "engine/outcome.h"
#include "engine/outside.h"
#include "engine/run_range.h"
#include "engine/verify.h"
#include "strategy/resolve.h"
#include "target/bound.h"
#include "target/hierarchy.h"
#include "target/key.h"
#include "target/lockset.h"
#include "target/partition.h"
#include "target/relation.h"
#include "target/rights.h"
#include "target/size.h"
#include "target/target.h"
#include "throttle/pacing.h"

/* How often, at most, the time limit of a batch that cannot be made smaller is doubled. */
#define BBM_MOST_DOUBLINGS 6

/*
 * What a walk along so many keys of the rest of the job finds, by the marks that
 * its claim has left.  Keys may have come since: any number of them beyond the
 * last one that the claim has seen.  What sub_batch_size demands is exact, so it
 * must be impossible then that more fit in, as it is not where rows share a key.
 * Returns false where only a walk can tell.
 */
static bool
sub_batch_of_marks(const BbmWork *work, const BbmRange *rest, int size, BbmRange *sub_batch)
{
	const BbmMarks *marks = work->job->marks;
	int64		from = rest->min.number + (work->job->has_cursor ? 1 : 0);
	int64		done;
	int			next = 0;
	int			last = -1;

	if (marks == NULL || from > rest->max.number)
		return false;
	while (next < marks->n && marks->keys[next] < from)
		next++;
	done = next > 0 ? bbm_keys_to_mark(marks, next - 1) : 0;
	*sub_batch = *rest;
	sub_batch->min.number = from;
	sub_batch->key_count = Max(rest->key_count - done, 0);
	if (sub_batch->key_count > size)
	{
		for (int i = next; i < marks->n && bbm_keys_to_mark(marks, i) - done <= size; i++)
			last = i;
		if (last < 0 || marks->keys[last] >= rest->max.number)
			return false;
		sub_batch->max.number = marks->keys[last];
		sub_batch->key_count = bbm_keys_to_mark(marks, last) - done;
	}
	else if (marks->is_open)
		return false;
	return work->target->migration->sub_batch_size == 0 ||
		(marks->unique && (uint64) sub_batch->max.number - (uint64) from < (uint64) size);
}

/*
 * Determines what of the job this transaction is to do; sub_batch->key_count is 0
 * when nothing of the job is left.  *batch_size is how many rows a job without
 * a range may process.  Returns true if there is more.
 */
static bool
next_sub_batch(const BbmWork *work, BbmPartition *partition, BbmRange *sub_batch, int *batch_size)
{
	BbmJob	   *job = work->job;
	BbmTarget  *target = work->target;
	BbmRange	rest = {job->has_cursor ? job->cursor : job->min, job->max, job->key_count};
	int			reduced = bbm_size_of_sub_batch(0, job->reduced_sub_batch_size, target->reduced_sub_batch_size);
	int			size = bbm_size_of_sub_batch(bbm_commit_size(target, job), reduced, 0);
	bool		by_number = (target->key.is_integer || target->strategy->table_scans) && job->kind != BBM_JOB_REPAIR;

	/* a function gets the size of this commit, which may have more rows, as those that share a key are not separated */
	*batch_size = size > 0 ? Min(size, Max(bbm_job_size(target, job), rest.key_count)) : bbm_job_size(target, job);
	job->ran_size = target->strategy->one_at_a_time ? *batch_size : (int) Max(Min(rest.key_count, INT_MAX), 1);
	/* a user's job processes each row of its range, so a range is one key */
	if (job->kind == BBM_JOB_REPAIR)
		size = target->form == BBM_JOB_COMPOSED ? bbm_size_of_sub_batch(size, bbm_job_size(target, job), 0) : 1;
	/* nobody has counted the keys of what was quarantined */
	if (target->strategy->one_at_a_time || (size <= 0 && !job->has_cursor && job->kind != BBM_JOB_RETRY))
	{
		*sub_batch = rest;
		if (target->strategy->one_at_a_time)
			sub_batch->key_count = *batch_size;
		*batch_size = Max(*batch_size, job->ran_size);
		return false;
	}
	size = size > 0 ? size : PG_INT32_MAX;
	if (!sub_batch_of_marks(work, &rest, size, sub_batch))
		target->strategy->first_sub_batch(target, partition, &rest, job->has_cursor, size, sub_batch);
	job->ran_size = (int) Max(Min(sub_batch->key_count, INT_MAX), 1);
	*batch_size = Max(*batch_size, job->ran_size);
	if (by_number)
		return sub_batch->max.number < job->max.number;
	return sub_batch->key_count >= size;
}

/*
 * SPI, or a statement, leaves us in a memory context that ends with the
 * transaction; the cursor must outlive it.
 */
static BbmBound
keep_cursor(const BbmWork *work, const BbmBound *reached)
{
	MemoryContext old = MemoryContextSwitchTo(work->context);
	BbmBound	cursor = bbm_bound_copy(reached);

	MemoryContextSwitchTo(old);
	return cursor;
}

/*
 * Is the migration still to run, and as it was when it was read?  A job of several commits checks this before
 * each of them, and so does a job that was claimed before a pacing pause.  The
 * check takes the migration's lock for a moment, so that it waits for a
 * transaction that has paused the migration and waits for us: after
 * lock_timeout, the job is released.  A DELETE that waits for our row's lock
 * deadlocks with us, and we are the victim: the job is requeued.
 */
static bool
still_running(const BbmWork *work)
{
	int64		id = work->job->migration_id;
	bool		running;

	bbm_lock_migration(bbm_lock_class(), id);
	running = bbm_claim_is_running(id, work->target->migration->updated_at);
	bbm_unlock_migration(bbm_lock_class(), id);
	return running;
}

/* The partition that the job belongs to, with its plan; NULL when it is not part of the table any more. */
BbmPartition *
bbm_work_partition(const BbmWork *work)
{
	BbmTarget  *target = work->target;
	const BbmJob *job = work->job;
	bool		of_partition = target->per_partition && job->relation_name;
	/*
	 * A range from before the table had a child table is the table's own; in a
	 * later phase it covers all partitions.  So does one of these that was
	 * quarantined and is tried again; the filter shows what is done.
	 */
	BbmPartition *partition = !of_partition &&
		(!bbm_phase_is(job->phase, BBM_WORK(1)) || (target->rounds && target->strategy->has_key)) ?
		bbm_partitions_open_as_one(target) :
		bbm_partition_open(target, of_partition ? job->relation : target->relid);

	if (partition == NULL && !of_partition)
		bbm_table_is_gone(target->migration->table_name);
	return partition;
}

/*
 * Adapts the size of the next sub-batch to the measurements of this one.  With
 * a sub_batch_size the size that is adapted is that of jobs, to what a job has
 * cost as a whole.
 */
static void
adapt(BbmWork *work, bool more)
{
	BbmTarget  *target = work->target;
	int			full = target->migration->sub_batch_size;
	int			reduced = bbm_size_of_sub_batch(0, work->job->reduced_sub_batch_size, target->reduced_sub_batch_size);
	BbmSizeLimits limits;

	work->new_ms += work->cost.ms;
	work->new_wal += work->cost.wal;
	/* a job that has failed does not try a larger size again, which could cost it another attempt */
	work->next_size = work->job->attempts > 1 ? reduced :
		bbm_size_after_success(reduced, full > 0 ? full : Max(work->job->batch_size, 1));
	if ((more && full > 0) || !bbm_size_is_adaptive(target->migration) || work->job->bisect ||
		work->job->kind != BBM_JOB_RANGE || work->job->phase.verifies)
		return;
	bbm_size_limits(target, &limits);
	/* the job was taken over, and this process has not allocated a range yet */
	if (target->sizing.size == 0)
		bbm_sizing_start(&target->sizing, &limits, bbm_job_size(target, work->job));
	bbm_sizing_adapt(&target->sizing, &limits, work->new_keys, work->new_ms, work->new_wal);
	work->new_keys = 0;
	work->new_ms = work->new_wal = 0;
	if (bbm_commit_size(target, work->job) > 0 && full == 0)
		work->job->batch_size = target->sizing.size;
}

/*
 * Checks that what the batch read and wrote under the table's name is the
 * table that the job's range was allocated from.  It was so before the batch;
 * the job itself, or a rename of the schema, which waits for no batch, may
 * have changed that.  Then the batch is rolled back, and the next claim finds
 * out what the name means now.
 */
static void
check_still_named(const BbmTarget *target, const BbmPartition *partition)
{
	if (bbm_target_is_named(target) && bbm_partition_is_named(partition))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("table %s was renamed while a batch ran", partition->name),
			 errdetail("The batch may have met another table of that name, and is undone."),
			 errhint("It is tried again, with the name that the table has then.")));
}

/*
 * Checks that the statement has checked the keys of the rows, if a trigger
 * could change them.  Where all partitions are worked on as one table, the
 * statement itself may be the first to lock one of them, and so wait for the
 * session that creates the trigger.
 */
static void
check_triggers(BbmTarget *target, const BbmPartition *partition)
{
	if (!bbm_rights_are_stale(target) ||
		partition->checks_key == bbm_could_change_key(target, partition->relid, partition->as_one_table))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("table %s got or lost a trigger while a batch waited for it", partition->name),
			 errdetail("A trigger may change the batching key, which the batch did not check; it is undone."),
			 errhint("It is tried again, with the triggers that the table has then.")));
}

/*
 * Counts the rows that a verification job covers: a whole table, or the
 * portion of its range that this transaction is to do.  Returns true if more
 * is left.
 */
static bool
verify(BbmWork *work, BbmRange *sub_batch)
{
	BbmTarget  *target = work->target;
	BbmJob	   *job = work->job;
	bool		by_check;
	bool		more = false;
	BbmPartition *partition;
	int			batch_size;

	target->repairs = BBM_REPAIRS_NONE;
	/* a job from before the migration was restarted: its result is not needed any more */
	if (bbm_phase_precedes(job->phase, target->migration->phase) || !bbm_has_condition(target))
		return false;
	if (target->strategy->table_scans)
	{
		work->cost.rows = bbm_check_all(target, job->phase.round);
		return false;
	}
	partition = bbm_work_partition(work);
	work->detached = partition == NULL;
	if (partition == NULL)
		return false;
	by_check = bbm_verifies_by_check(target, job->phase.round);
	if (!bbm_verifies_whole(target, job))
		more = next_sub_batch(work, partition, sub_batch, &batch_size);
	/* a range of numbers that had no keys may have got one since */
	if (target->strategy->has_key && sub_batch->key_count == 0 && !target->key.is_integer)
		return more;
	bbm_partitions_snapshot(partition->relid, BBM_READ_LOCK);
	work->cost.rows = bbm_verify_range(target, partition, sub_batch, by_check);
	PopActiveSnapshot();
	check_still_named(target, partition);
	return more;
}

/*
 * The partition of the job is not part of the table any more.  What was
 * quarantined in it stays so, until another bbm_retry, unless it was dropped.
 * The rest of a job that was begun needs a first key, which only an integer has
 * without the table.  Any other job is done when the partition is back.
 */
static void
leave_detached(BbmWork *work)
{
	const BbmMigration *migration = work->target->migration;
	const BbmJob *job = work->job;
	BbmBound	min = job->min;
	ErrorData  *error;

	ereport(LOG,
			(errmsg("migration \"%s\": job " INT64_FORMAT " has nothing to do, as table %s no longer belongs to \"%s\"",
					bbm_printable(migration->name), job->id, bbm_printable(job->relation_name),
					bbm_printable(migration->table_name))));
	work->detached = job->kind != BBM_JOB_RETRY || get_rel_relkind(job->relation) == '\0' ||
		(job->has_cursor && !work->target->key.is_integer);
	if (work->detached)
		return;
	if (job->has_cursor)
		min.number = job->cursor.number + 1;
	error = bbm_make_error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   psprintf("table %s no longer belongs to \"%s\"", job->relation_name, migration->table_name),
						   "Attach it, or drop it, then call bbm_retry again.");
	error->detail = pstrdup("So what is quarantined in it was not tried again.");
	bbm_error_add(job, &min, &job->max, error);
}

/* Runs one sub-batch of the job.  Returns true if more is left. */
static bool
run_sub_batch(BbmWork *work, BbmRange *sub_batch)
{
	BbmTarget  *target = work->target;
	const BbmJob *job = work->job;
	BbmPartition *partition;
	bool		more = false;
	int			batch_size;

	*sub_batch = (BbmRange) {job->min, job->max, 0};
	work->cost.rows = work->cost.keys = 0;
	if (job->phase.verifies)
		return verify(work, sub_batch);
	if (job->kind == BBM_JOB_REPAIR && !bbm_has_condition(target))
		return false;
	target->repairs = job->kind != BBM_JOB_REPAIR ? BBM_REPAIRS_NONE :
		bbm_verifies_by_check(target, job->phase.round - 1) ? BBM_REPAIRS_CHECK : BBM_REPAIRS_FILTER;
	partition = bbm_work_partition(work);
	if (partition == NULL)
		leave_detached(work);
	else if (job->kind == BBM_JOB_REPAIR && !job->has_cursor)
		bbm_quarantine_end(target, partition, job);
	if (partition && job->bisect && job->kind == BBM_JOB_REPAIR && target->form != BBM_JOB_COMPOSED)
		work->cost.rows = bbm_bisect(target, partition, job, NULL);
	else if (partition)
	{
		more = next_sub_batch(work, partition, sub_batch, &batch_size);
		if (job->has_cursor)
			bbm_bound_replace(&work->job->ran_from, keep_cursor(work, &sub_batch->min));
		work->job->ran_from_known = true;
		work->keys += sub_batch->key_count;
		work->new_keys += sub_batch->key_count;
		work->cost.keys = target->strategy->has_key ? sub_batch->key_count : 0;
		/* a range that had no keys may have got one since */
		if (sub_batch->key_count > 0 || (target->key.is_integer && job->kind != BBM_JOB_REPAIR))
			work->cost.rows = job->bisect ? bbm_bisect(target, partition, job, sub_batch) :
				bbm_run_range(target, partition, sub_batch, batch_size);
	}
	if (partition)
	{
		check_still_named(target, partition);
		check_triggers(target, partition);
	}
	return more;
}

/* The same, measured; the sizes of the following sub-batches depend on the measurements. */
static bool
run_sub_batch_measured(BbmWork *work, BbmRange *sub_batch)
{
	double		start = bbm_clock_ms();
	int64		wal = pgWalUsage.wal_bytes;
	bool		more = run_sub_batch(work, sub_batch);

	bbm_lockset_end();
	BBM_POINT_BETWEEN("batch-ran");
	/* the work is done: what remains takes no longer than a rollback */
	bbm_lock_watch_end();
	work->cost.ms = bbm_clock_ms() - start;
	work->cost.wal = pgWalUsage.wal_bytes - wal;
	adapt(work, more);
	return more;
}

/*
 * Is the table what the target was resolved for?  Somebody may have changed it
 * since the claim.  The check first locks the table (or the partition), and
 * everything else that the batch is known to lock, so that it stays as it is.
 * This holds for a function, too, of which nobody knows what it does to the
 * table.
 */
static bool
is_current(const BbmWork *work)
{
	BbmTarget  *target = work->target;
	const BbmJob *job = work->job;
	Oid			relid = target->per_partition && job->relation_name ? job->relation : target->relid;

	if (job->phase.verifies)
		LockRelationOid(relid, BBM_READ_LOCK);
	else
		bbm_lockset_take(target, relid);
	return bbm_target_is_current(target);
}

/*
 * How long the batch may take.  A batch that cannot be made smaller would be
 * requeued at the same point each time; so its time limit doubles after each
 * requeue, up to a bound.
 */
static int
time_limit(const BbmWork *work)
{
	int			limit = bbm_setting_int(work->target->migration, BBM_MAX_BATCH_TIME);
	int			times = Min(work->job->no_progress / BBM_NO_PROGRESS_BY_ITSELF, BBM_MOST_DOUBLINGS);

	if (!bbm_verifies_whole(work->target, work->job))
		return limit;
	return (int) Min((int64) limit << times, INT_MAX);
}

/*
 * Does the job begin after everything that the shard's record says is done?
 * It does, unless somebody has changed our tables on this node; then rows must
 * not be done again.  What is tried again is in the record by itself; what was
 * found by verification is still to be done, or it is not found again.
 */
static void
check_follows_record(const BbmWork *work)
{
	const BbmKey *key = &work->target->key;
	const BbmShard *shard = work->target->shard;
	const BbmBound *from = work->job->has_cursor ? &work->job->cursor : &work->job->min;
	int			order;

	if (!shard->has_cursor || work->job->kind != BBM_JOB_RANGE || work->job->phase.verifies)
		return;
	order = bbm_key_compare_bounds(key, from, &shard->cursor);
	if (order < 0 || (order == 0 && !work->job->has_cursor))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " would do again what is done in shard " INT64_FORMAT, work->job->id, shard->id),
				 errdetail("The record of the shard is ahead of the jobs on this node."),
				 errhint("Drop migration \"%s\" on this node: the coordinator makes it anew from the record.",
						 work->target->migration->name)));
}

/*
 * If the table is a shard of a distributed one: keeps it here for this
 * transaction, and locks its record.  False when it is somewhere else, or not
 * to be worked on now.
 */
static bool
enter_shard(BbmWork *work)
{
	if (work->target->shard == NULL)
		return true;
	if (bbm_shard_enter(work->target->shard) != BBM_SHARD_OURS)
		return false;
	check_follows_record(work);
	return true;
}

/*
 * Records in the shard that everything up to this key is done, of the job or
 * (not "more") with it.  What verification has found needs no cursor: the
 * condition by which it was found tells what is left.
 */
static void
note_in_shard(BbmWork *work, const BbmRange *sub_batch, bool more)
{
	const BbmJob *job = work->job;
	const BbmShard *shard = work->target->shard;

	if (shard == NULL)
		return;
	if (!bbm_shard_reads_are_here(work->target->shard))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a table that the statement of migration \"%s\" reads has left while a batch ran",
						work->target->migration->name),
				 errdetail("Its shard is not beside shard " INT64_FORMAT " any more.", work->target->shard->id),
				 errhint("The batch is undone, and tried again where both are.")));
	if (job->phase.verifies)
		return;
	if (job->kind == BBM_JOB_RETRY)
		bbm_shard_retry_note(shard, &job->min, &job->max, more ? &sub_batch->max : NULL, work->cost.rows);
	else if (job->kind == BBM_JOB_REPAIR)
		bbm_shard_repairs(work->target->shard, true, work->cost.rows);
	else
		bbm_shard_note(work->target->shard, more ? &sub_batch->max : &job->max, work->cost.rows, sub_batch->key_count);
}

/* Locks the job, and what the batch needs.  False when the batch is not to be done; then work->result says why. */
static bool
may_begin(BbmWork *work)
{
	if (!bbm_job_lock(work->job))
	{
		work->result = BBM_WORK_LOST;
		return false;
	}
	BBM_POINT("batch-locked");
	if (work->waited || work->job->has_cursor)
	{
		/* this also decides what to make of an error here: the lock was not acquired in time */
		work->result = BBM_WORK_PAUSED;
		if (!still_running(work))
			return false;
		if (work->job->has_cursor && bbm_slice_is_over(work->target))
		{
			work->result = BBM_WORK_SLICE_OVER;
			return false;
		}
		work->result = BBM_WORK_SUB_BATCH;
	}
	/* whoever moves a shard locks it before the table, and so do we */
	if (!enter_shard(work))
	{
		work->result = BBM_WORK_ELSEWHERE;
		return false;
	}
	if ((work->target->shard == NULL || bbm_shard_reads_are_here(work->target->shard)) && is_current(work))
		return true;
	work->result = BBM_WORK_STALE;
	return false;
}

void
bbm_work(void *arg)
{
	BbmWork    *work = arg;
	BbmRange	sub_batch;
	bool		more;

	work->job->ran_size = 0;
	work->job->ran_from_known = !work->job->has_cursor;
	bbm_lock_watch_begin(bbm_setting_int(work->target->migration, BBM_MAX_BLOCKING_TIME), time_limit(work));
	BBM_POINT("batch-begin");
	if (!may_begin(work))
		return;
	BBM_POINT("batch-statement");
	work->detached = false;
	bbm_outside_begin();
	more = run_sub_batch_measured(work, &sub_batch);
	work->outside = bbm_outside_end();
	/*
	 * The job may have released all advisory locks.  What is left of it, or a
	 * job that is claimed along, must not seem to be nobody's when we have
	 * committed, and its row is not locked any more.
	 */
	bbm_worker_id_keep(bbm_lock_class(), work->next->worker_id);
	bbm_pacing_check_locks();
	/* what was done outside survives a crash of this server, and so must its record */
	if (work->outside)
	{
		bbm_txn_flush();
		ereport(DEBUG1,
				(errmsg_internal("the batch may have reached outside of this server by %s, so its commit is flushed",
								 bbm_outside_to_string())));
	}
	BBM_POINT("batch-done");
	if (!more)
	{
		note_in_shard(work, &sub_batch, false);
		bbm_job_finish(work->job, &work->cost, work->detached);
		work->result = BBM_WORK_FINISHED;
		BBM_POINT("batch-recorded");
		/*
		 * Such a commit may take long, and if it contained a claim, a pause
		 * would wait for it.  After rows of a shard that were quarantined there
		 * may be others to try again, and those come before the next range: bbm_claim sees to that.
		 */
		if (!work->outside && (work->target->shard == NULL || work->job->kind == BBM_JOB_RANGE) &&
			work->may_go_on(work->arg))
			bbm_claim_next(work->next);
	}
	else
	{
		note_in_shard(work, &sub_batch, true);
		bbm_job_progress(work->job, &sub_batch.max, work->next_size, &work->cost);
		work->next_cursor = keep_cursor(work, &sub_batch.max);
		work->result = BBM_WORK_SUB_BATCH;
		BBM_POINT("batch-recorded");
	}
}

/*
 * Runs a whole claimed job in the caller's transaction, which is not going to
 * commit; the job's usual commits do not take place.  Returns how many rows
 * the job says it has changed; work->keys is how many keys it had.  Raises the
 * errors that the job raises.
 */
int64
bbm_work_whole(BbmWork *work)
{
	BbmJob	   *job = work->job;
	int64		rows = 0;
	BbmRange	sub_batch;
	bool		more = true;

	work->detached = false;
	bbm_outside_begin();
	while (more)
	{
		bbm_lock_watch_begin(bbm_setting_int(work->target->migration, BBM_MAX_BLOCKING_TIME),
							 bbm_setting_int(work->target->migration, BBM_MAX_BATCH_TIME));
		if (!bbm_job_lock(job) || !is_current(work))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" was changed meanwhile", work->target->migration->table_name),
					 errdetail("It is verified in one transaction, and is another one now than when that began."),
					 errhint("Try again.")));
		more = run_sub_batch_measured(work, &sub_batch);
		rows = bbm_add_counts(rows, work->cost.rows);
		if (!more)
			break;
		bbm_job_progress(job, &sub_batch.max, work->next_size, &work->cost);
		bbm_bound_replace(&job->cursor, keep_cursor(work, &sub_batch.max));
		job->has_cursor = true;
	}
	work->outside = bbm_outside_end();
	bbm_job_finish(job, &work->cost, work->detached);
	return rows;
}
