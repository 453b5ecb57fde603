/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		Starts workers where there is work.
 *
 * NOTES
 *	  The launcher is level-triggered: each time it wakes, it compares the
 *	  requests in shared memory with the slots that are taken, and starts what
 *	  is missing.  An event only makes it check sooner.  It reads only the
 *	  shared catalogs (for the list of databases), so it blocks no database.
 *
 *	  At its start (after a restart, a crash or a promotion), and every
 *	  bbm.naptime, it starts discovery in each database, one after the other.
 *
 *-------------------------------------------------------------------------
 */
#include "server/launcher.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/requests.h"
#include "base/shared.h"
#include "base/shares.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/wait_event.h"
#include "server/worker.h"

/* The time to the next check when no worker process is available, or when one may have died unnoticed. */
#define BBM_RETRY_MS 1000
/* Discovery that cannot be started is tried again after that, and then after growing delays, up to this. */
#define BBM_LAST_RETRY_MS (64 * BBM_RETRY_MS)
/* Where there are more requests than there is room for, the others are discovered again at this interval. */
#define BBM_LOST_MS (10 * 1000)
/* A repeated message is logged at most this often. */
#define BBM_LOG_MS (60 * 1000)

/* Handles of the workers this launcher has started, by slot. */
typedef struct Started
{
	BackgroundWorkerHandle *handle;
	uint32		generation;
} Started;

/* The result of trying to start a worker. */
typedef enum Start
{
	START_DONE,
	START_LOCKED,				/* somebody needs the database without us */
	START_NO_ROOM				/* no slot, or no process, is available now */
} Start;

static Started *started;
static List *to_discover = NIL; /* OIDs of databases that discovery has still to check */
static TimestampTz discover_after = 0;	/* none is started before */
static TimestampTz lost_after = 0;	/* requests that were lost are not discovered before */
static TimestampTz next_poll;
static bool no_slot_reported = false;

/* Registers the launcher; called from _PG_init, while the server preloads. */
void
bbm_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	/* on a standby it starts with the promotion */
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "bbm", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "bbm_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "bbm launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "bbm launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static void
detach(int code, Datum arg)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	if (bbm_shared->launcher_pid == MyProcPid)
	{
		bbm_shared->launcher_pid = 0;
		bbm_shared->launcher_latch = NULL;
	}
	LWLockRelease(bbm_shared->lock);
}

/* Takes over from a launcher that died: its workers continue, its reservations are void. */
static void
attach(void)
{
	before_shmem_exit(detach, (Datum) 0);
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->launcher_pid = MyProcPid;
	bbm_shared->launcher_latch = MyLatch;
	bbm_shared->discover_everywhere = true;
	bbm_each_slot(slot)
	{
		if (slot->in_use && slot->pid == 0)
			slot->in_use = false;
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * In a PG_CATCH: the launcher does without what it has tried, for lack of memory
 * or of locks for example, and will try again.  That is logged at most once a
 * minute.  Ending with the error would restart the launcher every second.
 */
static void
put_up_with_error(MemoryContext caller)
{
	static TimestampTz log_again = 0;
	ErrorData  *error;

	MemoryContextSwitchTo(caller);
	error = CopyErrorData();
	HOLD_INTERRUPTS();
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(caller);
	if (bbm_time_has_come(GetCurrentTimestamp(), log_again, BBM_LOG_MS))
	{
		log_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_LOG_MS);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("bbm launcher cannot go on just now: %s", bbm_printable(error->message))));
	}
	FreeErrorData(error);
}

/* Does somebody need the database without us?  Also if there is no lock left to find that out. */
static bool
is_locked(Oid database)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool locked = true;

	PG_TRY();
	{
		locked = bbm_database_is_locked(database);
	}
	PG_CATCH();
	{
		put_up_with_error(caller);
	}
	PG_END_TRY();
	return locked;
}

/*
 * Starts a worker in a slot, if one is available now.  If no other worker
 * serves the request ("needed"), the lack of a process is logged once, and
 * again only after a worker could be started in between.  A command that needs
 * the database without us locks it, and then checks the slots for it; so this
 * takes the slot first.
 */
