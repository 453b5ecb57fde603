/*-------------------------------------------------------------------------
 *
 * run.c
 *		CALL bbm_run and bbm_launch_worker: running without the launcher.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/impact_counts.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/rates.h"
#include "base/requests.h"
#include "base/shared.h"
#include "base/shares.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/standby.h"
#include "base/txn.h"
#include "base/wait_event.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/options.h"
#include "engine/engine.h"
#include "engine/scheduler.h"
#include "server/worker.h"
#include "sql/access.h"
#include "sql/cluster.h"
#include "throttle/throttle.h"

PG_FUNCTION_INFO_V1(bbm_run);
PG_FUNCTION_INFO_V1(bbm_launch_worker);

#define BBM_POLL_MS 200
/* a launched worker that has nothing to do occupies a process slot: for this long at most */
#define BBM_LONGEST_IDLE_MS (60 * 60 * 1000)
/* how long a launched worker stays at least, so that its launch is noticed */
#define BBM_LAUNCH_SEEN_MS 200

typedef struct RunState
{
	int64		id;				/* in */
	MemoryContext context;
	BbmMigration *migration;	/* out; NULL when it was deleted */
	BbmProgress progress;
	const char *quarantined;
} RunState;

static void
read_state(void *arg)
{
	RunState   *state = arg;

	MemoryContextReset(state->context);
	state->migration = bbm_migration_by_id(state->id, state->context);
	if (state->migration)
	{
		bbm_migration_progress(state->id, state->context, &state->progress);
		state->quarantined = "";
		if (state->migration->status == BBM_FINISHED)
			state->quarantined = MemoryContextStrdup(state->context, bbm_quarantined_to_string(state->id));
	}
}

static void
start_it(void *arg)
{
	(void) bbm_migration_set_status(*(int64 *) arg, BBM_ACTIVE);
}

/* Runs fn in a transaction of this session; throws its error. */
static void
run_or_throw(BbmTxnFn fn, void *arg)
{
	ErrorData  *error = bbm_txn_run(fn, arg, true);

	if (error)
		ThrowErrorData(error);
}

/* What the migration's status means for the session that waits for it; returns true while it goes on. */
static bool
goes_on(const RunState *state, const char *name)
{
	const BbmProgress *progress = &state->progress;

	if (state->migration == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("migration \"%s\" was dropped while it ran", name),
				 errdetail("What its batches have done until then stays done."),
				 errhint("Define it anew for what is left.")));
	switch (state->migration->status)
	{
		case BBM_FINISHED:
			ereport(NOTICE,
					(errmsg("migration \"%s\" is finished%s: " INT64_FORMAT " rows, " INT64_FORMAT " jobs",
							name, state->quarantined, progress->rows, progress->jobs),
					 state->quarantined[0] != '\0' ? errhint("%s", BBM_QUARANTINE_HINT) : 0));
			return false;
		case BBM_FAILED:
			ereport(ERROR,
					(errcode(progress->sqlstate && strlen(progress->sqlstate) == 5 ?
							 MAKE_SQLSTATE(progress->sqlstate[0], progress->sqlstate[1], progress->sqlstate[2],
										   progress->sqlstate[3], progress->sqlstate[4]) : ERRCODE_INTERNAL_ERROR),
					 errmsg("migration \"%s\" failed: %s", name, progress->error ? progress->error : "unknown error"),
					 progress->detail ? errdetail_internal("%s", progress->detail) : 0,
					 errhint("%s", progress->hint ? progress->hint :
							 "bbm_jobs shows which job; when it is corrected, run the migration again.")));
			return false;
		case BBM_PAUSED:
			/* by bbm itself */
			if (progress->error)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("migration \"%s\" was paused: %s", name, progress->error),
						 progress->detail ? errdetail_internal("%s", progress->detail) : 0,
						 progress->hint ? errhint("%s", progress->hint) : 0));
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("migration \"%s\" was paused while it ran", name),
					 errdetail("%s percent are done.", progress->percent),
					 errhint("Start it, or run it again, to go on where it stopped.")));
			return false;
		default:
			return true;
	}
}

/* Is a report due, as the last one was made at reported_at? */
static bool
report_is_due(TimestampTz now, TimestampTz reported_at)
{
	int64		interval = bbm_progress_interval * INT64CONST(1000);

	return interval > 0 && bbm_time_has_come(now, TimestampTzPlusMilliseconds(reported_at, interval), interval);
}

/* Reports what the migration waits for, once that has lasted a while and then from time to time. */
static void
report_wait(const BbmEngine *engine, const char *name, TimestampTz *reported_at)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!report_is_due(now, *reported_at) ||
		now < TimestampTzPlusMilliseconds(engine->wait.since, BBM_REPORT_WAIT_MS))
		return;
	ereport(NOTICE,
			(errmsg("migration \"%s\" waits: %s", name, engine->wait.reason.text)));
	*reported_at = now;
}

