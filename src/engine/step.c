/*-------------------------------------------------------------------------
 *
 * step.c
 *		The next thing to do for one migration: start it, run jobs of it, or
 *		finish it.
 *
 * NOTES
 *	  Between steps the process holds nothing: no transaction, no snapshot, no
 *	  lock but the one of the worker id, which shows that the process is alive.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/step.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "base/blockers.h"
#include "base/cancel.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/requests.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/errors.h"
#include "catalog/events.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/shards.h"
#include "engine/claim.h"
#include "engine/cluster.h"
#include "engine/completion.h"
#include "engine/outcome.h"
#include "engine/postpone.h"
#include "engine/run_job.h"
#include "strategy/resolve.h"
#include "target/null_keys.h"
#include "target/target.h"
#include "throttle/throttle.h"

/*
 * After a longer wait than this a target is resolved anew: the migration or
 * the table may have been altered meanwhile.  The process keeps the target
 * during a shorter wait, and during a pacing pause between two batches, however
 * long: how many of its batches have failed in a row is known there.  The claim
 * detects what has changed.
 */
#define BBM_KEEP_TARGET_MS 100

void
bbm_forget_target(BbmEngine *engine, int64 id)
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

typedef struct OpenArgs
{
	BbmEngine  *engine;
	int64		id;
	BbmMigration *migration;	/* as read, once this engine is to run it */
	BbmTarget  *target;			/* NULL also if it is the nodes' to run */
	BbmStart	start;			/* in the step's context */
	bool		started;
	bool		elsewhere;		/* its shard is not to be worked on here */
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

static bool
runs(const BbmMigration *migration)
{
	return migration->status == BBM_ACTIVE || migration->status == BBM_RUNNING;
}

/* Reads the row and resolves it.  The claim detects later changes, through updated_at. */
static void
open_target(void *arg)
{
	OpenArgs   *args = arg;
	BbmMigration *migration = bbm_migration_by_id(args->id, args->engine->step);
	MemoryContext old;

	if (migration == NULL || migration->owner != args->engine->owner ||
		bbm_migration_is_copy(migration->origin, migration->restored) ||
		(!runs(migration) && migration->unreached_nodes == NULL))
		return;
	/* checked before an error counts as the migration's: it waits for another owner of the tables */
	bbm_catalog_check_trust(migration->owner);
	args->migration = migration;
	args->elsewhere = migration->shard_id != 0 && !bbm_shard_may_run(migration);
	if (args->elsewhere || bbm_is_of_cluster(migration))
		return;
	if (args->engine->max_attempts > 0)
		migration->max_attempts = args->engine->max_attempts;
	args->target = bbm_target_open(migration);
	if (!is_new(migration))
		return;
	old = MemoryContextSwitchTo(args->engine->step);
	bbm_prepare_start(args->target, &args->start);
	MemoryContextSwitchTo(old);
}

/*
 * Changes active to running.  The row's lock keeps other changes of status out
 * until we commit; one that committed before is seen here.
 */
static void
set_running(void *arg)
{
	OpenArgs   *args = arg;
	BbmStatus	status;
	BbmMigration *now;

	BBM_POINT("start-begin");
	args->started = bbm_migration_lock(args->id, &status) &&
		(now = bbm_migration_by_id(args->id, args->engine->step)) != NULL && is_new(now);
	if (args->started)
		bbm_record_started(args->target, &args->start);
}

/* Returns the migration's current target, started; NULL with an outcome when there is none. */
static BbmTarget *
target_for(BbmEngine *engine, int64 id, BbmOutcome *outcome)
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
		if (args.target)
			bbm_target_close(args.target);
		if (args.migration)
			*outcome = bbm_fail_or_wait(engine, args.migration, error);
		else
			/* its row could not be read, so that its name is not known yet */
			*outcome = bbm_try_later(engine, 0, NULL, error);
		return NULL;
	}
	*outcome = BBM_NOTHING;
	if (args.target == NULL && args.migration && !args.elsewhere)
		*outcome = runs(args.migration) ? bbm_lead_cluster(engine, args.migration) :
			bbm_reach_nodes(engine, args.migration);
	if (args.target == NULL)
		return NULL;
	if (!is_new(args.migration))
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);

		args.target->starts = engine->started == id;
		engine->started = 0;
		engine->targets = lappend(engine->targets, args.target);
		MemoryContextSwitchTo(old);
		return args.target;
	}

	error = bbm_txn_run(set_running, &args, false);
	if (error)
		*outcome = bbm_fail_or_wait(engine, args.migration, error);
	else
	{
		if (args.started)
		{
			engine->started = id;
			ereport(LOG, (errmsg("migration \"%s\" is running", bbm_printable(args.migration->name))));
		}
		bbm_state_changed();
		*outcome = BBM_WORKED;
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
	char		quarantined[100];	/* what is, in words; empty: nothing */
} FinishArgs;

