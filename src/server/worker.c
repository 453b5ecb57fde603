/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The background worker: one database, one owner.
 *
 * NOTES
 *	  A worker logs in as the owner of the migrations it runs: whatever a job
 *	  does to its session, it does with its owner's rights.  The worker runs
 *	  until nothing is due, records in shared memory when something will be,
 *	  and exits; the launcher starts another.  The postmaster never restarts
 *	  it.
 *
 *	  SIGTERM takes effect at the next CHECK_FOR_INTERRUPTS; the batch in
 *	  flight is rolled back and its job is taken over as an orphan.  SIGINT
 *	  cancels the batch in flight, which is requeued; between batches it only
 *	  makes the worker check its slot.
 *
 *	  The worker of bbm_launch_worker() differs in that nobody notifies it of
 *	  new work: it polls the table every second.
 *
 *-------------------------------------------------------------------------
 */
#include "server/worker.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/cancel.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/neighbours.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/requests.h"
#include "base/shared.h"
#include "base/shares.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/user.h"
#include "base/wait_event.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/tables.h"
#include "engine/engine.h"
#include "engine/error_class.h"
#include "engine/outcome.h"
#include "engine/scheduler.h"
#include "server/stalled.h"

/* The worker sleeps for waits shorter than this; for longer ones it exits and is started again. */
#define BBM_STAY_MS 2000
#define BBM_POLL_MS 1000

static void
install_signal_handlers(void)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
}

/* Called between batches, where cancels are held off: there is nothing left to cancel. */
static void
serve_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	QueryCancelPending = false;
	(void) bbm_guc_reload();
}

static void
sleep_until(TimestampTz due)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due);

	pgstat_report_stat(true);
	bbm_sleep(ms, BBM_WAIT_WORKER);
}

static void
acquire_permit(void *arg)
{
	*(bool *) arg = bbm_launched_permit_acquire(bbm_lock_class(), bbm_max_workers);
}

/* Without shared memory: would this launched worker be one too many for the database? */
static bool
is_one_too_many(const BbmWorkerStart *start)
{
	bool		taken = true;
	ErrorData  *error;

	if (start->kind != BBM_KIND_LAUNCHED || bbm_shared)
		return false;
	error = bbm_txn_run(acquire_permit, &taken, false);
	/* the engine reports the error */
	return error == NULL && !taken;
}

/*
 * Waits until there may be something to do; false when another worker needs
 * the slot meanwhile.  Then this worker is started again no sooner than if it
 * had stayed; otherwise it would only come back to poll, and keep others from
 * working.
 */
static bool
wait_in_slot(const BbmWorkerStart *start, const BbmEngine *engine, TimestampTz due)
{
	TimestampTz come_back;

	if (!bbm_slot_is_wanted(false))
	{
		sleep_until(due);
		/* another worker may have requested the slot meanwhile, and woken us */
		if (GetCurrentTimestamp() >= due || !bbm_slot_is_wanted(false))
			return true;
	}
	come_back = Max(due, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_STAY_MS));
	bbm_engine_keep_table_waits(engine, TimestampTzPlusMilliseconds(come_back, BBM_STAY_MS));
	bbm_request_fulfil(start->database, start->owner, engine->generation, come_back, bbm_engine_is_throttled(engine));
	return false;
}

