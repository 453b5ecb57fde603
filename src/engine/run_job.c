/*-------------------------------------------------------------------------
 *
 * run_job.c
 *		The life of a job from claim to record.
 *
 * NOTES
 *	  A claimed job is run to its end, in one commit or several.  The next
 *	  range may be claimed in the transaction that records the last one, and is
 *	  then run at once: control returns to the driver when the time slice is
 *	  over, or when somebody wants it to.  Between two commits the process
 *	  holds nothing but its permit and the lock of its worker id.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/run_job.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/cancel.h"
#include "base/guc.h"
#include "base/impact_counts.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_event.h"
#include "catalog/extension.h"
#include "catalog/job_record.h"
#include "catalog/shards.h"
#include "catalog/jobs.h"
#include "engine/batch.h"
#include "engine/books.h"
#include "engine/breaker.h"
#include "engine/claim.h"
#include "engine/engine.h"
#include "engine/no_rows.h"
#include "engine/outcome.h"
#include "engine/title.h"
#include "target/bound.h"
#include "target/target.h"
#include "throttle/pacing.h"
#include "throttle/throttle.h"

/* For how long a job that is between two sub-batches waits for a throttle; then the process releases the job. */
#define BBM_KEEP_JOB_MS 1000

/* After this many errors in a row the process pauses. */
#define BBM_ERRORS_IN_ROW 5

static void
log_job(const BbmTarget *target, const BbmJob *job, const BbmCost *cost)
{
	int			limit = bbm_setting_int(target->migration, BBM_LOG_MIN_DURATION);

	if (limit >= 0 && cost->ms >= limit)
		ereport(LOG,
				(errmsg("migration \"%s\": job " INT64_FORMAT " took %.3f ms, rows " INT64_FORMAT
						", WAL bytes " INT64_FORMAT ", range %s",
						bbm_printable(target->migration->name), job->id, cost->ms, cost->rows, cost->wal,
						bbm_job_range_to_string(job))));
}

static char *
job_string(const BbmWork *work)
{
	return psprintf("migration \"%s\", job " INT64_FORMAT " (%s)", bbm_printable(work->target->migration->name),
					work->job->id, bbm_job_range_to_string(work->job));
}

/*
 * Adds the migration and the job to every message of a batch.  The string is
 * made once per job: what is allocated here stays in ErrorContext until the
 * next error, and a job may raise any number of warnings.
 */
static void
job_context(void *arg)
{
	BbmWork    *work = arg;

	/* in a critical section nothing but the error's own context gives memory */
	if (CritSectionCount > 0 && work->string == NULL)
	{
		errcontext("%s", job_string(work));
		return;
	}
	if (work->string == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(work->context);

		work->string = job_string(work);
		MemoryContextSwitchTo(old);
	}
	errcontext("%s", work->string);
}

/* Must control return to the driver?  The kill switch is for workers alone. */
static bool
must_check(const BbmEngine *engine)
{
	return ConfigReloadPending || (!bbm_enabled && engine->only == 0) || bbm_slot_must_exit();
}

/*
 * When one job after the other fails, the next ranges will most likely fail,
 * too: slow down, so that somebody has time to notice and react.
 */
static void
wait_after_errors(BbmTarget *target)
{
	int			n = target->failures_in_row - BBM_ERRORS_IN_ROW;
	int			first = bbm_setting_int(target->migration, BBM_RETRY_DELAY);

	target->throttled_until = n <= 0 ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									bbm_backoff_ms(n, first, BBM_LONGEST_WAIT_MS,
												   pg_prng_double(&pg_global_prng_state)));
}

typedef struct GoOn
{
	const BbmEngine *engine;
	BbmTarget  *target;
} GoOn;

/*
 * May another job follow without returning to the driver?  This is called when
 * a batch is done, which may be long after it began.  None may when the commit
 * may wait for a standby: nobody could pause the migration meanwhile.  The
 * driver gets control at least once per time slice.
 */
static bool
may_go_on(const void *arg)
{
	const GoOn *go_on = arg;

	const BbmEngine *engine = go_on->engine;

	return bbm_permit_keep(engine->lock_class, engine->permit_of, engine->permit) &&
		!go_on->target->claim_apart && !bbm_cancel_seen() && !go_on->target->migration->synchronous &&
		!InterruptPending && bbm_enabled && !bbm_engine_slice_over(engine) && !must_check(engine) &&
		bbm_throttle_lets_follow(go_on->target);
}

/* Must control return to the driver?  A cancelled session does so, too. */
static bool
is_wanted(const BbmEngine *engine)
{
	return must_check(engine) || QueryCancelPending || ProcDiePending;
}

/*
 * Waits until a throttle that has been met is over; returns false when it is
 * not over within so many milliseconds, or when somebody wants something else
 * from this process.  Called between transactions.
 */
