/*-------------------------------------------------------------------------
 *
 * dry_run.c
 *		bbm_dry_run: executes the next batches of a migration, to show what
 *		they cost, and rolls them back.
 *
 * NOTES
 *	  The functions that start a migration, allocate its ranges, run and record
 *	  its jobs for a worker do so here as well, in one subtransaction of the
 *	  caller's transaction that is always rolled back.  The migration's row and
 *	  its lock are held from the check of its status on, so that nobody starts,
 *	  alters or drops it meanwhile; whoever tries waits.  The rows of all these
 *	  batches are locked until the end, and a batch that others wait for too
 *	  long is stopped, as a worker's is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "executor/instrument.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/clock.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/txn.h"
#include "catalog/claims.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "engine/batch.h"
#include "engine/claim.h"
#include "engine/event.h"
#include "engine/outcome.h"
#include "engine/outside.h"
#include "sql/access.h"
#include "strategy/resolve.h"
#include "target/hierarchy.h"
#include "target/lockset.h"
#include "target/null_keys.h"
#include "target/size.h"
#include "target/target.h"

PG_FUNCTION_INFO_V1(bbm_dry_run);

/* No process has this worker id, and no other session sees a job that carries it. */
#define BBM_NO_WORKER_ID 0

typedef struct DryRun
{
	int64		id;				/* in */
	const char *name;
	int			wanted;
	MemoryContext context;		/* of what is returned */
	int			jobs;			/* out */
	int64		keys;
	int64		rows;
	double		ms;
	double		wal;
	int			next_size;		/* of the batch that would follow */
	double		estimate;		/* keys of the whole migration */
	bool		complete;		/* no range was left */
	const char *outside;		/* how a batch has reached outside of this server; NULL if none has */
} DryRun;

/* Adds to an error which batch it is of. */
static void
dry_run_context(void *arg)
{
	const BbmWork *work = arg;

	if (work->job)
		errcontext("dry run of migration \"%s\", batch %s",
				   work->target->migration->name, bbm_job_range_to_string(work->job));
}

/*
 * Does what a start does, and then what the worker that starts the migration
 * does.  Returns the resulting migration; its rows are locked.
 */
static BbmMigration *
begin(const DryRun *run, int64 *estimate)
{
	BbmMigration *migration;
	BbmTarget  *target;
	BbmStart	start;
	BbmStatus	status;

	if (!bbm_migration_lock(run->id, &status))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("migration \"%s\" was dropped", run->name)));
	if (status != BBM_PAUSED && status != BBM_FAILED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is %s", run->name, bbm_status_word(status)),
				 errdetail("A dry run takes the next batches itself, of a migration that is paused or has failed."),
				 status == BBM_FINISHED ? 0 : errhint("Pause it first.")));
	(void) bbm_migration_set_status(run->id, BBM_ACTIVE);
	migration = bbm_migration_by_id(run->id, CurrentMemoryContext);
	target = bbm_target_open(migration);
	PG_TRY();
	{
		/* what is read to allocate a range is written in the same transaction */
		bbm_partitions_lock(target->relid, BBM_WORK_LOCK);
		bbm_prepare_start(target, &start);
		bbm_record_started(target, &start);
		*estimate = migration->counted ? bbm_target_estimate(target) : start.estimate;
	}
	PG_FINALLY();
	{
		bbm_target_close(target);
	}
	PG_END_TRY();
	return bbm_migration_by_id(run->id, CurrentMemoryContext);
}

/* One job, with everything that is done for it but its commits.  Returns false when no range is left. */
static bool
do_job(DryRun *run, BbmTarget *target, MemoryContext context)
{
	BbmClaim	claim = {.target = target, .worker_id = BBM_NO_WORKER_ID, .context = context, .slot = -1};
	BbmWork		work = {.target = target, .context = context};
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = dry_run_context, .arg = &work};
	double		start = bbm_clock_ms();
	int64		wal = pgWalUsage.wal_bytes;

	if (!bbm_claim_any(&claim))
		return false;
	work.job = &claim.job;
	error_context_stack = &callback;
	run->rows = bbm_add_counts(run->rows, bbm_work_whole(&work));
	error_context_stack = callback.previous;
	if (work.outside && run->outside == NULL)
		run->outside = MemoryContextStrdup(run->context, bbm_outside_to_string());
	run->keys += work.keys;
	run->ms += bbm_clock_ms() - start;
	run->wal += pgWalUsage.wal_bytes - wal;
	run->jobs++;
	return true;
}

