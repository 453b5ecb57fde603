/*-------------------------------------------------------------------------
 *
 * engine.c
 *		Which migration next, and the life of a job from claim to record.
 *
 * NOTES
 *	  A step does one thing for one migration: take it up, run a job of it, or
 *	  finish it.  A migration keeps the process for a slice of time; then those
 *	  with the fewest processes on them come first, so that a small migration
 *	  does not wait for a large one.
 *
 *	  Between steps nothing is held: no transaction, no snapshot, no lock but
 *	  the token that says we live.
 *
 *-------------------------------------------------------------------------
 */
#include "engine.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "catalog.h"
#include "claim.h"
#include "execute.h"
#include "giveway.h"
#include "guc.h"
#include "locks.h"
#include "pass.h"
#include "pressure.h"
#include "printable.h"
#include "record.h"
#include "shmem.h"
#include "target.h"
#include "throttle.h"
#include "txn.h"

#define BBM_SLICE_MS 1000
/* A claim that met a lock looks again after this. */
#define BBM_HELD_MS 200

/* Between two sub-batches pressure is waited for, with the job, for so long; then the job is given back. */
#define BBM_HOLD_JOB_MS 1000

/* A target is resolved anew after a longer wait than this: what it waits for may have been altered. */
#define BBM_KEEP_TARGET_MS 100

/* After so many errors in a row there is a pause, and at most this long. */
#define BBM_ERRORS_IN_ROW 5
#define BBM_LONGEST_HOLD_MS (30 * 1000)

/* Jobs between two merges of old ones. */
#define BBM_MERGE_INTERVAL 256

/* What came of trying one migration. */
typedef struct Outcome
{
	BbmStepResult result;
	TimestampTz due;
} Outcome;

static const Outcome WORKED = {BBM_STEP_WORKED, 0};
static const Outcome NOTHING = {BBM_STEP_IDLE, DT_NOEND};

static Outcome
wait_ms(int64 ms)
{
	Outcome		outcome = {BBM_STEP_WAIT, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms)};

	return outcome;
}

/* ----------------------------------------------------------------
 * Beginning and end
 * ----------------------------------------------------------------
 */

static void
take_token(void *arg)
{
	BbmEngine  *engine = arg;

	engine->space = bbm_space();
	engine->token = bbm_token_take(engine->space);
}

/*
 * An engine for this owner's migrations, or for one alone.  Called between
 * transactions of the driver; NULL, with a LOG line, when the extension is not
 * here or is of another version, or (*transient) cannot be looked at now.
 */
BbmEngine *
bbm_engine_begin(Oid owner, int64 only, bool *transient)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bbm engine", ALLOCSET_DEFAULT_SIZES);
	BbmEngine  *engine = MemoryContextAllocZero(context, sizeof(BbmEngine));
	ErrorData  *error;

	engine->place = -1;
	engine->owner = owner;
	engine->only = only;
	engine->context = context;
	engine->step = AllocSetContextCreate(context, "bbm step", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < lengthof(engine->job); i++)
		engine->job[i] = AllocSetContextCreate(context, "bbm job", ALLOCSET_SMALL_SIZES);
	error = bbm_txn_run(take_token, engine, false);
	if (error)
	{
		*transient = bbm_error_class(error->sqlerrcode) == BBM_ERROR_TRANSIENT;
		ereport(*transient ? DEBUG1 : LOG,
				(errcode(error->sqlerrcode),
				 errmsg("cannot run migrations in database with OID %u: %s", MyDatabaseId, error->message),
				 error->hint ? errhint("%s", error->hint) : 0));
		if (engine->token != 0)
			bbm_token_drop(engine->space, engine->token);
		MemoryContextDelete(context);
		return NULL;
	}
	return engine;
}

static void
forget_target(BbmEngine *engine, int64 id)
{
	ListCell   *cell;

	foreach(cell, engine->targets)
	{
		BbmTarget  *target = lfirst(cell);

		if (target->migration->id == id)
		{
			engine->targets = foreach_delete_current(engine->targets, cell);
			bbm_target_close(target);
		}
	}
}

