/*-------------------------------------------------------------------------
 *
 * trial.c
 *		Batches of a migration that are run and rolled back.
 *
 * NOTES
 *	  The functions that start a migration, allocate its ranges, run and record
 *	  its jobs for a worker do so here as well, in one subtransaction of the
 *	  caller's transaction that is always rolled back.  The migration's row and
 *	  its lock are held from the check of its status on, so that nobody starts,
 *	  alters or drops it meanwhile; whoever tries waits.  A batch that others
 *	  wait for too long is stopped, as a worker's is.
 *
 *	  Batches that follow each other share that subtransaction, so their rows
 *	  are locked until the end.  Batches that begin at drawn places may overlap:
 *	  each has a subtransaction of its own, and finds the table as it is; its
 *	  locks end with it.  Between two of them other sessions may change the
 *	  table in any way; each batch checks again that it is what the target was
 *	  resolved for.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/trial.h"

#include "executor/instrument.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/standby.h"
#include "base/txn.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "engine/event.h"
#include "engine/outcome.h"
#include "engine/outside.h"
#include "sql/access.h"
#include "sql/cluster.h"
#include "strategy/resolve.h"
#include "target/hierarchy.h"
#include "target/lockset.h"
#include "target/null_keys.h"

/* No process has this worker id, and no other session sees a job that carries it. */
#define BBM_NO_WORKER_ID 0

/* Adds to an error which batch it is of. */
static void
batch_context(void *arg)
{
	const BbmTrialBatch *batch = arg;

	if (batch->work.job)
		errcontext("%s of migration \"%s\", batch %s", batch->trial->what, batch->trial->name,
				   bbm_job_range_to_string(batch->work.job));
}

/*
 * Does what a start does, and then what the worker that starts the migration
 * does.  Returns the resulting migration; its rows are locked.
 */
static BbmMigration *
begin(BbmTrial *trial)
{
	BbmMigration *migration;
	BbmTarget  *target;
	BbmStart	start;
	BbmStatus	status;

	if (!bbm_migration_lock(trial->id, &status))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("migration \"%s\" was dropped", trial->name),
				 errdetail("Another session has dropped it meanwhile."),
				 errhint("bbm_status() lists those you may see.")));
	if (status != BBM_PAUSED && status != BBM_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is %s", trial->name, bbm_status_word(status)),
				 errdetail("A %s takes the next batches itself, of a migration that is paused or has failed.", trial->what),
				 status == BBM_FINISHED ? errhint("Define another one to see what that would do.") : errhint("Pause it first.")));
	(void) bbm_migration_set_status(trial->id, BBM_ACTIVE);
	migration = bbm_migration_by_id(trial->id, CurrentMemoryContext);
	target = bbm_target_open(migration);
	PG_TRY();
	{
		/* what is read to allocate a range is written in the same transaction */
		bbm_partitions_lock(target->relid, BBM_WORK_LOCK);
		bbm_prepare_start(target, &start);
		bbm_record_started(target, &start);
		trial->estimate = migration->total >= 0 ? bbm_target_estimate(target) : start.estimate;
	}
	PG_FINALLY();
	{
		bbm_target_close(target);
	}
	PG_END_TRY();
	return bbm_migration_by_id(trial->id, CurrentMemoryContext);
}

/*
 * Claims and runs a batch, with everything that is done for it but its
 * commits.
 */
static void
run_batch(void *arg)
{
	BbmTrialBatch *batch = arg;
	BbmTrial   *trial = batch->trial;
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = batch_context, .arg = batch};
	MemoryContext old = MemoryContextSwitchTo(trial->scratch);
	double		start = bbm_clock_ms();
	int64		wal = pgWalUsage.wal_bytes;

	CHECK_FOR_INTERRUPTS();
	batch->claim = (BbmClaim) {.target = batch->target, .worker_id = BBM_NO_WORKER_ID, .context = trial->scratch,
		.most = batch->most, .slot = -1};
	batch->work = (BbmWork) {.target = batch->target, .context = trial->scratch};
	BBM_POINT("preview-batch");
	batch->found = batch->draw ? bbm_claim_at(&batch->claim, batch->draw) : bbm_claim_any(&batch->claim);
	if (batch->found)
	{
		batch->work.job = &batch->claim.job;
		error_context_stack = &callback;
		if (batch->before)
			batch->before(batch);
		if (!batch->only_claim)
			batch->rows = bbm_work_whole(&batch->work);
		batch->ms = bbm_clock_ms() - start;
		batch->wal = pgWalUsage.wal_bytes - wal;
		if (batch->after)
			batch->after(batch);
		error_context_stack = callback.previous;
	}
	if (batch->work.outside && trial->outside == NULL)
		trial->outside = MemoryContextStrdup(trial->context, bbm_outside_to_string());
	MemoryContextSwitchTo(old);
}