/* A BbmTxnFn with a DryRun. */
static void
dry_run(void *arg)
{
	DryRun	   *run = arg;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bbm_dry_run", ALLOCSET_DEFAULT_SIZES);
	BbmTarget  *target;
	BbmClaimState state;
	int64		estimate;

	target = bbm_target_open(begin(run, &estimate));
	PG_TRY();
	{
		bool		from_the_first = bbm_claim_state(run->id, &state) && !state.has_last;

		while (run->jobs < run->wanted && !run->complete)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			CHECK_FOR_INTERRUPTS();
			run->complete = !do_job(run, target, context);
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		bbm_null_keys_warn(target);
		if (bbm_claim_state(run->id, &state))
			run->next_size = bbm_size_now(target, &state);
		run->estimate = run->complete && from_the_first ? (double) run->keys : (double) Max(estimate, run->keys);
	}
	PG_FINALLY();
	{
		/* the target outlives the transaction */
		bbm_target_close(target);
	}
	PG_END_TRY();
}

/* Throws the error that has ended a dry run. */
pg_noreturn static void
rethrow(ErrorData *error, BbmLockWatchStop stop, const char *name)
{
	if (stop != BBM_STOP_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("dry run of migration \"%s\" was stopped", name),
				 stop == BBM_STOP_TIME ?
				 errdetail("A batch took longer than bbm.max_batch_time.") :
				 errdetail("Other sessions waited for its locks longer than bbm.max_blocking_time."),
				 errhint("Try fewer batches, or smaller ones.")));
	ThrowErrorData(error);
	pg_unreachable();
}

static Datum
interval_of_ms(double ms)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) Min(ms * 1000, (double) PG_INT64_MAX / 2);
	return IntervalPGetDatum(interval);
}

static Datum
whole(double value)
{
	return Int64GetDatum(bbm_count_of(ceil(value)));
}

#define RESULT_COLUMNS 11

/* Checks the parameters, and whether a dry run is possible here; returns the descriptor of its result. */
static TupleDesc
check_call(FunctionCallInfo fcinfo)
{
	TupleDesc	desc;

	if (PG_ARGISNULL(0))
		bbm_must_not_be_null("name");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(PG_ARGISNULL(1) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batches must be a positive number"),
				 errhint("It is how many are tried; their rows stay locked until the last of them has ended.")));
	/* the batch in flight is monitored, and would not be any more */
	if (bbm_lock_watch_is_on())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a job cannot call bbm_dry_run"),
				 errhint("Call it from a session of its own.")));
	PreventCommandDuringRecovery("bbm_dry_run()");
	PreventCommandIfReadOnly("bbm_dry_run()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != RESULT_COLUMNS)
		elog(ERROR, "bbm_dry_run is not declared as it should be");
	return desc;
}

/*
 * bbm_dry_run(name, batches) → one row.  Runs in a transaction of the
 * caller's, in which nothing of ours is left.
 */
Datum
bbm_dry_run(PG_FUNCTION_ARGS)
{
	DryRun		run = {0};
	BbmMigration *migration;
	ErrorData  *volatile error;
	BbmLockWatchStop stop;
	TupleDesc	desc;
	double		times;
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS] = {0};

	desc = check_call(fcinfo);
	run.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	run.wanted = PG_GETARG_INT32(1);
	run.context = CurrentMemoryContext;
	SPI_connect();
	migration = bbm_get_migration(run.name);
	bbm_check_session_owns(migration);
	run.id = migration->id;
	bbm_txn_lock_timeout(bbm_setting_int(migration, BBM_LOCK_TIMEOUT));
	bbm_ours_begin();
	PG_TRY();
	{
		error = bbm_txn_try(dry_run, &run);
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
		rethrow(error, stop, run.name);
	SPI_finish();
	if (run.outside)
		ereport(NOTICE,
				(errmsg("batches of migration \"%s\" may reach outside of this server: %s", run.name, run.outside),
				 errdetail("They will be flushed when they commit. What was done outside of this transaction is not rolled back.")));

	times = run.keys > 0 ? run.estimate / run.keys : 1;
	values[0] = Int32GetDatum(run.jobs);
	values[1] = Int64GetDatum(run.keys);
	values[2] = Int64GetDatum(run.rows);
	values[3] = interval_of_ms(run.ms);
	values[4] = whole(run.wal);
	values[5] = Int32GetDatum(run.next_size);
	values[6] = BoolGetDatum(run.complete);
	values[7] = whole(run.estimate);
	values[8] = whole(run.rows * times);
	values[9] = interval_of_ms(run.ms * times);
	values[10] = whole(run.wal * times);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