/* Gives back the place that the last claim has taken, if any. */
static void
leave_place(BbmEngine *engine)
{
	if (engine->place >= 0)
		bbm_slot_lock_drop(engine->space, engine->place_of, engine->place);
	engine->place = -1;
}

/* Lets go of all it holds, also after an error.  Between transactions. */
void
bbm_engine_end(BbmEngine *engine)
{
	ListCell   *cell;

	bbm_txn_lock_timeout(-1);
	bbm_watch_rest();
	leave_place(engine);
	foreach(cell, engine->runnable)
		bbm_contend(engine->space, ((BbmRunnable *) lfirst(cell))->id, false);
	while (engine->targets)
		forget_target(engine, ((BbmTarget *) linitial(engine->targets))->migration->id);
	bbm_token_drop(engine->space, engine->token);
	bbm_slot_report(0, 0);
	MemoryContextDelete(engine->context);
}

bool
bbm_engine_slice_over(const BbmEngine *engine)
{
	return bbm_time_has_come(GetCurrentTimestamp(), engine->slice_end, BBM_SLICE_MS);
}

/* ----------------------------------------------------------------
 * One migration
 * ----------------------------------------------------------------
 */

/* Takes over an error that is no fault of the migration: look again in a moment. */
static Outcome
held(BbmEngine *engine, const char *name, ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		engine->cancelled = error;
	bbm_slot_wait("a lock on the migration");
	ereport(DEBUG1,
			(errmsg_internal("migration \"%s\": %s", name, error->message)));
	return wait_ms(BBM_HELD_MS);
}

/* An error outside a batch: the migration fails with it, unless it passes by itself. */
static Outcome
fail_or_hold(BbmEngine *engine, const BbmMigration *migration, ErrorData *error)
{
	int			step_code = bbm_failing_code;

	if (!bbm_extension_is_here())
		return NOTHING;
	if (bbm_error_class(error->sqlerrcode) == BBM_ERROR_TRANSIENT)
		return held(engine, migration->name, error);
	if (!bbm_record_migration_failed(migration, bbm_error_code(error->sqlerrcode, step_code), error))
		return wait_ms(BBM_HELD_MS);
	return WORKED;
}

typedef struct OpenArgs
{
	BbmEngine  *engine;
	int64		id;
	BbmMigration *migration;	/* as read, once it is ours to run */
	BbmTarget  *target;
	int64		estimate;
	BbmBound	min;			/* of a key whose bounds nobody gave */
	BbmBound	max;
	bool		taken_up;
} OpenArgs;

/* Reads the row and resolves it.  What changes after is seen by the claim, through updated_at. */
static void
open_target(void *arg)
{
	OpenArgs   *args = arg;
	BbmMigration *migration = bbm_migration_by_id(args->id, args->engine->step);

	if (migration == NULL || migration->owner != args->engine->owner || migration->home == NULL ||
		strcmp(migration->home, bbm_home()) != 0 ||
		(migration->status != BBM_ACTIVE && migration->status != BBM_RUNNING))
		return;
	args->migration = migration;
	args->target = bbm_target_open(migration);
	if (!migration->counted)
		args->estimate = bbm_target_estimate(args->target);
	if (args->target->strategy->has_key && !args->target->key.is_integer && !DatumGetPointer(migration->max.key))
	{
		MemoryContext old = MemoryContextSwitchTo(args->engine->step);

		(void) bbm_target_bounds(args->target, &args->min, &args->max);
		MemoryContextSwitchTo(old);
	}
}

/*
 * Active becomes running.  The row's lock keeps other changes of status out
 * until we commit; one that committed before is seen here.
 */
static void
take_up(void *arg)
{
	OpenArgs   *args = arg;
	BbmStatus	status;

	args->taken_up = bbm_migration_lock(args->id, &status) && status == BBM_ACTIVE;
	if (args->taken_up)
		bbm_migration_take_up(args->id, args->estimate, args->target->relid, &args->min, &args->max,
							  bbm_key_order_words(&args->target->key));
}

