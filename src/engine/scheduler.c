/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *		Which migration next, and the next thing to do for it.
 *
 * NOTES
 *	  A step does one thing for one migration: it starts it, runs a job of it,
 *	  or finishes it.  A migration keeps the process for a time slice; then the
 *	  migrations with the fewest processes come first, so that a small
 *	  migration does not wait for a large one.
 *
 *	  Between steps the process holds nothing: no transaction, no snapshot, no
 *	  lock but the one of the worker id, which shows that the process is alive.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/scheduler.h"

#include "base/bbm.h"
#include "base/blockers.h"
#include "base/cancel.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/printable.h"
#include "base/requests.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/events.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "engine/claim.h"
#include "engine/completion.h"
#include "engine/engine.h"
#include "engine/outcome.h"
#include "engine/run_job.h"
#include "strategy/resolve.h"
#include "target/null_keys.h"
#include "target/target.h"
#include "throttle/throttle.h"

/*
 * After a longer wait than this a target is resolved anew: the migration or
 * the table may have been altered meanwhile.  The process keeps the target
 * during a shorter wait, such as a pacing pause between two batches.
 */
#define BBM_KEEP_TARGET_MS 100

/* The outcome of trying one migration. */
typedef struct Outcome
{
	BbmStepResult result;
	TimestampTz due;
} Outcome;

static const Outcome WORKED = {BBM_STEP_WORKED, 0};
static const Outcome NOTHING = {BBM_STEP_IDLE, DT_NOEND};

/* ----------------------------------------------------------------
 * Beginning and end
 * ----------------------------------------------------------------
 */

static void
acquire_worker_id(void *arg)
{
	BbmEngine  *engine = arg;

	engine->lock_class = bbm_lock_class();
	bbm_catalog_check_trust(engine->owner);
	engine->worker_id = bbm_worker_id_acquire(engine->lock_class);
}

/*
 * Creates an engine for this owner's migrations, or for one alone.  Called
 * between transactions of the driver; returns NULL, with the error, when the
 * extension does not exist here or is of another version, or when that cannot
 * be checked now.
 */
BbmEngine *
bbm_engine_begin(Oid owner, int64 only, ErrorData **why_not)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bbm engine", ALLOCSET_DEFAULT_SIZES);
	BbmEngine  *engine = MemoryContextAllocZero(context, sizeof(BbmEngine));
	ErrorData  *error;

	engine->permit = -1;
	engine->owner = owner;
	engine->only = only;
	engine->context = context;
	engine->step = AllocSetContextCreate(context, "bbm step", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < lengthof(engine->job); i++)
		engine->job[i] = AllocSetContextCreate(context, "bbm job", ALLOCSET_SMALL_SIZES);
	error = bbm_txn_run(acquire_worker_id, engine, false);
	if (error)
	{
		*why_not = error;
		if (engine->worker_id != 0)
			bbm_worker_id_release(engine->lock_class, engine->worker_id);
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

/* Releases the permit that the last claim has acquired, if any. */
static void
release_permit(BbmEngine *engine)
{
	if (engine->permit >= 0)
		bbm_permit_release(engine->lock_class, engine->permit_of, engine->permit);
	engine->permit = -1;
}

/* Releases everything the engine holds, also after an error.  Called between transactions. */
void
bbm_engine_end(BbmEngine *engine)
{
	ListCell   *cell;

	bbm_txn_lock_timeout(-1);
	bbm_lock_watch_pause();
	release_permit(engine);
	foreach(cell, engine->runnable)
		bbm_set_waiting_for_table(engine->lock_class, ((BbmRunnable *) lfirst(cell))->id, false);
	while (engine->targets)
		forget_target(engine, ((BbmTarget *) linitial(engine->targets))->migration->id);
	bbm_worker_id_release(engine->lock_class, engine->worker_id);
	bbm_slot_report(0, 0);
	MemoryContextDelete(engine->context);
}

/* This process exits while it waits for time slices on tables: shared memory keeps them for it until it is back. */
void
bbm_engine_keep_table_waits(const BbmEngine *engine, TimestampTz until)
{
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		int64		id = ((BbmRunnable *) lfirst(cell))->id;

		if (bbm_is_waiting_for_table(engine->lock_class, id))
			bbm_table_wait_keep(id, until);
	}
}