/*
 * The row's lock and the migration's lock are held from the check to the
 * commit: no pause, no claim and no change of max_value can intervene.  What
 * has changed since the target was resolved may ask for more than it shows, such
 * as a verification: then the row is read again first.
 */
static void
finish(void *arg)
{
	FinishArgs *args = arg;
	BbmShard   *shard = args->target->shard;
	BbmStatus	status;

	BBM_POINT("end-begin");
	/* it stays here until we commit; its record is locked before the migration's row, as everywhere */
	if (shard && bbm_shard_enter(shard) != BBM_SHARD_OURS)
		return;
	if (!bbm_migration_lock_as_read(args->target->migration, &status) || status != BBM_RUNNING ||
		!bbm_nothing_left(args->target))
		return;
	args->ended = true;
	BBM_POINT("end-locked");
	args->finished = bbm_phase_ended(args->target);
	if (args->finished)
	{
		/* these rows must not be skipped silently */
		if (args->target->migration->skip_null_keys)
			bbm_null_keys_warn(args->target);
		bbm_migration_finish(args->target->migration->id);
		strlcpy(args->quarantined, bbm_quarantined_to_string(args->target->migration->id), sizeof(args->quarantined));
		if (shard)
			bbm_shard_finish(shard);
		bbm_events_prune();
		/* whoever sees it finished may rely on every batch before it */
		ForceSyncCommit();
	}
}

/*
 * What follows when nothing is left of a phase.  With "left", checks whether
 * that is so: *left says that something is left.
 */
static BbmOutcome
finish_migration(BbmEngine *engine, BbmTarget *target, bool *left)
{
	FinishArgs	args = {target};
	ErrorData  *error = bbm_txn_run(finish, &args, false);

	if (error)
		return bbm_fail_or_wait(engine, target->migration, error);
	if (left && !args.ended)
	{
		*left = true;
		return BBM_NOTHING;
	}
	bbm_trouble_over(target->migration->id, engine->owner, target->migration->name, true);
	if (args.finished)
		ereport(LOG,
				(errmsg("migration \"%s\" is finished%s", bbm_printable(target->migration->name), args.quarantined),
				 args.quarantined[0] != '\0' ? errhint("%s", BBM_QUARANTINE_HINT) : 0));
	else
		/* another phase: workers that have exited because no range was left may come again */
		engine->called_for_help = false;
	bbm_forget_target(engine, engine->current);
	bbm_state_changed();
	return BBM_WORKED;
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
static BbmOutcome
wait_until_throttled(BbmEngine *engine, BbmTarget *target)
{
	BbmOutcome	outcome = {BBM_STEP_WAIT, engine->wait.reason.due};
	int64		id = target->migration->id;

	if (engine->wait.cancelled)
		engine->cancelled = engine->wait.cancelled;
	engine->throttled = !engine->wait.of_process;
	bbm_slot_wait_with(id, bbm_wait_reason(&engine->wait));
	bbm_set_waiting_for_table(engine->lock_class, id, false);
	target->table_since = 0;
	if (!engine->wait.of_process &&
		engine->wait.reason.due > TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_KEEP_TARGET_MS))
		bbm_forget_target(engine, id);
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

	if (engine->wait.of_process)
		return false;
	target->has_worked = false;
	return worked || engine->wait.begins;
}

/* If that may be so: does it end, or fail in the attempt?  Then *outcome says how. */
static bool
ends_instead(BbmEngine *engine, BbmTarget *target, BbmOutcome *outcome)
{
	bool		left = false;

	if (!may_have_ended(engine, target))
		return false;
	bbm_slot_report(target->migration->id, 0);
	*outcome = finish_migration(engine, target, &left);
	return !left;
}

/*
 * Is the migration to be left alone for now, with that outcome?  Either the
 * server has no room, or it has failed too often in a row, or somebody has the
 * row of its last job locked.
 */