bool
bbm_wait_for_throttle(BbmEngine *engine, BbmTarget *target, bool may_help, int ms)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	do
	{
		TimestampTz now = GetCurrentTimestamp();

		if (engine->wait.cancelled || now >= give_up || engine->wait.reason.due > give_up || is_wanted(engine))
			return false;
		bbm_lock_watch_pause();
		bbm_impact_stops();
		bbm_slot_wait(bbm_wait_reason(&engine->wait));
		bbm_sleep(TimestampDifferenceMilliseconds(now, engine->wait.reason.due), BBM_WAIT_THROTTLE);
	} while (bbm_is_throttled(target, may_help, &engine->wait));
	bbm_slot_wait(NULL);
	return true;
}

/*
 * With a claimed job, between two sub-batches or before its first batch:
 * returns true when that batch may start; waits for a throttle that is over
 * soon.  When the time slice is over, the driver finds out whether others are to
 * have their time slice.  Holds no transaction, snapshot or lock but the permit.
 */
static bool
may_begin_batch(BbmEngine *engine, BbmTarget *target)
{
	if (is_wanted(engine) || bbm_engine_slice_over(engine))
		return false;
	if (!bbm_is_throttled(target, false, &engine->wait))
		return true;
	if (!bbm_wait_for_throttle(engine, target, false, BBM_KEEP_JOB_MS))
	{
		if (engine->wait.cancelled)
			engine->cancelled = engine->wait.cancelled;
		return false;
	}
	return !is_wanted(engine);
}

/*
 * Releases a job whose next (or first) batch may not start; it is run later,
 * or by another process.  Nothing was rolled back, so that is no requeue.  If
 * it is this process that goes on, it goes on with this job.
 */
static void
release_job(BbmEngine *engine, BbmTarget *target, BbmJob *job)
{
	/* a foreground session was cancelled; the cancel would be lost here */
	if (QueryCancelPending)
		engine->cancelled = bbm_cancelled_by_user();
	QueryCancelPending = false;
	bbm_record_release_unstarted(target, job);
	target->next_poll = 0;
}

/* A sub-batch of the job has been committed: *work says what was done, and what follows. */
static void
sub_batch_done(BbmEngine *engine, BbmTarget *target, BbmJob *job, const BbmWork *work)
{
	if (work->result == BBM_WORK_SUB_BATCH)
	{
		bbm_bound_replace(&job->cursor, work->next_cursor);
		job->has_cursor = true;
		job->reduced_sub_batch_size = work->next_size;
		job->no_progress = job->requeues_in_row = 0;
	}
	if (work->result == BBM_WORK_SUB_BATCH || work->result == BBM_WORK_FINISHED)
	{
		target->reduced_sub_batch_size = work->next_size;
		bbm_no_rows_note(target, work->cost.rows);
	}
	target->requeues_in_row = 0;
	bbm_trouble_over(target->migration->id, engine->owner, target->migration->name, true);
	log_job(target, job, &work->cost);
	bbm_throttle_spent(target, &work->cost);
}

/*
 * Runs the sub-batches of a job until it ends, must be released, or meets an
 * error, which is returned; *stop says whether its own process cancelled it.
 */
static ErrorData *
run_sub_batches(BbmEngine *engine, BbmTarget *target, BbmWork *work, BbmLockWatchStop *stop)
{
	BbmJob	   *job = work->job;
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = job_context, .arg = work};
	MemoryContext old = MemoryContextSwitchTo(engine->commit);
	ErrorData  *error = NULL;

	*stop = BBM_STOP_NONE;
	while (work->result == BBM_WORK_SUB_BATCH && error == NULL)
	{
		/* a job may have millions of commits, and each leaves something behind */
		MemoryContextReset(engine->commit);
		error_context_stack = &callback;
		error = bbm_txn_run(bbm_work, work, target->migration->synchronous);
		error_context_stack = callback.previous;
		*stop = bbm_lock_watch_outcome();
		job->caught_cancel = bbm_cancel_enforced();
		/* the job has caught the cancel, and ended successfully; it was meant for the session, too */
		if (error == NULL && *stop == BBM_STOP_NONE && bbm_cancel_seen())
			engine->cancelled = bbm_cancelled_by_user();
		if (error == NULL)
			sub_batch_done(engine, target, job, work);
		/* a job that has failed, or a trigger at the commit, may have released all advisory locks */
		bbm_worker_id_keep(engine->lock_class, engine->worker_id);
		if (error)
			bbm_pacing_failed(target->migration);
		/* the permit was released with the other locks, and another process may have acquired it since */
		else if (work->result == BBM_WORK_SUB_BATCH &&
				 (engine->cancelled || !bbm_permit_keep(engine->lock_class, engine->permit_of, engine->permit) ||
				  !may_begin_batch(engine, target)))
			work->result = BBM_WORK_PAUSED;
	}
	MemoryContextSwitchTo(old);
	return error;
}