/* The migration's target as of now, taken up; NULL with an outcome when there is none. */
static BbmTarget *
target_for(BbmEngine *engine, int64 id, Outcome *outcome)
{
	OpenArgs	args = {.engine = engine, .id = id};
	ErrorData  *error;
	ListCell   *cell;

	foreach(cell, engine->targets)
	{
		BbmTarget  *target = lfirst(cell);

		if (target->migration->id == id)
			return target;
	}

	error = bbm_txn_run(open_target, &args, false);
	if (error)
	{
		*outcome = args.migration ? fail_or_hold(engine, args.migration, error) : held(engine, "", error);
		return NULL;
	}
	*outcome = NOTHING;
	if (args.target == NULL)
		return NULL;
	if (args.target->migration->status == BBM_RUNNING)
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);

		engine->targets = lappend(engine->targets, args.target);
		MemoryContextSwitchTo(old);
		return args.target;
	}

	error = bbm_txn_run(take_up, &args, false);
	if (error)
		*outcome = fail_or_hold(engine, args.migration, error);
	else
	{
		if (args.taken_up)
			ereport(LOG, (errmsg("migration \"%s\" is running", bbm_printable(args.migration->name))));
		bbm_state_changed();
		*outcome = WORKED;
	}
	/* the row has changed; the next step reads it anew */
	bbm_target_close(args.target);
	return NULL;
}

typedef struct FinishArgs
{
	BbmTarget  *target;
	bool		finished;
} FinishArgs;

/*
 * The row's lock and the migration's are held from the look to the commit: no
 * pause, no claim and no change of max_value comes in between.
 */
static void
finish(void *arg)
{
	FinishArgs *args = arg;
	BbmStatus	status;

	if (!bbm_migration_lock(args->target->migration->id, &status) || status != BBM_RUNNING ||
		!bbm_nothing_left(args->target))
		return;
	args->finished = bbm_pass_ended(args->target);
	if (args->finished)
	{
		bbm_migration_finish(args->target->migration->id);
		bbm_events_prune();
		/* whoever sees it finished may rely on every batch before it */
		ForceSyncCommit();
	}
}

static Outcome
finish_migration(BbmEngine *engine, BbmTarget *target)
{
	FinishArgs	args = {target, false};
	ErrorData  *error = bbm_txn_run(finish, &args, false);

	if (error)
		return fail_or_hold(engine, target->migration, error);
	if (args.finished)
		ereport(LOG, (errmsg("migration \"%s\" is finished", bbm_printable(target->migration->name))));
	else
		/* another pass: whoever has left for want of ranges may come again */
		engine->raised = false;
	forget_target(engine, engine->current);
	bbm_state_changed();
	return WORKED;
}

/* Merging old jobs is housekeeping: under the migration's lock, and never worth an error. */
static void
merge_jobs(void *arg)
{
	BbmTarget  *target = arg;

	bbm_lock_migration(bbm_space(), target->migration->id);
	/* the null strategy looks back at the last jobs one by one */
	bbm_jobs_merge(target->migration->id, Max(bbm_job_retention, BBM_MAX_ATTEMPTS));
}

static void
merge_if_due(BbmTarget *target, const BbmJob *job)
{
	ErrorData  *error;

	if (bbm_job_retention < 0 || job->id % BBM_MERGE_INTERVAL != 0)
		return;
	error = bbm_txn_run(merge_jobs, target, false);
	if (error)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("migration \"%s\": could not merge old jobs: %s",
						bbm_printable(target->migration->name), bbm_printable(error->message))));
}

static void
log_job(const BbmTarget *target, const BbmJob *job, const BbmCost *cost)
{
	int			limit = bbm_setting_int(target->migration, BBM_LOG_MIN_DURATION);

	if (limit >= 0 && cost->ms >= limit)
		ereport(LOG,
				(errmsg("migration \"%s\": job " INT64_FORMAT " took %.3f ms, rows " INT64_FORMAT
						", WAL bytes " INT64_FORMAT ", range %s",
						bbm_printable(target->migration->name), job->id, cost->ms, cost->rows, cost->wal,
						bbm_job_range_words(job))));
}

/*
 * Says where we are in every message of a batch.  The words are made once a job:
 * what is allocated here stays in ErrorContext until the next error, and a job
 * may raise any number of warnings.
 */