/* Works until nothing is due soon, and records that, or until asked to exit. */
static void
run_until_idle(const BbmWorkerStart *start)
{
	uint64		generation = bbm_request_generation(start->database, start->owner);
	ErrorData  *why_not = NULL;
	BbmEngine  *engine = bbm_engine_begin(start->owner, 0, &why_not);
	TimestampTz busy_at = GetCurrentTimestamp();

	if (engine == NULL)
	{
		TimestampTz due = DT_NOEND;

		if (bbm_error_class(why_not) == BBM_ERROR_TRANSIENT)
			due = bbm_trouble_met(0, start->owner, NULL, why_not, bbm_error_is_lock(why_not->sqlerrcode), false);
		else
			ereport(LOG,
					(errcode(why_not->sqlerrcode),
					 errmsg("cannot run migrations in database with OID %u: %s", MyDatabaseId,
							bbm_printable(why_not->message)),
					 why_not->hint ? errhint("%s", bbm_printable(why_not->hint)) : 0));
		bbm_request_fulfil(start->database, start->owner, generation, due, false);
		return;
	}
	for (;;)
	{
		TimestampTz due;
		BbmStepResult result;
		TimestampTz now;

		serve_interrupts();
		/* the request stays as it is, for the next worker */
		if (bbm_slot_must_exit() || !bbm_enabled)
			break;
		result = bbm_engine_step(engine, &due);
		now = GetCurrentTimestamp();
		if (result == BBM_STEP_WORKED)
		{
			busy_at = now;
			if (bbm_engine_slice_over(engine) && bbm_slot_is_wanted(true))
				break;
			continue;
		}
		if (start->kind == BBM_KIND_LAUNCHED)
		{
			if (TimestampDifferenceExceeds(busy_at, now, (int) Min(start->idle_ms, INT_MAX)))
				break;
			due = Min(due, TimestampTzPlusMilliseconds(now, BBM_POLL_MS));
		}
		else if (result == BBM_STEP_IDLE || due > TimestampTzPlusMilliseconds(now, BBM_STAY_MS))
		{
			BBM_POINT_BETWEEN("exit-idle");
			bbm_request_fulfil(start->database, start->owner, engine->generation, due, bbm_engine_is_throttled(engine));
			break;
		}
		if (!wait_in_slot(start, engine, due))
			break;
	}
	bbm_engine_end(engine);
}

/*
 * Takes this process's slot and connects.  False when it is not wanted: the
 * slot was given to another, or the server is in recovery, where nothing can
 * be written.
 */
static bool
come_up(const BbmWorkerStart *start, int slot, Oid *owner)
{
	Oid			database = start->database;

	install_signal_handlers();
	if (RecoveryInProgress())
		return false;
	*owner = start->owner;
	BBM_POINT_BETWEEN(start->kind == BBM_KIND_DISCOVERY ? "discovery-attach" : "launch-attach");
	if (start->kind != BBM_KIND_LAUNCHED && !bbm_slot_attach(slot, start->generation, &database, owner))
		return false;
	BackgroundWorkerInitializeConnectionByOid(database, *owner, BBM_CONNECT_FLAGS);
	if (start->kind == BBM_KIND_LAUNCHED && bbm_shared && !bbm_slot_take(BBM_KIND_LAUNCHED, *owner))
	{
		/* a slot was free when this worker was launched, and is not any more */
		ereport(LOG, (errmsg("worker exits because all slots are taken")));
		return false;
	}
	bbm_slot_connected();
	BBM_POINT_BETWEEN(start->kind == BBM_KIND_DISCOVERY ? "discovery-connected" : "launch-connected");
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	(void) set_config_option("application_name", MyBgworkerEntry->bgw_type, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SET, true, 0, false);
	bbm_txn_become_worker();
	if (start->kind != BBM_KIND_DISCOVERY)
		bbm_neighbours_announce();
	return true;
}

/* Entry point of a worker; ends the process. */
void
bbm_worker_main(Datum arg)
{
	BbmWorkerStart start;
	Oid			owner;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	if (come_up(&start, DatumGetInt32(arg), &owner) && !is_one_too_many(&start))
		run_until_idle(&start);
	pgstat_report_stat(true);
	bbm_slot_release(true);
	proc_exit(0);
}

/* ----------------------------------------------------------------
 * Discovery
 * ----------------------------------------------------------------
 */

/* The reason why no worker can log in as this role, or NULL. */
static ErrorData *
why_unusable(Oid role)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		return bbm_make_error(ERRCODE_UNDEFINED_OBJECT, "the owner of the migration, a role, was dropped",
							  "Give it another owner with bbm_alter, and start it again.");
	if (!bbm_may_log_in(role))
		return bbm_make_error(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
							  "the owner of the migration is a role that is not permitted to log in",
							  "ALTER ROLE ... LOGIN, or give the migration another owner; from PostgreSQL 17 on this is not needed.");
	if (object_aclcheck(DatabaseRelationId, MyDatabaseId, role, ACL_CONNECT) != ACLCHECK_OK)
		return bbm_make_error(ERRCODE_INSUFFICIENT_PRIVILEGE,
							  "the owner of the migration has no privilege to connect to the database",
							  "GRANT CONNECT ON DATABASE to it, or give the migration another owner.");
	return NULL;
}

typedef struct DiscoveryArgs
{
	MemoryContext context;
	List	   *owners;			/* roles that a worker can log in as */
	List	   *orphaned;		/* BbmMigration whose owner no worker can log in as */
	List	   *reasons;		/* ErrorData, one for each of them */
} DiscoveryArgs;