/* ----------------------------------------------------------------
 * One migration
 * ----------------------------------------------------------------
 */

/*
 * Has this process met a transient error (base/trouble.c), so that it waits
 * before it may try again?  Returns false when it has not, or when it may try
 * again.
 */
static bool
in_trouble(BbmEngine *engine, int64 id, Outcome *outcome)
{
	BbmWait    *wait = &engine->wait;

	if (!bbm_trouble_waits(id, engine->owner, &wait->due, &wait->since, wait->reason))
		return false;
	engine->held = true;
	bbm_slot_wait_with(id, wait->reason, wait->due);
	outcome->result = BBM_STEP_WAIT;
	outcome->due = wait->due;
	return true;
}

/*
 * Takes over an error that is not the migration's fault, with the migration's
 * name if that was known: the next poll is later.
 */
static Outcome
held(BbmEngine *engine, int64 id, const char *name, ErrorData *error)
{
	Outcome		outcome = {BBM_STEP_WAIT};

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		engine->cancelled = error;
	outcome.due = bbm_trouble_met(id, engine->owner, name, error, bbm_error_is_lock(error->sqlerrcode), false);
	(void) in_trouble(engine, id, &outcome);
	return outcome;
}

static void
catch_up(void *arg)
{
	bbm_job_ids_catch_up();
}

/* An error outside a batch: the migration fails with it, unless it is transient. */
static Outcome
fail_or_wait(BbmEngine *engine, const BbmMigration *migration, ErrorData *error)
{
	int			step_code = bbm_failing_code;
	ErrorData  *early;
	Outcome		outcome;

	/* if this does not succeed now, the next try meets the same error */
	if (bbm_job_ids_are_behind(error))
	{
		(void) bbm_txn_run(catch_up, NULL, false);
		return held(engine, migration->id, migration->name, error);
	}
	if (!bbm_extension_is_here())
		return NOTHING;
	if (bbm_error_class(error) == BBM_ERROR_TRANSIENT)
		return held(engine, migration->id, migration->name, error);
	early = bbm_error_if_early(migration, error, step_code);
	if (early)
		return held(engine, migration->id, migration->name, early);
	if (!bbm_record_migration_failed(migration, bbm_error_code(error->sqlerrcode, step_code), error) &&
		in_trouble(engine, migration->id, &outcome))
		return outcome;
	return WORKED;
}

typedef struct OpenArgs
{
	BbmEngine  *engine;
	int64		id;
	BbmMigration *migration;	/* as read, once this engine is to run it */
	BbmTarget  *target;
	BbmStart	look;			/* in the step's context */
	bool		taken_up;
} OpenArgs;

/*
 * Is the migration still to be started by a worker, which fixes its bounds and
 * records its table, so that other migrations know it?  A migration that was
 * inserted as running is no different.
 */
static bool
is_new(const BbmMigration *migration)
{
	return migration->status == BBM_ACTIVE ||
		(migration->status == BBM_RUNNING && !OidIsValid(migration->table_oid));
}