static void
job_context(void *arg)
{
	BbmWork    *work = arg;

	if (work->words == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(work->context);

		work->words = psprintf("migration \"%s\", job " INT64_FORMAT " (%s)",
							   bbm_printable(work->target->migration->name), work->job->id,
							   bbm_job_range_words(work->job));
		MemoryContextSwitchTo(old);
	}
	errcontext("%s", work->words);
}

/* Does the driver want to look around?  The kill switch is for workers alone. */
static bool
must_look(const BbmEngine *engine)
{
	return ConfigReloadPending || (!bbm_enabled && engine->only == 0) || bbm_slot_must_leave();
}

/*
 * Where one job after the other fails, the next ranges most likely will, too:
 * no faster than need be, so that somebody may come and see.
 */
static void
hold_after_errors(BbmTarget *target)
{
	int			n = target->failures_in_row - BBM_ERRORS_IN_ROW;
	int			first = bbm_setting_int(target->migration, BBM_RETRY_DELAY);

	target->hold_until = n <= 0 ? 0 :
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									bbm_backoff_ms(n, first, BBM_LONGEST_HOLD_MS,
												   pg_prng_double(&pg_global_prng_state)));
}

typedef struct GoOn
{
	const BbmEngine *engine;
	const BbmTarget *target;
} GoOn;

/*
 * May another job follow without a look around?  Asked when a batch is done,
 * which may be long after it began.  Not when the commit may wait for a
 * standby: nobody could pause the migration meanwhile.  The driver looks at
 * least once a slice.
 */
static bool
may_go_on(const void *arg)
{
	const GoOn *go_on = arg;

	const BbmEngine *engine = go_on->engine;

	return bbm_slot_lock_keep(engine->space, engine->place_of, engine->place) &&
		!go_on->target->claim_apart && !go_on->target->migration->synchronous && !InterruptPending &&
		bbm_enabled && !bbm_engine_slice_over(engine) && !must_look(engine) &&
		bbm_pressure_lets_follow(go_on->target);
}

/* Does the driver want to look around?  A session that was cancelled does, too. */
static bool
is_wanted(const BbmEngine *engine)
{
	return must_look(engine) || QueryCancelPending || ProcDiePending;
}

/*
 * Between two sub-batches of a job: true when the next may begin, for which
 * pressure is waited out if it is over soon.  Holds no transaction, snapshot or
 * lock but the place.
 */
static bool
may_begin_part(BbmEngine *engine, BbmTarget *target)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_HOLD_JOB_MS);
	bool		waited = false;

	while (!is_wanted(engine) && bbm_pressure_holds(target, false, &engine->wait))
	{
		TimestampTz now = GetCurrentTimestamp();

		if (engine->wait.cancelled)
			engine->cancelled = engine->wait.cancelled;
		if (engine->wait.cancelled || now >= give_up || engine->wait.due > give_up)
			return false;
		bbm_watch_rest();
		bbm_slot_wait(engine->wait.reason);
		waited = true;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(TimestampDifferenceMilliseconds(now, engine->wait.due), 1), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	if (waited)
		bbm_slot_wait("");
	return !is_wanted(engine);
}

/* The rest of a job whose next sub-batch may not begin is for later, or for somebody else. */
static void
put_job_back(BbmEngine *engine, BbmTarget *target, BbmJob *job)
{
	/* a foreground session was cancelled; here it would be lost */
	if (QueryCancelPending)
		engine->cancelled = bbm_make_error(ERRCODE_QUERY_CANCELED, "canceling statement due to user request", NULL);
	QueryCancelPending = false;
	bbm_record_pause(target, job);
}

/*
 * Runs a claimed job to its end, in one commit or several; false when the
 * migration has failed.  The next range may be claimed in the last of them.
 */
