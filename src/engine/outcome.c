/*-------------------------------------------------------------------------
 *
 * outcome.c
 *		What becomes of a migration or a job, and recording it.
 *
 * NOTES
 *	  A batch that succeeds is recorded in its own transaction, by batch.c.
 *	  This file has the third transaction of a job, which runs after the second
 *	  was rolled back.  Between the two another worker may find the job running
 *	  and its worker alive, and then leaves the job alone; or it finds the
 *	  worker gone and takes the job over, after which the record here finds its
 *	  claim_epoch stale and writes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/outcome.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/blockers.h"
#include "base/cancel.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_event.h"
#include "base/wait_state.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/job_record.h"
#include "catalog/migrations.h"
#include "catalog/shard_errors.h"
#include "catalog/shards.h"
#include "engine/error_class.h"
#include "engine/verify.h"
#include "strategy/resolve.h"
#include "target/key.h"
#include "target/key_order.h"
#include "target/size.h"
#include "target/target.h"

#define BBM_SMALLEST_SUB_BATCH 1
/* How often a process tries to write the outcome of a job, with pauses that double: half a minute in all. */
#define BBM_RECORD_TRIES 30
/* ... in a process that somebody waits for: about a second */
#define BBM_RECORD_TRIES_LEAVING 5
#define BBM_FIRST_RECORD_MS 50
#define BBM_LAST_RECORD_MS 1000
#define BBM_LINES_IN_ROW 8
#define BBM_FIRST_REQUEUE_MS 100
#define BBM_LAST_REQUEUE_MS (30 * 1000)

/* The rules for users; the engine checks its own transitions where it makes them. */
BbmTransition
bbm_transition(BbmStatus from, int to)
{
	if (to != BBM_PAUSED && to != BBM_ACTIVE)
		return to == (int) from ? BBM_KEEP : BBM_REFUSE;
	if (from == BBM_FINISHED)
		return BBM_KEEP_FINISHED;
	/* a running migration that is started keeps running */
	if ((int) from == to || (from == BBM_RUNNING && to == BBM_ACTIVE))
		return BBM_KEEP;
	return BBM_CHANGE;
}

/*
 * Determines what has to be known to start a migration, where it was not given
 * or determined before: how much there is to do, and the bounds of its key.
 * Needs a transaction and SPI; the bounds are in the caller's context.
 */
void
bbm_prepare_start(BbmTarget *target, BbmStart *start)
{
	const BbmMigration *migration = target->migration;

	memset(start, 0, sizeof(BbmStart));
	if (migration->total < 0)
		start->estimate = bbm_target_estimate(target);
	if (!target->key.is_integer && !DatumGetPointer(migration->max.key))
		(void) bbm_target_bounds(target, &start->min, &start->max);
}

/* Changes active to running.  Caller has bbm_migration_lock, and has checked the status. */
void
bbm_record_started(const BbmTarget *target, const BbmStart *start)
{
	bbm_migration_set_started(target->migration->id, start->estimate, target->relid, &start->min, &start->max,
							  bbm_key_order_to_string(&target->key), target->order);
}

typedef struct FailArgs
{
	const BbmMigration *migration;
	int			code;
	ErrorData  *error;
	bool		failed;
} FailArgs;

/*
 * The row's lock keeps users' changes out until we commit.  Here we see a
 * change that has committed since the row was read with which the error was
 * met; then the error says nothing about the migration as it is now.
 */
static void
fail_migration(void *arg)
{
	FailArgs   *args = arg;
	BbmStatus	status;
	bool		as_read;

	BBM_POINT("fail-begin");
	as_read = bbm_migration_lock_as_read(args->migration, &status);
	BBM_POINT("fail-locked");
	args->failed = as_read && (status == BBM_ACTIVE || status == BBM_RUNNING);
	if (!args->failed)
		return;
	bbm_migration_fail(args->migration->id, args->code, args->error);
	/* not undone by a crash; but the row's lock must not be held until a standby answers, which may be away */
	ForceSyncCommit();
}

/*
 * Fails a migration with an error that was met with its row as given.  Returns
 * false when this could not be written now (for example, because a transaction
 * that controls the migration holds the row's lock); the next process that
 * works on it meets the same error.
 */