static Start
start_worker(BbmKind kind, Oid database, Oid owner, bool needed)
{
	BackgroundWorker worker;
	BbmWorkerStart start = {.kind = kind, .database = database, .owner = owner};
	int			slot = bbm_slot_reserve(kind, database, owner, &start.generation);
	MemoryContext old;
	bool		registered;

	if (slot < 0)
		return START_NO_ROOM;
	if (is_locked(database))
	{
		bbm_slot_cancel_reservation(slot, start.generation);
		return START_LOCKED;
	}
	BBM_POINT_BETWEEN(kind == BBM_KIND_DISCOVERY ? "discovery-reserved" : "launch-reserved");
	bbm_worker_describe(&worker, kind == BBM_KIND_DISCOVERY ? "bbm_discovery_main" : "bbm_worker_main", slot,
						&start);
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (started[slot].handle)
		pfree(started[slot].handle);
	started[slot].handle = NULL;
	started[slot].generation = start.generation;
	registered = RegisterDynamicBackgroundWorker(&worker, &started[slot].handle);
	MemoryContextSwitchTo(old);
	if (registered)
	{
		no_slot_reported = false;
		return START_DONE;
	}
	bbm_slot_cancel_reservation(slot, start.generation);
	if (needed && !no_slot_reported)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a worker: out of background worker slots"),
				 errhint("You might need to increase max_worker_processes.")));
	no_slot_reported = no_slot_reported || needed;
	return START_NO_ROOM;
}

/* Releases the slots of processes that ended before they could take them. */
static void
forget_stillborn(void)
{
	for (int i = 0; i < bbm_shared->nslots; i++)
	{
		pid_t		pid;

		if (started[i].handle == NULL || GetBackgroundWorkerPid(started[i].handle, &pid) != BGWH_STOPPED)
			continue;
		bbm_slot_stillborn(i, started[i].generation);
		pfree(started[i].handle);
		started[i].handle = NULL;
	}
}

/* Records that a worker was started for the request now, or that none can be started before "until". */
static void
note_served(Oid database, Oid owner, TimestampTz until)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_each_request(request)
	{
		if (!request->in_use || request->database != database || request->owner != owner)
			continue;
		if (until != 0)
			request->not_before = until;
		else
			request->served = GetCurrentTimestamp();
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * Lists the databases that accept connections, and (*own) those of them that
 * are no templates, which discovery checks.  Drops the requests of all other
 * databases, where a worker would only get a FATAL each time.  Runs in a
 * transaction of its own.
 */
static List *
list_databases(List **own)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *list = NIL;
	uint64		events = bbm_requests_events();
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	*own = NIL;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!form->datallowconn || form->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;
		old = MemoryContextSwitchTo(caller);
		list = lappend_oid(list, form->oid);
		if (!form->datistemplate)
			*own = lappend_oid(*own, form->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	BBM_POINT_BETWEEN("launcher-listed");
	bbm_requests_keep(list, events);
	return list;
}

/* The same; false when the list cannot be read now. */
static bool
try_list_databases(List **databases, List **own)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool listed = true;

	PG_TRY();
	{
		*databases = list_databases(own);
	}
	PG_CATCH();
	{
		put_up_with_error(caller);
		listed = false;
	}
	PG_END_TRY();
	return listed;
}

/*
 * Does the database accept connections, according to its row?  If the row
 * cannot be read, assume that it does.
 */
static bool
is_open(Oid database)
{
	List	   *own;
	List	   *list;
	bool		open;

	if (!try_list_databases(&list, &own))
		return true;
	open = list_member_oid(list, database);
	list_free(list);
	list_free(own);
	return open;
}

/* A database whose discovery has ended and not checked it comes after the others, and not at once. */
static void
plan_undone(void)
{
	Oid			database;
	int			failures;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	database = bbm_shared->discovery_undone;
	failures = bbm_shared->discovery_failures;
	bbm_shared->discovery_undone = InvalidOid;
	LWLockRelease(bbm_shared->lock);
	if (!OidIsValid(database))
		return;
	to_discover = list_append_unique_oid(to_discover, database);
	discover_after = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 Min(BBM_RETRY_MS << Min(Max(failures - 1, 0), 10), BBM_LAST_RETRY_MS));
}

/*
 * Collects the databases that discovery has to check: all, when that is due,
 * and the one that was requested.  False when it has to be tried again; *wait is
 * lowered to the time when requests that were lost are discovered.
 */