static bool
run_job(BbmEngine *engine, BbmTarget *target, BbmJob *job, BbmClaim *next)
{
	GoOn		go_on = {engine, target};
	BbmWork		work = {.target = target, .job = job, .context = engine->job[0], .next = next,
	.may_go_on = may_go_on, .arg = &go_on, .result = BBM_WORK_PART};
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = job_context, .arg = &work};
	ErrorData  *error = NULL;
	BbmStop		stop = BBM_STOP_NONE;

	bbm_slot_report(target->migration->id, job->id);
	pgstat_report_activity(STATE_RUNNING, target->migration->job);
	while (work.result == BBM_WORK_PART && error == NULL)
	{
		error_context_stack = &callback;
		error = bbm_txn_run(bbm_work, &work, target->migration->synchronous);
		error_context_stack = callback.previous;
		stop = bbm_watch_outcome();
		if (error == NULL && work.result == BBM_WORK_PART)
		{
			job->cursor = work.next_cursor;
			job->has_cursor = true;
			job->part_size = work.next_size;
			job->stuck = 0;
		}
		if (error == NULL && (work.result == BBM_WORK_PART || work.result == BBM_WORK_FINISHED))
			target->part_size = work.next_size;
		if (error == NULL)
		{
			log_job(target, job, &work.cost);
			bbm_pressure_spent(target, &work.cost);
		}
		/* a job may have released all advisory locks */
		bbm_token_keep(engine->space, engine->token);
		if (work.result == BBM_WORK_PART && error == NULL && !may_begin_part(engine, target))
			work.result = BBM_WORK_PAUSED;
	}
	pgstat_report_activity(STATE_IDLE, NULL);

	if (error)
	{
		int			step_code = bbm_failing_code;

		/* whatever the claim has got was rolled back with the batch */
		next->result = BBM_CLAIM_CHANGED;
		/* its error may have been the claim's: from here on that is told apart */
		target->claim_apart = true;
		if (!bbm_extension_is_here())
			return false;
		/* by somebody else, that is */
		if (stop == BBM_STOP_NONE && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			engine->cancelled = error;
		target->next_look = 0;
		if (!bbm_record_failure(target, job, stop, error, step_code))
			return false;
		hold_after_errors(target);
		return true;
	}
	target->failures_in_row = 0;
	if (work.result == BBM_WORK_PAUSED)
		put_job_back(engine, target, job);
	/* the next claim finds the same, and has the target resolved anew */
	else if (work.result == BBM_WORK_STALE)
		bbm_record_stale(target, job);
	else if (work.result == BBM_WORK_LOST)
		ereport(LOG,
				(errmsg("migration \"%s\": job " INT64_FORMAT " was taken over by another worker",
						bbm_printable(target->migration->name), job->id)));
	bbm_batch_ended();
	return true;
}

/* There is work: whoever could help may come, and leaves when there is not enough. */
static void
call_for_help(BbmEngine *engine)
{
	int			wanted = 0;
	ListCell   *cell;

	if (engine->raised || engine->only != 0)
		return;
	engine->raised = true;
	foreach(cell, engine->runnable)
		wanted += ((BbmRunnable *) lfirst(cell))->workers;
	bbm_demand_raise(MyDatabaseId, engine->owner, wanted);
}

/* Runs a claimed job, and those that could be claimed on the way; false when the migration has failed. */
static bool
run_jobs(BbmEngine *engine, BbmClaim *claim)
{
	BbmJob		job = claim->job;

	for (;;)
	{
		BbmClaim	next = {.target = claim->target, .token = claim->token, .context = engine->job[1], .slot = -1,
		.result = BBM_CLAIM_CHANGED};
		MemoryContext done = engine->job[0];

		MemoryContextReset(engine->step);
		if (!run_job(engine, claim->target, &job, &next))
			return false;
		merge_if_due(claim->target, &job);
		if (next.result != BBM_CLAIM_JOB)
			return true;
		job = next.job;
		engine->job[0] = engine->job[1];
		engine->job[1] = done;
		MemoryContextReset(done);
	}
}

/* The migration waits for the server: with no place, no contention for its table, and read anew after. */
static Outcome
wait_for_pressure(BbmEngine *engine, BbmTarget *target)
{
	Outcome		outcome = {BBM_STEP_WAIT, engine->wait.due};
	int64		id = target->migration->id;

	if (engine->wait.cancelled)
		engine->cancelled = engine->wait.cancelled;
	engine->held = true;
	bbm_slot_report(id, 0);
	bbm_slot_wait(engine->wait.reason);
	bbm_contend(engine->space, id, false);
	target->table_since = 0;
	if (engine->wait.due > TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_KEEP_TARGET_MS))
		forget_target(engine, id);
	return outcome;
}