bool
bbm_record_migration_failed(const BbmMigration *migration, int code, ErrorData *error)
{
	const char *name = migration->name;
	FailArgs	args = {migration, code, error, false};
	ErrorData  *trouble = bbm_txn_run(fail_migration, &args, migration->synchronous);

	if (trouble)
	{
		(void) bbm_trouble_met(migration->id, migration->owner, name, trouble, bbm_error_is_lock(trouble->sqlerrcode),
							   false);
		return false;
	}
	bbm_trouble_over(migration->id, migration->owner, name, true);
	if (args.failed)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("migration \"%s\" failed: %s", bbm_printable(name), bbm_printable(error->message)),
				 error->detail ? errdetail_internal("%s", bbm_printable(error->detail)) : 0,
				 error->hint ? errhint("%s", bbm_printable(error->hint)) : 0));
	bbm_state_changed();
	return true;
}

typedef struct JobArgs
{
	const BbmTarget *target;
	BbmJob	   *job;
	ErrorData  *error;
	int			code;
	BbmRequeueReason requeue;	/* 0: it has failed */
	TimestampTz due;
	bool		ours;
	bool		unstarted;		/* no batch of it was rolled back */
	bool		bisect;			/* the next attempt quarantines rows */
	bool		skip;			/* all that is left of the range is quarantined now */
} JobArgs;

/*
 * Quarantines all that is left of the job.  Of a shard, the record says that it
 * was passed over, so that no other node does it: the job's row is locked before
 * the record, as by a batch, and a pause that has committed meanwhile is no
 * obstacle.  If the shard has left, the node that has it now tries the range
 * again.
 */
static bool
skip_job(JobArgs *args)
{
	const BbmJob *job = args->job;
	BbmShard   *shard = args->target->shard;
	const BbmBound *min = job->has_cursor ? &job->ran_from : &job->min;

	if (shard && (!bbm_job_lock(args->job) || bbm_shard_enter(shard) == BBM_SHARD_GONE))
		return false;
	/* several processes at once may quarantine a few more */
	if ((shard ? bbm_shard_errors_count(shard) : bbm_errors_count(job->migration_id)) >=
		args->target->migration->max_errors)
	{
		args->skip = false;
		return bbm_job_fail(job, args->code, args->error, args->due, false);
	}
	if (!bbm_job_skip(job))
		return false;
	bbm_error_add(job, min, &job->max, args->error);
	if (shard == NULL)
		return true;
	bbm_shard_error_add(shard, min, &job->max, args->error);
	if (job->kind == BBM_JOB_RETRY)
		bbm_shard_retry_note(shard, &job->min, &job->max, NULL, 0);
	else if (job->kind == BBM_JOB_RANGE)
		bbm_shard_note(shard, &job->max, 0, job->has_cursor ? job->ran_size : job->key_count);
	return true;
}

/*
 * One statement, which checks claim_epoch itself; or several, of which the first
 * locks the row, so that nobody takes the job over between them.
 */
static void
record_job(void *arg)
{
	JobArgs    *args = arg;

	BBM_POINT(args->unstarted ? "release-begin" : args->requeue ? "requeue-begin" : "failure-begin");
	if (args->unstarted)
		args->ours = bbm_job_release_unstarted(args->job);
	else if (args->skip)
		args->ours = skip_job(args);
	else if (args->requeue)
		args->ours = bbm_job_requeue(args->job, args->requeue, args->error, args->due);
	else
		args->ours = bbm_job_fail(args->job, args->code, args->error, args->due, args->bisect);
}

static bool
is_transient(const ErrorData *error)
{
	return error && bbm_error_class(error) == BBM_ERROR_TRANSIENT;
}

/* Between two tries; a server shutdown, or another cancel by the user, ends the wait. */
static void
pause_before(int try)
{
	bbm_sleep(Min(BBM_FIRST_RECORD_MS << Min(try, 8), BBM_LAST_RECORD_MS), BBM_WAIT_RECORD);
	/* what a cancel of a worker is to end has ended: it must not leave the job unrecorded */
	if (bbm_txn_in_worker())
		QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
}

/*
 * Writes the job.  After a transient error (another cancel, a lock, a full
 * disk) the write is retried, since an attempt that did not count must not
 * begin to count because of that error.  If the error persists, the job stays
 * as it is, running and ours: the first claim that succeeds again requeues it
 * (engine/claim.c).  Any other error ends this process and makes the job an
 * orphan.
 */