static bool
plan_checks(TimestampTz *wait)
{
	bool		everywhere;
	Oid			one;
	List	   *databases;
	List	   *own;
	ListCell   *cell;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	everywhere = bbm_shared->discover_everywhere;
	one = bbm_shared->discovery_database;
	bbm_shared->discover_everywhere = false;
	bbm_shared->discovery_database = InvalidOid;
	if (bbm_shared->requests_lost)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (bbm_time_has_come(now, lost_after, BBM_LOST_MS))
		{
			everywhere = true;
			bbm_shared->requests_lost = false;
			lost_after = TimestampTzPlusMilliseconds(now, BBM_LOST_MS);
		}
		else
			*wait = Min(*wait, lost_after);
	}
	LWLockRelease(bbm_shared->lock);

	if (bbm_naptime > 0 && bbm_time_has_come(GetCurrentTimestamp(), next_poll, (int64) bbm_naptime * 1000))
		everywhere = true;
	if (!everywhere && !OidIsValid(one))
		return true;
	if (!try_list_databases(&databases, &own))
	{
		LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
		bbm_shared->discover_everywhere = true;
		LWLockRelease(bbm_shared->lock);
		return false;
	}
	foreach(cell, own)
	{
		if (everywhere || lfirst_oid(cell) == one)
			to_discover = list_append_unique_oid(to_discover, lfirst_oid(cell));
	}
	list_free(databases);
	list_free(own);
	if (everywhere)
		next_poll = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) Max(bbm_naptime, 1) * 1000);
	return true;
}

/* Starts the next discovery when none is running; false when that has to be tried again soon. */
static bool
start_discovery(void)
{
	ListCell   *cell;

	if (to_discover == NIL || bbm_discovery_is_open(true))
		return true;
	if (!bbm_time_has_come(GetCurrentTimestamp(), discover_after, BBM_LAST_RETRY_MS))
		return false;
	foreach(cell, to_discover)
	{
		Oid			database = lfirst_oid(cell);
		Start		start = is_open(database) ? start_worker(BBM_KIND_DISCOVERY, database, InvalidOid, true) :
			START_DONE;

		if (start == START_NO_ROOM)
			return false;
		/* a locked database does not delay the others */
		if (start == START_DONE)
			to_discover = foreach_delete_current(to_discover, cell);
		if (start == START_DONE && bbm_discovery_is_open(to_discover != NIL))
			return true;
	}
	return to_discover == NIL;
}

/* Starts what is missing; returns when to check again without an event. */
static TimestampTz
balance(void)
{
	TimestampTz wait = bbm_naptime > 0 ? next_poll : DT_NOEND;
	TimestampTz retry;
	Oid			database;
	Oid			owner;
	bool		needed;

	forget_stillborn();
	plan_undone();
	retry = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_RETRY_MS);
	if (!plan_checks(&wait))
		wait = Min(wait, retry);
	if (!bbm_enabled)
		return wait;
	if (!start_discovery())
		wait = Min(wait, retry);
	while (bbm_request_next(&database, &owner, &needed, &wait))
	{
		if (!is_open(database))
			continue;
		switch (start_worker(BBM_KIND_WORKER, database, owner, needed))
		{
			case START_DONE:
				BBM_POINT_BETWEEN("launch-registered");
				note_served(database, owner, 0);
				break;
			case START_LOCKED:
				note_served(database, owner, retry);
				wait = Min(wait, retry);
				break;
			case START_NO_ROOM:
				bbm_slots_wake_waiting();
				return Min(wait, retry);
		}
	}
	return wait;
}

void
bbm_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	/* connects to the shared catalogs, to no database */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("bbm launcher");
	started = MemoryContextAllocZero(TopMemoryContext, bbm_shared->nslots * sizeof(Started));
	next_poll = GetCurrentTimestamp();
	attach();
	BBM_POINT_BETWEEN("launcher-begin");
	ereport(LOG, (errmsg("bbm launcher started")));

	for (;;)
	{
		TimestampTz wait;
		long		ms;

		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		if (bbm_guc_reload())
		{
			bbm_requests_reconsider();
			next_poll = Min(next_poll, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) bbm_naptime * 1000));
		}
		/* one cycle leaves nothing allocated but to_discover */
		MemoryContextSwitchTo(TopMemoryContext);
		wait = balance();
		ms = wait == DT_NOEND ? -1 : TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wait);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (ms >= 0 ? WL_TIMEOUT : 0),
						 ms >= 0 ? Max(ms, 1) : -1, bbm_wait_event(BBM_WAIT_LAUNCHER));
		ResetLatch(MyLatch);
	}
}