/* Reads the row and resolves it.  The claim detects later changes, through updated_at. */
static void
open_target(void *arg)
{
	OpenArgs   *args = arg;
	BbmMigration *migration = bbm_migration_by_id(args->id, args->engine->step);
	MemoryContext old;

	if (migration == NULL || migration->owner != args->engine->owner || migration->origin == NULL ||
		strcmp(migration->origin, bbm_origin()) != 0 ||
		(migration->status != BBM_ACTIVE && migration->status != BBM_RUNNING))
		return;
	/* checked before an error counts as the migration's: it waits for another owner of the tables */
	bbm_catalog_check_trust(migration->owner);
	args->migration = migration;
	if (args->engine->max_attempts > 0)
		migration->max_attempts = args->engine->max_attempts;
	args->target = bbm_target_open(migration);
	if (!is_new(migration))
		return;
	old = MemoryContextSwitchTo(args->engine->step);
	bbm_prepare_start(args->target, &args->look);
	MemoryContextSwitchTo(old);
}

/*
 * Changes active to running.  The row's lock keeps other changes of status out
 * until we commit; one that committed before is seen here.
 */
static void
take_up(void *arg)
{
	OpenArgs   *args = arg;
	BbmStatus	status;
	BbmMigration *now;

	args->taken_up = bbm_migration_lock(args->id, &status) &&
		(now = bbm_migration_by_id(args->id, args->engine->step)) != NULL && is_new(now);
	if (args->taken_up)
		bbm_record_started(args->target, &args->look);
}

/* Returns the migration's current target, started; NULL with an outcome when there is none. */
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
		if (args.migration)
			*outcome = fail_or_wait(engine, args.migration, error);
		else
			/* its row could not be read, so that its name is not known yet */
			*outcome = held(engine, 0, NULL, error);
		return NULL;
	}
	*outcome = NOTHING;
	if (args.target == NULL)
		return NULL;
	if (!is_new(args.migration))
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);

		engine->targets = lappend(engine->targets, args.target);
		MemoryContextSwitchTo(old);
		return args.target;
	}

	error = bbm_txn_run(take_up, &args, false);
	if (error)
		*outcome = fail_or_wait(engine, args.migration, error);
	else
	{
		if (args.taken_up)
			ereport(LOG, (errmsg("migration \"%s\" is running", bbm_printable(args.migration->name))));
		bbm_state_changed();
		*outcome = WORKED;
	}
	/* the row has changed; the next step reads it again */
	bbm_target_close(args.target);
	return NULL;
}

typedef struct FinishArgs
{
	BbmTarget  *target;
	bool		ended;			/* nothing was left of the phase */
	bool		finished;
} FinishArgs;

/*
 * The row's lock and the migration's lock are held from the check to the
 * commit: no pause, no claim and no change of max_value can intervene.
 */
static void
finish(void *arg)
{
	FinishArgs *args = arg;
	BbmStatus	status;

	if (!bbm_migration_lock(args->target->migration->id, &status) || status != BBM_RUNNING ||
		!bbm_nothing_left(args->target))
		return;
	args->ended = true;
	args->finished = bbm_phase_ended(args->target);
	if (args->finished)
	{
		/* these rows must not be skipped silently */
		if (args->target->migration->skip_null_keys)
			bbm_null_keys_warn(args->target);
		bbm_migration_finish(args->target->migration->id);
		bbm_events_prune();
		/* whoever sees it finished may rely on every batch before it */
		ForceSyncCommit();
	}
}

/*
 * What follows when nothing is left of a phase.  With "left", checks whether
 * that is so: *left says that something is left.
 */
static Outcome
finish_migration(BbmEngine *engine, BbmTarget *target, bool *left)
{
	FinishArgs	args = {target};
	ErrorData  *error = bbm_txn_run(finish, &args, false);

	if (error)
		return fail_or_wait(engine, target->migration, error);
	if (left && !args.ended)
	{
		*left = true;
		return NOTHING;
	}
	bbm_trouble_over(target->migration->id, engine->owner, target->migration->name, true);
	if (args.finished)
		ereport(LOG, (errmsg("migration \"%s\" is finished", bbm_printable(target->migration->name))));
	else
		/* another phase: workers that have exited because no range was left may come again */
		engine->called_for_help = false;
	forget_target(engine, engine->current);
	bbm_state_changed();
	return WORKED;
}