static bool
write_job(const BbmTarget *target, JobArgs *args)
{
	const BbmMigration *migration = target->migration;
	ErrorData  *trouble = bbm_txn_run(record_job, args, false);

	/* the next cancel would only have the same effect */
	if (trouble)
		QueryCancelPending = false;
	for (int i = 0; is_transient(trouble); i++)
	{
		BbmReason	reason;

		if (i >= (bbm_slot_must_exit() ? BBM_RECORD_TRIES_LEAVING : BBM_RECORD_TRIES))
			break;
		reason = bbm_reason(bbm_error_to_string(trouble),
							bbm_trouble_met(migration->id, migration->owner, migration->name, trouble,
											bbm_error_is_lock(trouble->sqlerrcode), true));
		bbm_slot_wait(&reason);
		pause_before(i);
		trouble = bbm_txn_run(record_job, args, false);
	}
	bbm_slot_wait(NULL);
	/* a shard that could not be entered is being moved: that is no fault of the job, either */
	if (trouble && (bbm_shard_not_entered() || is_transient(trouble) || !bbm_extension_is_here()))
		return false;
	if (trouble)
		ThrowErrorData(trouble);
	bbm_batch_ended();
	return args->ours;
}

/* Of repeated failures the first few are logged, and then ever fewer. */
static bool
is_worth_a_line(int n)
{
	return n <= BBM_LINES_IN_ROW || (n & (n - 1)) == 0;
}

/* The delay grows with the number of requeues since the last progress, whatever they were for. */
static TimestampTz
requeue_until(const BbmJob *job)
{
	int64		delay = bbm_backoff_ms(Min(job->requeues_in_row, PG_INT16_MAX) + 1, BBM_FIRST_REQUEUE_MS,
									   BBM_LAST_REQUEUE_MS, pg_prng_double(&pg_global_prng_state));

	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}

/* When a job that has failed is tried again. */
static TimestampTz
retry_at(const BbmTarget *target, const BbmJob *job)
{
	int64		delay = bbm_backoff_ms(job->attempts, bbm_setting_int(target->migration, BBM_RETRY_DELAY),
									   bbm_setting_int(target->migration, BBM_RETRY_MAX_DELAY),
									   pg_prng_double(&pg_global_prng_state));

	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}

static void
log_requeue(const BbmTarget *target, const BbmJob *job, const ErrorData *error)
{
	const char *lock = bbm_blockers_of(error);
	int			n = target->requeues_in_row;

	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("migration \"%s\": requeued job " INT64_FORMAT ": %s",
					bbm_printable(target->migration->name), job->id, bbm_printable(error->message)),
			 lock && n > 1 ?
			 errdetail("It waited for %s. It is number %d in a row; not each has a line.", bbm_printable(lock), n) :
			 lock ? errdetail("It waited for %s.", bbm_printable(lock)) :
			 n > BBM_LINES_IN_ROW ? errdetail("It is number %d in a row; not each has a line.", n) : 0));
}

/*
 * Requeues a batch that was rolled back, without counting an attempt.  Shows
 * for whom it has waited before anything else is tried.
 */
static void
requeue(BbmTarget *target, BbmJob *job, BbmRequeueReason why, ErrorData *error, TimestampTz due)
{
	JobArgs		args = {.target = target, .job = job, .error = error, .requeue = why, .due = due};
	const BbmMigration *migration = target->migration;
	bool		is_known = bbm_blockers_of(error) != NULL;
	bool		report = is_known && bbm_trouble_blocked(migration->id, migration->owner, error);

	if (!write_job(target, &args))
		return;
	target->requeues_in_row++;
	if (is_known ? report : is_worth_a_line(target->requeues_in_row))
		log_requeue(target, job, error);
}

/*
 * Releases a job of which no batch is in flight: it was claimed before a pacing
 * pause and may not start after it, or the process stops between two
 * sub-batches.  No batch is rolled back, so this is no requeue: the rest of the
 * job is as if its range had only been allocated.
 */
void
bbm_record_release_unstarted(BbmTarget *target, BbmJob *job)
{
	JobArgs		args = {.target = target, .job = job, .unstarted = true};

	(void) write_job(target, &args);
}

/* The table is not what it was when the job was claimed: so the job is claimed again. */
void
bbm_record_stale(BbmTarget *target, BbmJob *job)
{
	requeue(target, job, BBM_REQUEUE_OTHER,
			bbm_make_error(ERRCODE_QUERY_CANCELED, "the table has changed", NULL), GetCurrentTimestamp());
}

/*
 * May rows that cannot be processed be quarantined, so that the others are done?
 * To skip a job that has committed a part, it must be known where the rest
 * begins: what is done must not be done again with what is quarantined.
 */
static bool
may_quarantine(const BbmTarget *target, const BbmJob *job)
{
	return target->migration->on_error != BBM_ON_ERROR_FAIL && !job->bisect && !job->phase.verifies &&
		(target->migration->on_error != BBM_ON_ERROR_SKIP || job->ran_from_known);
}