/* The job has met an error; returns false when the migration has failed, or is paused, with it. */
static bool
job_failed(BbmEngine *engine, BbmTarget *target, BbmJob *job, BbmLockWatchStop stop, ErrorData *error)
{
	int			step_code = bbm_failing_code;
	ErrorData  *cancelled = NULL;

	/* the error may have been the claim's: from here on claims are made in a transaction of their own */
	target->claim_apart = true;
	if (!bbm_extension_is_here())
		return false;
	/* that is, cancelled by a user, not by this process */
	if (stop == BBM_STOP_NONE && bbm_error_is_cancel(error))
		engine->cancelled = error;
	/* a session does not go on with a job that could hardly be stopped */
	else if (stop != BBM_STOP_NONE && job->caught_cancel && !bbm_txn_in_worker())
		engine->cancelled = bbm_stop_error(stop, error, false);
	target->next_poll = 0;
	if (!bbm_record_failure(target, job, stop, error, step_code))
		return false;
	if (bbm_breaker_trips(target->migration, error, &cancelled))
		return false;
	if (cancelled)
		engine->cancelled = cancelled;
	wait_after_errors(target);
	return true;
}

/*
 * Runs a claimed job to its end, in one commit or several; returns false when
 * the migration has failed. "waits": there is a pause before the job, to keep
 * the pace.  The next range may be claimed in the last commit.
 */
static bool
run_job(BbmEngine *engine, BbmTarget *target, BbmJob *job, bool waits, BbmClaim *next)
{
	GoOn		go_on = {engine, target};
	BbmWork		work = {.target = target, .job = job, .context = engine->job[0], .waited = waits, .next = next,
	.may_go_on = may_go_on, .arg = &go_on, .result = BBM_WORK_SUB_BATCH};
	ErrorData  *error;
	BbmLockWatchStop stop;

	bbm_slot_report(target->migration->id, job->id);
	if (waits && !may_begin_batch(engine, target))
		work.result = BBM_WORK_PAUSED;
	bbm_title_show(target);
	error = run_sub_batches(engine, target, &work, &stop);
	pgstat_report_activity(STATE_IDLE, NULL);

	/* somebody changes the migration, and may be waiting for us to end */
	if (error && work.result == BBM_WORK_PAUSED && error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		error = NULL;
	/* the shard is being moved: the next step waits for that */
	if (error && bbm_shard_not_entered() && error->sqlerrcode != ERRCODE_QUERY_CANCELED)
	{
		error = NULL;
		work.result = BBM_WORK_ELSEWHERE;
	}
	if (error)
	{
		/* what the claim has got was rolled back with the batch */
		next->result = BBM_CLAIM_CHANGED;
		return job_failed(engine, target, job, stop, error);
	}
	target->failures_in_row = 0;
	if (work.result == BBM_WORK_PAUSED)
		release_job(engine, target, job);
	else if (work.result == BBM_WORK_SLICE_OVER || work.result == BBM_WORK_ELSEWHERE)
		bbm_record_release_unstarted(target, job);
	/* the next claim finds the same, and has the target resolved anew */
	else if (work.result == BBM_WORK_STALE)
		bbm_record_stale(target, job);
	else if (work.result == BBM_WORK_LOST)
		ereport(LOG,
				(errmsg("migration \"%s\": job " INT64_FORMAT " was taken over by another worker",
						bbm_printable(target->migration->name), job->id)));
	bbm_batch_ended();
	/* its migration is read again, which ends or pauses it here */
	return work.result != BBM_WORK_ELSEWHERE;
}

/*
 * Runs a claimed job, and those that could be claimed along with the records
 * of their predecessors; returns false when the migration has failed.  Called
 * between transactions of the driver; the engine has the permit of the claim.
 */
bool
bbm_run_jobs(BbmEngine *engine, BbmClaim *claim)
{
	BbmJob		job = claim->job;
	bool		waits = false;

	for (;;)
	{
		BbmClaim	next = {.target = claim->target, .worker_id = claim->worker_id, .context = engine->job[1],
			.slot = -1,
		.result = BBM_CLAIM_CHANGED};
		MemoryContext done = engine->job[0];
		ErrorData  *cancelled;
		TimestampTz now;
		TimestampTz due;

		MemoryContextReset(engine->step);
		if (!run_job(engine, claim->target, &job, waits, &next))
			return false;
		/* a job's own code may have caught a cancel that came as the next job was claimed */
		cancelled = engine->cancelled;
		if (cancelled == NULL)
			cancelled = bbm_books_keep(claim->target);
		if (cancelled == NULL)
			cancelled = bbm_no_rows_check(claim->target);
		if (cancelled)
		{
			engine->cancelled = cancelled;
			if (next.result == BBM_CLAIM_JOB)
				release_job(engine, claim->target, &next.job);
			return true;
		}
		if (next.result != BBM_CLAIM_JOB)
			return true;
		now = GetCurrentTimestamp();
		waits = BBM_POINT_DUE("pause-due", bbm_pacing_pauses(now, &due));
		if (!waits)
			bbm_pacing_begin(claim->target->migration, now);
		job = next.job;
		engine->job[0] = engine->job[1];
		engine->job[1] = done;
		MemoryContextReset(done);
	}
}