/* There is work: requests further workers, which exit when there is not enough of it. */
static void
call_for_help(BbmEngine *engine)
{
	int			wanted = 0;
	ListCell   *cell;

	if (engine->called_for_help || engine->only != 0)
		return;
	engine->called_for_help = true;
	foreach(cell, engine->runnable)
		wanted += ((BbmRunnable *) lfirst(cell))->workers;
	bbm_request_workers(MyDatabaseId, engine->owner, wanted);
}

/*
 * The migration waits for the server: it keeps no permit, does not wait for
 * its table, and is read anew afterwards.
 */
static Outcome
wait_until_throttled(BbmEngine *engine, BbmTarget *target)
{
	Outcome		outcome = {BBM_STEP_WAIT, engine->wait.due};
	int64		id = target->migration->id;

	if (engine->wait.cancelled)
		engine->cancelled = engine->wait.cancelled;
	engine->held = !engine->wait.of_process;
	bbm_slot_wait_with(id, bbm_wait_reason(&engine->wait), engine->wait.due);
	bbm_set_waiting_for_table(engine->lock_class, id, false);
	target->table_since = 0;
	if (engine->wait.due > TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_KEEP_TARGET_MS))
		forget_target(engine, id);
	return outcome;
}

/* Is there nothing that this process could do instead of waiting? */
static bool
nothing_else(const BbmEngine *engine)
{
	return engine->wait.of_process || list_length(engine->runnable) == 1;
}

/*
 * A migration must wait before its next batch: might no batch be left?  Then
 * it finishes, or verifies, without waiting.  This is checked when the wait
 * begins, and by each process that has done a batch since its last check.
 */
static bool
may_have_ended(const BbmEngine *engine, BbmTarget *target)
{
	bool		worked = target->has_worked;

	target->has_worked = false;
	return !engine->wait.of_process && (worked || engine->wait.begins);
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
	bbm_blockers_work_on(id);
	if (in_trouble(engine, id, &outcome))
		return outcome;
	claim.target = target_for(engine, id, &outcome);
	if (claim.target == NULL)
		return outcome;
	bbm_txn_lock_timeout(bbm_setting_int(claim.target->migration, BBM_LOCK_TIMEOUT));
	if (bbm_is_throttled(claim.target, true, &engine->wait))
	{
		if (may_have_ended(engine, claim.target))
		{
			bool		left = false;

			bbm_slot_report(id, 0);
			outcome = finish_migration(engine, claim.target, &left);
			if (!left)
				return outcome;
		}
		bbm_slot_wait_with(id, bbm_wait_reason(&engine->wait), engine->wait.due);
		if (!nothing_else(engine) || !bbm_wait_for_throttle(engine, claim.target, true, BBM_KEEP_TARGET_MS))
			return wait_until_throttled(engine, claim.target);
	}
	if (claim.target->hold_until > GetCurrentTimestamp())
	{
		snprintf(claim.reason, sizeof(claim.reason), "a while, after %d errors in a row", claim.target->failures_in_row);
		bbm_slot_wait_with(id, claim.reason, claim.target->hold_until);
		outcome.result = BBM_STEP_WAIT;
		outcome.due = claim.target->hold_until;
		return outcome;
	}
	claim.worker_id = engine->worker_id;
	MemoryContextReset(engine->job[0]);
	MemoryContextReset(engine->job[1]);
	claim.context = engine->job[0];
	error = bbm_txn_run(bbm_claim, &claim, false);
	engine->permit_of = id;
	engine->permit = claim.slot;
	if (error || claim.result != BBM_CLAIM_JOB)
		release_permit(engine);
	if (error)
		return fail_or_wait(engine, claim.target->migration, error);
	bbm_trouble_over(id, engine->owner, claim.target->migration->name, false);
	if (claim.idle_until != 0 || claim.result == BBM_CLAIM_JOB)
		bbm_idle_until(id, claim.idle_until);

	switch (claim.result)
	{
		case BBM_CLAIM_JOB:
			call_for_help(engine);
			claim.target->has_worked = true;
			goes_on = bbm_run_jobs(engine, &claim);
			release_permit(engine);
			if (!goes_on)
				forget_target(engine, id);
			return WORKED;
		case BBM_CLAIM_DONE:
			return finish_migration(engine, claim.target, NULL);
		case BBM_CLAIM_CHANGED:
			/* read it again, once; if its row is gone or paused, there is no target */
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
	bbm_slot_wait_with(id, claim.reason, claim.due);
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

	/* if the extension was dropped and created again, it is another one: our locks are in the old one's lock class */
	if (bbm_lock_class() == engine->lock_class)
		engine->runnable = bbm_migrations_runnable(engine->owner, engine->context);
}

/*
 * Re-reads which migrations there are.  Returns false when that cannot be
 * determined now; *due says when to try again, never if the extension is gone
 * or not ours.
 */
static bool
refresh(BbmEngine *engine, TimestampTz *due)
{
	ErrorData  *error;
	ListCell   *cell;

	/* tables that we waited for and do not come back to must not keep others waiting */
	foreach(cell, engine->runnable)
		bbm_set_waiting_for_table(engine->lock_class, ((BbmRunnable *) lfirst(cell))->id, false);
	list_free_deep(engine->runnable);
	engine->runnable = NIL;
	engine->called_for_help = false;
	engine->generation = bbm_request_generation(MyDatabaseId, engine->owner);
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
	bbm_blockers_work_on(0);
	error = bbm_txn_run(read_runnable, engine, false);
	if (error == NULL)
	{
		bbm_trouble_over(0, engine->owner, NULL, true);
		return true;
	}
	if (bbm_error_class(error) == BBM_ERROR_TRANSIENT)
		*due = held(engine, 0, NULL, error).due;
	else
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("cannot read the migrations of database with OID %u: %s", MyDatabaseId,
						bbm_printable(error->message)),
				 error->hint ? errhint("%s", bbm_printable(error->hint)) : 0));
	return false;
}