/*
 * Replaces the error that a batch ended with after its own process had stopped
 * it: the cancel, or what a job that caught the cancel made of it.
 */
ErrorData *
bbm_stop_error(BbmLockWatchStop stop, ErrorData *error, bool whole)
{
	ErrorData  *stopped = stop == BBM_STOP_BLOCKING ?
		bbm_make_error(ERRCODE_QUERY_CANCELED, "other sessions waited too long for locks of the batch",
					   "\"bbm.max_blocking_time\" is the limit. A smaller batch_size or sub_batch_size keeps locks for less time.") :
		whole ? bbm_make_error(ERRCODE_QUERY_CANCELED, "the check of the whole table took too long",
							   "\"bbm.max_batch_time\" is the limit. The next time it has twice as long.") :
		bbm_make_error(ERRCODE_QUERY_CANCELED, "the batch took too long",
					   "\"bbm.max_batch_time\" is the limit. A smaller batch_size or sub_batch_size takes less time.");

	stopped->context = error->context;
	if (bbm_blockers_of(error))
		bbm_blockers_name(stopped, error->detail);
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED)
		stopped->detail = psprintf("The batch ended with: %s", error->message);
	return stopped;
}

static BbmRequeueReason
why_back(BbmLockWatchStop stop, const ErrorData *error)
{
	if (stop != BBM_STOP_NONE)
		return stop == BBM_STOP_BLOCKING ? BBM_REQUEUE_BLOCKING : BBM_REQUEUE_TIME;
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return BBM_REQUEUE_LOCK_TIMEOUT;
		case ERRCODE_T_R_DEADLOCK_DETECTED:
			return BBM_REQUEUE_DEADLOCK;
		case ERRCODE_QUERY_CANCELED:
			/* another server has such a limit, or the job itself */
			return bbm_error_is_cancel(error) ? BBM_REQUEUE_CANCELLED : BBM_REQUEUE_TIME;
		default:
			return BBM_REQUEUE_OTHER;
	}
}

/* Halves the size limit of the job's next batch, and of this process's. */
static void
halve(BbmTarget *target, BbmJob *job)
{
	if (job->ran_size <= 0)
		return;
	job->reduced_sub_batch_size = target->reduced_sub_batch_size = bbm_size_after_requeue(job->ran_size,
																						  BBM_SMALLEST_SUB_BATCH);
	/* future ranges become smaller, too, where we choose their size */
	if (bbm_size_is_adaptive(target->migration) && target->sizing.size > 0)
		target->sizing.size = Max(Min(target->sizing.size / 2, job->reduced_sub_batch_size),
								  target->migration->min_batch_size);
}

/*
 * Makes the next batch smaller if the size of this one was the problem, and
 * counts the times without progress.  A cancel by somebody else, or lack of
 * anything but memory, says nothing about the size.
 */
static void
reduce(BbmTarget *target, BbmJob *job, BbmRequeueReason why, int sqlstate)
{
	bool		by_itself = why == BBM_REQUEUE_BLOCKING || why == BBM_REQUEUE_TIME;
	bool		whole = bbm_verifies_whole(target, job);
	bool		smallest = whole || job->ran_size == BBM_SMALLEST_SUB_BATCH;

	if (why == BBM_REQUEUE_CANCELLED)
		return;
	if (!by_itself)
		job->no_progress++;
	/* a batch that cannot be cancelled blocks others for even longer */
	else if (smallest || job->caught_cancel)
		job->no_progress += BBM_NO_PROGRESS_BY_ITSELF;
	/* a batch that cannot be made smaller says nothing about the size of others */
	if (!whole && (why != BBM_REQUEUE_OTHER || sqlstate == ERRCODE_OUT_OF_MEMORY))
		halve(target, job);
}

/* The batch met a transient error that is not about a lock: another batch would meet it as well. */
static void
wait_for_resources(BbmTarget *target, const ErrorData *error)
{
	const BbmMigration *migration = target->migration;

	if (!bbm_error_is_lock(error->sqlerrcode))
		(void) bbm_trouble_met(migration->id, migration->owner, migration->name, error, false, true);
}

/* Adds to a transient error why it counts as a failed attempt. */
static void
explain_no_progress(const BbmJob *job, ErrorData *error)
{
	if (error->detail && !bbm_blockers_of(error))
		return;
	error->detail = psprintf("%s%s%sIt was so each time since the last progress of job " INT64_FORMAT
							 ", however small the batch; from now on that counts as a failed attempt.",
							 error->detail ? "It waited for " : "", error->detail ? error->detail : "",
							 error->detail ? ". " : "", job->id);
}