/* Does the next thing for one migration. */
static Outcome
work_on(BbmEngine *engine, int64 id)
{
	Outcome		outcome;
	BbmClaim	claim = {.slot = -1};
	ErrorData  *error;
	bool		goes_on;

	engine->current = id;
	claim.target = target_for(engine, id, &outcome);
	if (claim.target == NULL)
		return outcome;
	bbm_txn_lock_timeout(bbm_setting_int(claim.target->migration, BBM_LOCK_TIMEOUT));
	if (bbm_pressure_holds(claim.target, true, &engine->wait))
		return wait_for_pressure(engine, claim.target);
	if (claim.target->hold_until > GetCurrentTimestamp())
	{
		snprintf(claim.reason, sizeof(claim.reason), "a while, after %d errors in a row", claim.target->failures_in_row);
		bbm_slot_report(id, 0);
		bbm_slot_wait(claim.reason);
		outcome.result = BBM_STEP_WAIT;
		outcome.due = claim.target->hold_until;
		return outcome;
	}
	claim.token = engine->token;
	MemoryContextReset(engine->job[0]);
	MemoryContextReset(engine->job[1]);
	claim.context = engine->job[0];
	error = bbm_txn_run(bbm_claim, &claim, false);
	engine->place_of = id;
	engine->place = claim.slot;
	if (error || claim.result != BBM_CLAIM_JOB)
		leave_place(engine);
	if (error)
		return fail_or_hold(engine, claim.target->migration, error);

	switch (claim.result)
	{
		case BBM_CLAIM_JOB:
			call_for_help(engine);
			goes_on = run_jobs(engine, &claim);
			leave_place(engine);
			if (!goes_on)
				forget_target(engine, id);
			return WORKED;
		case BBM_CLAIM_DONE:
			return finish_migration(engine, claim.target);
		case BBM_CLAIM_CHANGED:
			/* read it anew, once; a row that is gone or paused then has no target */
			forget_target(engine, id);
			claim.target = target_for(engine, id, &outcome);
			return claim.target ? WORKED : outcome;
		case BBM_CLAIM_USED_UP:
			error = bbm_make_error(ERRCODE_CRASH_SHUTDOWN,
								   "the workers that ran a job are gone, and it has no attempts left",
								   "See the server log for why they ended, then bbm_retry.");
			bbm_record_migration_failed(claim.target->migration, BBM_CODE_ATTEMPTS, error);
			forget_target(engine, id);
			return WORKED;
		case BBM_CLAIM_OTHERS:
			return NOTHING;
		case BBM_CLAIM_LATER:
			break;
	}
	bbm_slot_report(id, 0);
	bbm_slot_wait(claim.reason);
	outcome.result = BBM_STEP_WAIT;
	outcome.due = claim.due;
	return outcome;
}

/* ----------------------------------------------------------------
 * All migrations
 * ----------------------------------------------------------------
 */

static void
read_runnable(void *arg)
{
	BbmEngine  *engine = arg;

	/* dropped and created again, it is another extension: our locks are in the old one's space */
	if (bbm_space() == engine->space)
		engine->runnable = bbm_migrations_runnable(engine->owner, engine->context);
}

/*
 * Reads anew which migrations there are.  False when that cannot be told now;
 * *due says when to try again, never if the extension is gone or not ours.
 */