static bool
must_wait(BbmEngine *engine, BbmTarget *target, BbmOutcome *outcome)
{
	int64		id = target->migration->id;

	if (bbm_is_throttled(target, true, &engine->wait))
	{
		if (ends_instead(engine, target, outcome))
			return true;
		bbm_slot_wait_with(id, bbm_wait_reason(&engine->wait));
		if (!nothing_else(engine) || !bbm_wait_for_throttle(engine, target, true, BBM_KEEP_TARGET_MS))
		{
			/* a pacing pause may have gone over into a wait for the migration's rate */
			if (ends_instead(engine, target, outcome))
				return true;
			*outcome = wait_until_throttled(engine, target);
			return true;
		}
	}
	if (!bbm_time_has_come(GetCurrentTimestamp(), target->throttled_until, BBM_LONGEST_WAIT_MS))
	{
		BbmReason	reason = bbm_reason(psprintf("a while, after %d errors in a row", target->failures_in_row),
										target->throttled_until);

		*outcome = bbm_wait_until(id, &reason);
		return true;
	}
	/* the timer of the last check's transaction wakes us, though it is off: a check for that would start another one */
	if (!bbm_time_has_come(GetCurrentTimestamp(), target->locked_until, BBM_LOCKED_POLL_MS))
	{
		BbmReason	reason = bbm_reason(target->locked_by, target->locked_until);

		*outcome = bbm_wait_until(id, &reason);
		return true;
	}
	return false;
}

static int
rank_of(const BbmEngine *engine, int64 id)
{
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		const BbmRunnable *runnable = lfirst(cell);

		if (runnable->id == id)
			return runnable->rank;
	}
	return 0;
}

/* Claims a job, in a transaction; the permit of a job is the engine's until it is released. */
static ErrorData *
claim_job(BbmEngine *engine, BbmClaim *claim)
{
	int64		id = claim->target->migration->id;
	ErrorData  *error;

	claim->worker_id = engine->worker_id;
	claim->rank = rank_of(engine, id);
	MemoryContextReset(engine->job[0]);
	MemoryContextReset(engine->job[1]);
	claim->context = engine->job[0];
	error = bbm_txn_run(bbm_claim, claim, false);
	engine->permit_of = id;
	engine->permit = claim->slot;
	if (error || claim->result != BBM_CLAIM_JOB)
		bbm_release_permit(engine);
	if (error)
		return error;
	bbm_trouble_over(id, engine->owner, claim->target->migration->name, false);
	if (claim->idle_until != 0 || claim->result == BBM_CLAIM_JOB)
		bbm_idle_until(id, claim->idle_until);
	return NULL;
}

/* Does the next thing for one migration. */
BbmOutcome
bbm_try_migration(BbmEngine *engine, int64 id)
{
	BbmOutcome	outcome;
	BbmClaim	claim = {.slot = -1};
	ErrorData  *error;
	bool		goes_on;

	engine->current = id;
	bbm_blockers_work_on(id);
	if (bbm_in_trouble(engine, id, &outcome))
		return outcome;
	claim.target = target_for(engine, id, &outcome);
	if (claim.target == NULL)
		return outcome;
	bbm_txn_lock_timeout(bbm_setting_int(claim.target->migration, BBM_LOCK_TIMEOUT));
	if (must_wait(engine, claim.target, &outcome))
		return outcome;
	error = claim_job(engine, &claim);
	if (error)
		return bbm_fail_or_wait(engine, claim.target->migration, error);

	switch (claim.result)
	{
		case BBM_CLAIM_JOB:
			call_for_help(engine);
			claim.target->has_worked = true;
			goes_on = bbm_run_jobs(engine, &claim);
			bbm_release_permit(engine);
			if (!goes_on)
				bbm_forget_target(engine, id);
			return BBM_WORKED;
		case BBM_CLAIM_DONE:
			return finish_migration(engine, claim.target, NULL);
		case BBM_CLAIM_CHANGED:
			/* read it again, once; if its row is gone or paused, there is no target */
			bbm_forget_target(engine, id);
			claim.target = target_for(engine, id, &outcome);
			return claim.target ? BBM_WORKED : outcome;
		case BBM_CLAIM_USED_UP:
			error = bbm_make_error(ERRCODE_CRASH_SHUTDOWN,
								   "the workers that ran a job are gone, and it has no attempts left",
								   "See the server log for why they ended, then bbm_retry.");
			bbm_record_migration_failed(claim.target->migration, BBM_CODE_ATTEMPTS, error);
			bbm_forget_target(engine, id);
			return BBM_WORKED;
		case BBM_CLAIM_OTHERS:
			return BBM_NOTHING;
		case BBM_CLAIM_LATER:
			/* its rate begins anew after that, if nobody else works on it */
			if (claim.reason.due > TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_SLICE_MS))
				claim.target->sums_due = 0;
			break;
	}
	return bbm_wait_until(id, &claim.reason);
}