static int
fewest_others(const ListCell *a, const ListCell *b)
{
	const BbmRunnable *x = lfirst(a);
	const BbmRunnable *y = lfirst(b);

	return x->others != y->others ? x->others - y->others : x->position - y->position;
}

/*
 * The migrations to try: those with the fewest other processes first, then in
 * round-robin order after the current one.
 */
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

		runnable->position = i;
		order = lappend(order, runnable);
	}
	list_sort(order, fewest_others);
	return order;
}

/* After a cancel the driver checks its cause before anything else is started. */
static bool
was_cancelled(const BbmEngine *engine, TimestampTz *due)
{
	if (engine->cancelled == NULL)
		return false;
	*due = GetCurrentTimestamp();
	return true;
}

/* Tries the current migration while its time slice lasts, then all in round-robin order. */
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
 * Does the next thing there is to do.  Called between transactions of the
 * driver.
 */
BbmStepResult
bbm_engine_step(BbmEngine *engine, TimestampTz *due)
{
	MemoryContext old;
	BbmStepResult result;

	MemoryContextReset(engine->step);
	old = MemoryContextSwitchTo(engine->step);
	bbm_worker_id_keep(engine->lock_class, engine->worker_id);
	engine->cancelled = NULL;
	engine->held = false;
	*due = DT_NOEND;
	result = try_migrations(engine, due);
	bbm_txn_lock_timeout(-1);
	MemoryContextSwitchTo(old);
	if (result != BBM_STEP_WORKED)
		bbm_lock_watch_pause();

	/* what we had and have released, such as a table, others may take now */
	if (engine->worked && result != BBM_STEP_WORKED)
		bbm_state_changed();
	engine->worked = result == BBM_STEP_WORKED;
	return result;
}