static bool
refresh(BbmEngine *engine, TimestampTz *due)
{
	ErrorData  *error;
	ListCell   *cell;

	/* what we contended for and do not come back to must not keep others waiting */
	foreach(cell, engine->runnable)
		bbm_contend(engine->space, ((BbmRunnable *) lfirst(cell))->id, false);
	list_free_deep(engine->runnable);
	engine->runnable = NIL;
	engine->raised = false;
	engine->wakes = bbm_demand_wakes(MyDatabaseId, engine->owner);
	engine->slice_end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_SLICE_MS);
	if (engine->only != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);
		BbmRunnable *runnable = palloc0(sizeof(BbmRunnable));

		runnable->id = engine->only;
		engine->runnable = list_make1(runnable);
		MemoryContextSwitchTo(old);
		return true;
	}
	bbm_catalog_forget();
	error = bbm_txn_run(read_runnable, engine, false);
	if (error == NULL)
		return true;
	ereport(bbm_error_class(error->sqlerrcode) == BBM_ERROR_TRANSIENT ? DEBUG1 : LOG,
			(errcode(error->sqlerrcode),
			 errmsg("cannot read the migrations of database with OID %u: %s", MyDatabaseId, error->message),
			 error->hint ? errhint("%s", error->hint) : 0));
	if (bbm_error_class(error->sqlerrcode) == BBM_ERROR_TRANSIENT)
		*due = wait_ms(BBM_HELD_MS).due;
	return false;
}

static int
fewest_others(const ListCell *a, const ListCell *b)
{
	const BbmRunnable *x = lfirst(a);
	const BbmRunnable *y = lfirst(b);

	return x->others != y->others ? x->others - y->others : x->turn - y->turn;
}

/* Those to try: the ones with the fewest other processes first, then in turn after the current one. */
static List *
order_of_trial(BbmEngine *engine)
{
	List	   *order = NIL;
	int			n = list_length(engine->runnable);
	int			start = 0;
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		BbmRunnable *runnable = lfirst(cell);

		runnable->others = bbm_slots_on(runnable->id);
		if (runnable->id == engine->current)
			start = foreach_current_index(cell) + 1;
	}
	for (int i = 0; i < n; i++)
	{
		BbmRunnable *runnable = list_nth(engine->runnable, (start + i) % n);

		runnable->turn = i;
		order = lappend(order, runnable);
	}
	list_sort(order, fewest_others);
	return order;
}

/* After a cancel the driver looks why before anything else is begun. */
static bool
was_cancelled(const BbmEngine *engine, TimestampTz *due)
{
	if (engine->cancelled == NULL)
		return false;
	*due = GetCurrentTimestamp();
	return true;
}

/* Tries the migration at hand while its slice lasts, then all in turn. */
static BbmStepResult
try_migrations(BbmEngine *engine, TimestampTz *due)
{
	ListCell   *cell;
	List	   *order;

	if (engine->current != 0 && !bbm_engine_slice_over(engine) &&
		work_on(engine, engine->current).result == BBM_STEP_WORKED)
		return BBM_STEP_WORKED;

	if (was_cancelled(engine, due))
		return BBM_STEP_WAIT;
	order = refresh(engine, due) ? order_of_trial(engine) : NIL;
	foreach(cell, order)
	{
		Outcome		outcome = work_on(engine, ((BbmRunnable *) lfirst(cell))->id);

		if (outcome.result == BBM_STEP_WORKED)
			return BBM_STEP_WORKED;
		if (was_cancelled(engine, due))
			return BBM_STEP_WAIT;
		*due = Min(*due, outcome.due);
	}
	engine->current = 0;
	return *due == DT_NOEND ? BBM_STEP_IDLE : BBM_STEP_WAIT;
}

/*
 * Does the next thing there is to do.  Between transactions of the driver.
 */
BbmStepResult
bbm_engine_step(BbmEngine *engine, TimestampTz *due)
{
	MemoryContext old;
	BbmStepResult result;

	MemoryContextReset(engine->step);
	old = MemoryContextSwitchTo(engine->step);
	bbm_token_keep(engine->space, engine->token);
	engine->cancelled = NULL;
	engine->held = false;
	*due = DT_NOEND;
	result = try_migrations(engine, due);
	bbm_txn_lock_timeout(-1);
	MemoryContextSwitchTo(old);
	if (result != BBM_STEP_WORKED)
		bbm_watch_rest();

	/* what we had and let go of, a table say, is somebody else's to take now */
	if (engine->worked && result != BBM_STEP_WORKED)
		bbm_state_changed();
	engine->worked = result == BBM_STEP_WORKED;
	return result;
}