/* Checks what is committed now; later changes make requests themselves. */
static void
discovery(void *arg)
{
	DiscoveryArgs *args = arg;
	const BbmCatalog *catalog = bbm_catalog_find();
	ListCell   *cell;

	bbm_ours_begin();
	if (catalog == NULL || !bbm_catalog_matches(catalog))
		return;
	foreach(cell, bbm_runnable_owners(args->context))
	{
		Oid			owner = lfirst_oid(cell);
		MemoryContext old = MemoryContextSwitchTo(args->context);
		ErrorData  *reason = why_unusable(owner);
		ListCell   *inner;

		if (reason == NULL)
			args->owners = lappend_oid(args->owners, owner);
		else
		{
			foreach(inner, bbm_migrations_runnable(owner, args->context))
			{
				BbmRunnable *runnable = lfirst(inner);

				args->orphaned = lappend(args->orphaned, bbm_migration_by_id(runnable->id, args->context));
				args->reasons = lappend(args->reasons, reason);
			}
		}
		MemoryContextSwitchTo(old);
	}
}

/* One transaction; a migration that another session changes meanwhile is locked, and left out. */
static void
refresh_owners(void *arg)
{
	const BbmCatalog *catalog = bbm_catalog_usable();

	bbm_ours_begin();
	if (catalog)
		bbm_migrations_refresh_owners();
}

/*
 * Entry point of discovery: a short-lived process that checks, as a superuser
 * and through our own statements only, what should run in a database.
 */
void
bbm_discovery_main(Datum arg)
{
	BbmWorkerStart start;
	Oid			nobody;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	if (come_up(&start, DatumGetInt32(arg), &nobody))
	{
		DiscoveryArgs args = {CurrentMemoryContext, NIL, NIL, NIL};
		ErrorData  *error;
		ListCell   *cell;
		ListCell   *reason;

		/* DDL or a restore may lock our table for a while; that keeps nobody from checking other databases */
		while ((error = bbm_txn_run(discovery, &args, false)) != NULL)
		{
			TimestampTz due;

			if (bbm_error_class(error) != BBM_ERROR_TRANSIENT)
			{
				/* it will be the same when it is tried again */
				bbm_slot_release(true);
				ThrowErrorData(error);
			}
			due = bbm_trouble_met(0, InvalidOid, NULL, error, bbm_error_is_lock(error->sqlerrcode), false);
			if (bbm_discovery_gives_way())
				break;
			sleep_until(due);
			serve_interrupts();
			if (bbm_slot_must_exit())
				break;
		}
		if (error == NULL)
			bbm_trouble_over(0, InvalidOid, NULL, true);
		foreach(cell, args.owners)
			bbm_request_found(MyDatabaseId, lfirst_oid(cell));
		forboth(cell, args.orphaned, reason, args.reasons)
		{
			BbmMigration *migration = lfirst(cell);

			if (migration == NULL)
				continue;
			bbm_request_drop(MyDatabaseId, migration->owner);
			(void) bbm_record_migration_failed(migration, BBM_CODE_UNKNOWN, lfirst(reason));
		}
		/* if this fails, the next discovery does it */
		if (error == NULL && !bbm_slot_must_exit())
			(void) bbm_txn_run(refresh_owners, NULL, false);
		if (error == NULL && !bbm_slot_must_exit())
			bbm_report_stalled();
	}
	bbm_slot_release(true);
	proc_exit(0);
}

/* Fills in what all our dynamic workers have in common. */
void
bbm_worker_describe(BackgroundWorker *worker, const char *function, int slot, const BbmWorkerStart *start)
{
	memset(worker, 0, sizeof(BackgroundWorker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION |
		BBM_WORKER_INTERRUPTIBLE;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_main_arg = Int32GetDatum(slot);
	worker->bgw_notify_pid = MyProcPid;
	strlcpy(worker->bgw_library_name, "bbm", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, function, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_type, start->kind == BBM_KIND_DISCOVERY ? "bbm discovery" : "bbm worker",
			sizeof(worker->bgw_type));
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s for database %u", worker->bgw_type,
			 start->database);
	StaticAssertStmt(sizeof(BbmWorkerStart) <= BGW_EXTRALEN, "BbmWorkerStart must fit bgw_extra");
	memcpy(worker->bgw_extra, start, sizeof(BbmWorkerStart));
}