/*
 * Does a batch, and, if it begins at a drawn place, takes it back at once with its locks;
 * false when no range is left.
 */
bool
bbm_trial_batch(BbmTrialBatch *batch)
{
	if (batch->draw)
		bbm_txn_take_back(run_batch, batch);
	else
		run_batch(batch);
	MemoryContextReset(batch->trial->scratch);
	return batch->found;
}

/* A BbmTxnFn with a BbmTrial. */
static void
try_migration(void *arg)
{
	BbmTrial   *trial = arg;
	BbmTarget  *target;

	trial->scratch = AllocSetContextCreate(CurrentMemoryContext, "bbm trial", ALLOCSET_DEFAULT_SIZES);
	target = bbm_target_open(begin(trial));
	PG_TRY();
	{
		trial->run(trial, target);
		bbm_null_keys_warn(target);
	}
	PG_FINALLY();
	{
		/* the target outlives the transaction */
		bbm_target_close(target);
	}
	PG_END_TRY();
}

/* Throws the error that has ended a trial. */
pg_noreturn static void
rethrow(const BbmTrial *trial, ErrorData *error, BbmLockWatchStop stop)
{
	if (stop != BBM_STOP_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("%s of migration \"%s\" was stopped", trial->what, trial->name),
				 stop == BBM_STOP_TIME ?
				 errdetail("A batch took longer than bbm.max_batch_time.") :
				 errdetail("Other sessions waited for its locks longer than bbm.max_blocking_time."),
				 errhint("Try fewer batches, or smaller ones.")));
	ThrowErrorData(error);
	pg_unreachable();
}

/*
 * Checks whether such a function can be called here.  Its parameters are the
 * name of the migration, which is returned, a number, and "sample".
 */
char *
bbm_trial_check(FunctionCallInfo fcinfo, const char *function)
{
	char	   *name = bbm_name_argument(fcinfo);

	/* the batch in flight is monitored, and would not be any more */
	if (bbm_lock_watch_is_on())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a job cannot call %s", function),
				 errdetail("It would run batches within a batch."),
				 errhint("Call it from a session of its own.")));
	bbm_must_be_writable(psprintf("%s()", function));
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("sample must be true or false"),
				 errdetail("It says which batches are tried."),
				 errhint("With true, they are drawn from the whole table; with false, they are the next ones.")));
	return name;
}

/*
 * Runs trial->run for a migration that has been started as a worker starts it,
 * in a transaction of the caller's, in which nothing of ours is left.
 */
void
bbm_trial(BbmTrial *trial)
{
	BbmMigration *migration;
	ErrorData  *volatile error;
	BbmLockWatchStop stop;

	trial->context = CurrentMemoryContext;
	SPI_connect();
	migration = bbm_get_migration(trial->name);
	bbm_check_not_of_cluster(migration, "try", "Try its statement on a copy of some rows.");
	bbm_check_session_owns(migration);
	trial->id = migration->id;
	bbm_txn_lock_timeout(bbm_setting_int(migration, BBM_LOCK_TIMEOUT));
	bbm_ours_begin();
	PG_TRY();
	{
		error = bbm_txn_try(try_migration, trial);
	}
	PG_FINALLY();
	{
		bbm_txn_lock_timeout(-1);
		stop = bbm_lock_watch_outcome();
		bbm_lock_watch_pause();
	}
	PG_END_TRY();
	bbm_ours_end();
	if (error)
		rethrow(trial, error, stop);
	SPI_finish();
	if (trial->outside)
		ereport(NOTICE,
				(errmsg("batches of migration \"%s\" may reach outside of this server: %s", trial->name, trial->outside),
				 errdetail("They will be flushed when they commit. What was done outside of this transaction is not rolled back.")));
}