#define BBM_CANCELLED_DETAIL "Migration \"%s\" stays started; a batch in flight was requeued."
#define BBM_CANCELLED_HINT "Pause it if nobody else is to go on with it."

/* The error is that the caller cancels: it says the same wherever it comes. */
static void
cancelled(void *name)
{
	if (geterrcode() != ERRCODE_QUERY_CANCELED)
		return;
	errdetail(BBM_CANCELLED_DETAIL, (const char *) name);
	errhint(BBM_CANCELLED_HINT);
}

/*
 * How far the migration is, as it was just read; and its last error, as a
 * batch that is tried again looks like one that runs.
 */
static void
report_progress(const RunState *state, const char *name, TimestampTz *reported_at)
{
	const BbmProgress *progress = &state->progress;

	if (state->migration && state->migration->status == BBM_RUNNING)
		ereport(NOTICE,
				(errmsg("migration \"%s\": %s percent, " INT64_FORMAT " rows, " INT64_FORMAT " jobs",
						name, progress->percent, progress->rows, progress->jobs),
				 progress->last_error ? errdetail("The last error was: %s", progress->last_error) : 0));
	*reported_at = GetCurrentTimestamp();
}

/* Drives the engine until the migration has ended. */
static void
drive(BbmEngine *engine, RunState *state, char *name)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = cancelled, .arg = name};
	TimestampTz reported_at = GetCurrentTimestamp();
	TimestampTz wait_reported_at = 0;

	error_context_stack = &callback;
	for (;;)
	{
		TimestampTz due;
		BbmStepResult result;

		CHECK_FOR_INTERRUPTS();
		/* a session reloads when its command has ended; this one may take days, and wait for what a reload changes */
		(void) bbm_guc_reload();
		/* a job may catch an error of its own */
		error_context_stack = callback.previous;
		result = bbm_engine_step(engine, &due);
		error_context_stack = &callback;
		if (engine->cancelled)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg_internal("%s", engine->cancelled->message),
					 errdetail(BBM_CANCELLED_DETAIL, name),
					 errhint(BBM_CANCELLED_HINT)));
		if (result == BBM_STEP_WORKED)
		{
			if (!report_is_due(GetCurrentTimestamp(), reported_at))
				continue;
			run_or_throw(read_state, state);
			report_progress(state, name, &reported_at);
			continue;
		}

		if (engine->throttled)
			report_wait(engine, name, &wait_reported_at);
		/* nothing to do for us now: it has ended, or others run what is left, or a retry is not due */
		run_or_throw(read_state, state);
		if (!goes_on(state, name))
			break;
		if (!engine->throttled && report_is_due(GetCurrentTimestamp(), reported_at))
			report_progress(state, name, &reported_at);
		due = Min(due, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_POLL_MS));
		bbm_sleep(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due), BBM_WAIT_OTHERS);
	}
	error_context_stack = callback.previous;
}

static void
run_one(int64 id, int max_attempts, MemoryContext context)
{
	RunState	state = {.id = id, .context = AllocSetContextCreate(context, "bbm_run state", ALLOCSET_SMALL_SIZES)};
	BbmEngine  *engine;
	char	   *name;
	ErrorData  *why_not;

	run_or_throw(read_state, &state);
	if (state.migration == NULL)
		return;
	if (state.migration->status == BBM_FINISHED)
	{
		(void) goes_on(&state, state.migration->name);
		return;
	}
	bbm_check_session_owns(state.migration);
	name = MemoryContextStrdup(context, state.migration->name);
	run_or_throw(start_it, &id);
	engine = bbm_engine_begin(state.migration->owner, id, &why_not);
	if (engine == NULL)
		ereport(ERROR,
				(errcode(why_not->sqlerrcode),
				 errmsg("cannot run migration \"%s\" now: %s", state.migration->name, why_not->message),
				 why_not->detail ? errdetail_internal("%s", why_not->detail) : errdetail("It is started, and stays so."),
				 why_not->hint ? errhint("%s", why_not->hint) : errhint("Try again.")));
	engine->max_attempts = max_attempts;
	(void) bbm_slot_take(BBM_KIND_FOREGROUND, state.migration->owner);
	PG_TRY();
	{
		drive(engine, &state, name);
	}
	PG_FINALLY();
	{
		/* others do whatever is left */
		bbm_engine_end(engine);
		bbm_slot_release(true);
		bbm_request_announce(MyDatabaseId, GetSessionUserId());
	}
	PG_END_TRY();
}

typedef struct FindArgs
{
	const char *name;			/* or NULL for all of the session's role */
	bool		failed;			/* ... including those that have failed */
	MemoryContext context;
	List	   *ids;
} FindArgs;