static void
log_failure(BbmTarget *target, const JobArgs *args)
{
	const BbmMigration *migration = target->migration;
	const BbmJob *job = args->job;

	target->failures_in_row++;
	if (!is_worth_a_line(target->failures_in_row))
		return;
	ereport(LOG,
			(errcode(args->error->sqlerrcode),
			 errmsg("migration \"%s\": job " INT64_FORMAT " failed, attempt %d of %d: %s",
					bbm_printable(migration->name), job->id, job->attempts, migration->max_attempts,
					bbm_printable(args->error->message)),
			 target->failures_in_row > BBM_LINES_IN_ROW ?
			 errdetail("It is failure %d in a row; not each has a line.", target->failures_in_row) : 0,
			 args->bisect ? errhint("It is bisected now; rows that cannot be processed are quarantined.") :
			 args->skip ? errhint("Its range is quarantined; see bbm_errors.") : 0));
}

/*
 * A job has used up its attempts, and the migration fails with its error: what
 * a user may do, after what the error's own hint says.  The error of a bisection
 * is bbm's, and says it all.
 */
static char *
used_up_hint(const BbmTarget *target, const BbmJob *job, const ErrorData *error, bool of_rows)
{
	const char *own = error->hint ? error->hint : "";
	size_t		length = strlen(own);
	bool		may_split = of_rows && target->strategy->has_key && !job->phase.verifies &&
		target->migration->on_error == BBM_ON_ERROR_FAIL;

	if (job->bisect)
		return error->hint;
	return psprintf("%s%s%sbbm_jobs shows which job. Correct the rows or the job, then call bbm_retry.%s",
					own, length > 0 && own[length - 1] != '.' ? "." : "", length > 0 ? " " : "",
					may_split ? " With on_error => 'split' the rows that fail are quarantined, and all others are done." : "");
}

/*
 * Records what comes of a job whose batch was rolled back with this error, or
 * (stop) by its own process.  Returns true when the migration may go on, false
 * when it has failed with the error.
 */
bool
bbm_record_failure(BbmTarget *target, BbmJob *job, BbmLockWatchStop stop, ErrorData *error, int step_code)
{
	BbmErrorClass class = stop != BBM_STOP_NONE ? BBM_ERROR_TRANSIENT : bbm_error_class(error);
	int			code = bbm_error_code(error->sqlerrcode, step_code);
	bool		used_up = job->attempts >= target->migration->max_attempts;
	bool		of_rows = class == BBM_ERROR_DATA || class == BBM_ERROR_SIZE;
	bool		quarantine = of_rows && used_up && may_quarantine(target, job);
	JobArgs		args = {.target = target, .job = job, .error = error, .code = code};

	if (stop != BBM_STOP_NONE)
		args.error = error = bbm_stop_error(stop, error, bbm_verifies_whole(target, job));
	if (class == BBM_ERROR_TRANSIENT)
	{
		BbmRequeueReason why = why_back(stop, error);

		reduce(target, job, why, error->sqlerrcode);
		wait_for_resources(target, error);
		if (job->no_progress < BBM_MAX_NO_PROGRESS)
		{
			requeue(target, job, why, error, requeue_until(job));
			return true;
		}
		explain_no_progress(job, error);
	}

	if (class == BBM_ERROR_SIZE)
		halve(target, job);
	args.due = quarantine ? GetCurrentTimestamp() : retry_at(target, job);
	/* of a range that verification has checked, rows are done: it is not quarantined as a whole */
	args.bisect = job->bisect || (quarantine && (target->migration->on_error == BBM_ON_ERROR_BISECT ||
												 job->kind == BBM_JOB_REPAIR));
	args.skip = quarantine && !args.bisect;
	if (!write_job(target, &args))
		return true;
	if (class != BBM_ERROR_TRANSIENT)
		bbm_trouble_over(target->migration->id, target->migration->owner, target->migration->name, true);
	log_failure(target, &args);

	if (class == BBM_ERROR_HOPELESS)
		bbm_record_migration_failed(target->migration, code, error);
	else if (quarantine && !args.bisect && !args.skip)
		bbm_record_migration_failed(target->migration, BBM_CODE_ATTEMPTS,
									bbm_errors_too_many(target->migration, error));
	else if (used_up && !quarantine)
	{
		error->hint = used_up_hint(target, job, error, of_rows);
		bbm_record_migration_failed(target->migration, BBM_CODE_ATTEMPTS, error);
	}
	else
		return true;
	return false;
}