static void
find(void *arg)
{
	FindArgs   *args = arg;
	List	   *migrations;
	ListCell   *cell;

	if (args->name)
	{
		BbmMigration *named = bbm_get_migration(args->name);

		if (named->shard_id != 0)
			bbm_check_not_of_cluster(named, "run", BBM_OF_THE_WHOLE);
		bbm_check_session_owns(named);
		migrations = list_make1(named);
	}
	else
		migrations = bbm_migrations_with_status(args->failed ?
												list_make4_int(BBM_PAUSED, BBM_ACTIVE, BBM_RUNNING, BBM_FAILED) :
												list_make3_int(BBM_PAUSED, BBM_ACTIVE, BBM_RUNNING));
	foreach(cell, migrations)
	{
		BbmMigration *migration = lfirst(cell);
		MemoryContext old = MemoryContextSwitchTo(args->context);
		int64	   *id = palloc(sizeof(int64));

		*id = migration->id;
		/* one that is about a shard goes as the whole does */
		if (migration->owner == GetSessionUserId() && migration->shard_id == 0)
			args->ids = lappend(args->ids, id);
		MemoryContextSwitchTo(old);
	}
}

/*
 * CALL bbm_run(name, max_attempts, resume_failed): the engine in this
 * session's own transactions, beside or without background workers, with the
 * same guarantees.
 */
Datum
bbm_run(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	FindArgs	args = {0};
	int			max_attempts = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	ListCell   *cell;

	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bbm_run cannot be called inside a transaction block"),
				 errdetail("It commits after each batch."),
				 errhint("CALL it by itself, outside BEGIN ... COMMIT and outside a function.")));

	bbm_not_on_standby("CALL bbm_run()");
	if (!PG_ARGISNULL(1))
		bbm_option_check(bbm_option_of_column("max_attempts"), Int32GetDatum(max_attempts), INT4OID);
	/* outlives the transactions, not the call */
	context = AllocSetContextCreate(PortalContext ? PortalContext : TopMemoryContext, "bbm_run",
									ALLOCSET_DEFAULT_SIZES);
	bbm_impact_leave_out_until(context);
	args.name = PG_ARGISNULL(0) ? NULL :
		MemoryContextStrdup(context, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	args.failed = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	args.context = context;
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	MemoryContextSwitchTo(context);
	run_or_throw(find, &args);
	foreach(cell, args.ids)
		run_one(*(int64 *) lfirst(cell), max_attempts, context);
	SPI_finish();
	/* a DO block may call this again and again */
	MemoryContextDelete(context);
	PG_RETURN_VOID();
}

/*
 * Is there room for one more process?  Somebody else may take it before the
 * worker starts, which checks again and exits in that case.
 */
static void
check_room(void)
{
	if (bbm_shared ? bbm_slots_unused() > 0 : bbm_launched_permits(bbm_lock_class(), bbm_max_workers) > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a worker: as many run as are allowed"),
			 bbm_shared ? errdetail("\"bbm.max_workers\" is %d.", bbm_max_workers) :
			 errdetail("Without the library being preloaded a database can have %d.", bbm_max_workers),
			 errhint("CALL bbm_run works in this session; or wait until one of them exits.")));
}

/*
 * Launches a worker for this database and the session's role, with or without
 * the library preloaded.
 */
Datum
bbm_launch_worker(PG_FUNCTION_ARGS)
{
	BbmWorkerStart start = {.kind = BBM_KIND_LAUNCHED, .database = MyDatabaseId, .owner = GetSessionUserId()};
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	double		idle_ms;
	pid_t		pid;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("idle_timeout must not be null"),
				 errdetail("It is for how long the worker stays when it finds nothing to do."),
				 errhint("Leave it out for its default, a minute.")));
	/* it would wait for the promotion */
	bbm_not_on_standby("bbm_launch_worker()");
	(void) bbm_catalog();
	idle_ms = DatumGetFloat8(DirectFunctionCall2(interval_part, CStringGetTextDatum("epoch"), PG_GETARG_DATUM(0))) * 1000;
	if (idle_ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idle_timeout must not be negative"),
				 errdetail("It is for how long the worker stays when it finds nothing to do."),
				 errhint("Zero makes the worker exit as soon as it finds nothing to do.")));
	if (!(idle_ms <= BBM_LONGEST_IDLE_MS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("idle_timeout must not be more than one hour"),
				 errdetail("A worker that has nothing to do keeps its process from others."),
				 errhint("It stays for as long as it has work, however long that takes.")));
	if (!bbm_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("workers are disabled"),
				 errdetail("The setting bbm.enabled is off."),
				 errhint("CALL bbm_run works without it.")));
	/* a worker that has exited before we have seen it would seem not to have started */
	start.idle_ms = Max((int64) idle_ms, BBM_LAUNCH_SEEN_MS);
	check_room();
	BBM_POINT("launch-checked");
	bbm_worker_describe(&worker, "bbm_worker_main", 0, &start);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a worker: out of background worker slots"),
				 errdetail("All of max_worker_processes, which is %d, are taken.", max_worker_processes),
				 errhint("You might need to increase max_worker_processes; or CALL bbm_run.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the worker did not start"),
				 errdetail("It ended before it was connected to the database."),
				 errhint("The server log says why.")));
	PG_RETURN_INT32(pid);
}
