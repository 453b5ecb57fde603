/*-------------------------------------------------------------------------
 *
 * table.c
 *		What the table shows: autovacuum, dead tuples, and who keeps them.
 *
 * A partitioned table has no rows: what counts are the relations with storage
 * under it, and their TOAST tables.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/twophase.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/wait_state.h"
#include "target/hierarchy.h"
#include "throttle/signal.h"

/* How long a count of dead tuples stays valid: the statistics are delayed for longer than that anyway. */
#define BBM_DEAD_MS 500

/* How often to check when a transaction began. */
#define BBM_BEGAN_MS 1000

/* ----------------------------------------------------------------
 * Relations
 * ----------------------------------------------------------------
 */

static void
add_relation(BbmThrottle *state, Oid relid, const char *name, bool is_toast)
{
	state->relations[state->nrelations] = relid;
	state->is_toast[state->nrelations] = is_toast;
	state->names[state->nrelations++] = pstrdup(name);
}

/*
 * Adds the relations of the table that have storage to the state.  Takes no
 * lock: a relation that is dropped meanwhile does no harm.  Needs a
 * transaction with a snapshot; on an error the state keeps what it had.
 */
void
bbm_find_relations(BbmThrottle *state, MemoryContext context, Oid relid)
{
	List	   *partitions_of = bbm_partitions_all(relid);
	MemoryContext mine = AllocSetContextCreate(context, "bbm relations", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(mine);
	BbmThrottle found = {0};
	ListCell   *cell;

	BBM_POINT("relations-listed");
	found.relations = palloc(2 * list_length(partitions_of) * sizeof(Oid));
	found.is_toast = palloc(2 * list_length(partitions_of) * sizeof(bool));
	found.names = palloc(2 * list_length(partitions_of) * sizeof(char *));
	foreach(cell, partitions_of)
	{
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_class form;

		if (!HeapTupleIsValid(tuple))
			continue;
		form = (Form_pg_class) GETSTRUCT(tuple);
		if (RELKIND_HAS_STORAGE(form->relkind))
		{
			add_relation(&found, form->oid, NameStr(form->relname), false);
			if (OidIsValid(form->reltoastrelid))
				add_relation(&found, form->reltoastrelid, psprintf("TOAST of %s", NameStr(form->relname)), true);
		}
		ReleaseSysCache(tuple);
	}
	MemoryContextSwitchTo(old);
	if (state->relation_context)
		MemoryContextDelete(state->relation_context);
	state->relation_context = mine;
	state->relations = found.relations;
	state->names = found.names;
	state->is_toast = found.is_toast;
	state->nrelations = found.nrelations;
}

/* ----------------------------------------------------------------
 * Autovacuum
 * ----------------------------------------------------------------
 */

/* The process of an autovacuum on this relation that is worth waiting for, or 0. */
static int
vacuumed_by(Oid relid)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			n;
	int			pid = 0;

	/* the lock that a vacuum holds; writers and readers hold none that conflicts with it */
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, ShareUpdateExclusiveLock, &n);
	BBM_POINT_BETWEEN("vacuums_listed");
	for (int i = 0; i < n && pid == 0; i++)
	{
		PGPROC	   *process = bbm_vxid_process(holders[i]);
		uint8		flags;

		if (process == NULL)
			continue;
		flags = process->statusFlags;
		if ((flags & PROC_IS_AUTOVACUUM) && (flags & PROC_IN_VACUUM) && !(flags & PROC_VACUUM_FOR_WRAPAROUND) &&
			process->waitLock == NULL)
			pid = process->pid;
	}
	pfree(holders);
	return pid;
}

/*
 * bbm.wait_for_autovacuum.  Does not wait for a vacuum that waits for a lock
 * itself, which may be forever; for one that analyzes, which takes a moment;
 * nor for one to prevent wraparound, which is not cancelled for others and may
 * take days.
 */
void
bbm_read_autovacuum(BbmReading *reading)
{
	BbmThrottle *state = reading->state;

	bbm_reading_describes(reading, "none", NULL);
	for (int i = 0; i < state->nrelations; i++)
	{
		int			pid = vacuumed_by(state->relations[i]);

		if (pid == 0)
			continue;
		bbm_reading_throttles(reading, "process %d vacuums %s", pid, state->names[i]);
		bbm_reading_describes(reading, "one runs", NULL);
		return;
	}
}

/* ----------------------------------------------------------------
 * The horizon
 * ----------------------------------------------------------------
 */

/* The transaction that keeps the oldest rows. */
typedef struct Keeper
{
	TransactionId xid;
	int			pid;			/* 0: none */
	bool		prepared;
	bool		slot;
} Keeper;

static void
keep(Keeper *keeper, TransactionId xid, int pid, bool prepared, bool slot)
{
	if (!TransactionIdIsNormal(xid) ||
		(TransactionIdIsValid(keeper->xid) && !TransactionIdPrecedes(xid, keeper->xid)))
		return;
	keeper->xid = xid;
	keeper->pid = pid;
	keeper->prepared = prepared;
	keeper->slot = slot;
}

/*
 * The processes of bbm's own that have been found: workers, and sessions that
 * wait for a migration, dry-run it or count its rows.  Otherwise a session
 * that waits for a migration would be what the migration waits for.
 */
typedef struct Ours
{
	int			n;
	PGPROC	  **processes;
	TransactionId oldest;		/* id of one of their transactions; invalid if there is none */
	TransactionId kept;			/* the oldest id whose rows a snapshot or a transaction of another of them keeps here */
	int			keeper;			/* the process that keeps them */
} Ours;

static Ours ours = {0};

static void
find_ours(void)
{
	int			n;
	VirtualTransactionId *holders = bbm_ours(&n);

	if (ours.processes)
		pfree(ours.processes);
	ours.processes = MemoryContextAlloc(TopMemoryContext, Max(n, 1) * sizeof(PGPROC *));
	ours.n = 0;
	ours.oldest = MyProc->xid;
	ours.kept = InvalidTransactionId;
	for (int i = 0; i < n; i++)
	{
		PGPROC	   *process = bbm_vxid_process(holders[i]);
		TransactionId xid = process ? process->xid : InvalidTransactionId;
		Keeper		keeper = {ours.kept, ours.keeper};

		if (process == NULL)
			continue;
		ours.processes[ours.n++] = process;
		/* one in another database keeps no rows of this one, but is in everybody's snapshots */
		if (process->databaseId == MyDatabaseId)
		{
			keep(&keeper, xid, process->pid, false, false);
			keep(&keeper, process->xmin, process->pid, false, false);
		}
		ours.kept = keeper.xid;
		ours.keeper = keeper.pid;
		if (TransactionIdIsNormal(xid) &&
			(!TransactionIdIsNormal(ours.oldest) || TransactionIdPrecedes(xid, ours.oldest)))
			ours.oldest = xid;
	}
	pfree(holders);
}

static bool
is_ours(const PGPROC *process)
{
	for (int i = 0; i < ours.n; i++)
	{
		if (ours.processes[i] == process)
			return true;
	}
	return false;
}

/* VACUUM and logical decoding keep no rows, nor does what runs in other databases; processes of bbm do not count. */
static bool
keeps(const PGPROC *process)
{
	uint8		flags = process->statusFlags;

	return process->pid != 0 && process->pid != MyProcPid && !is_ours(process) &&
		!(flags & (PROC_IN_VACUUM | PROC_IN_LOGICAL_DECODING)) &&
		(process->databaseId == MyDatabaseId || (flags & PROC_AFFECTS_ALL_HORIZONS));
}

/* Takes no lock, since information that is a moment old is good enough. */
static void
find_keeper(Keeper *keeper)
{
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *process = &ProcGlobal->allProcs[i];

		if (!keeps(process))
			continue;
		keep(keeper, process->xid, process->pid, false, false);
		keep(keeper, process->xmin, process->pid, false, false);
	}
	for (int i = 0; i < max_prepared_xacts; i++)
	{
		PGPROC	   *process = &PreparedXactProcs[i];
		TransactionId xid = process->xid;

		/* one that has ended leaves its id there */
		if (TransactionIdIsNormal(xid) && process->databaseId == MyDatabaseId && TransactionIdIsInProgress(xid))
			keep(keeper, xid, 0, true, false);
	}
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];
		TransactionId xmin;

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		xmin = bbm_slot_is_lost(&slot->data) ? InvalidTransactionId : slot->effective_xmin;
		SpinLockRelease(&slot->mutex);
		keep(keeper, xmin, 0, false, true);
	}
	LWLockRelease(ReplicationSlotControlLock);
}

static int
compare_pids(const void *a, const void *b)
{
	int			one = *(const int *) a;
	int			other = *(const int *) b;

	return (one > other) - (one < other);
}

/* The processes whose transactions keep as much as that one, in order.  Takes no lock, as find_keeper. */
static int *
pids_that_keep(TransactionId xid, int *n)
{
	int		   *pids = palloc(ProcGlobal->allProcCount * sizeof(int));

	*n = 0;
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC	   *process = &ProcGlobal->allProcs[i];

		if (keeps(process) && (process->xid == xid || process->xmin == xid))
			pids[(*n)++] = process->pid;
	}
	qsort(pids, *n, sizeof(int), compare_pids);
	return pids;
}

/*
 * When the transaction that keeps the rows began, or 0; checked at most once a
 * second.  A snapshot that was taken meanwhile has the same xmin, so of all
 * transactions that keep as much it is the one that began first.
 */
static TimestampTz
began(Keeper *keeper, TimestampTz now)
{
	static TransactionId known_xid = InvalidTransactionId;
	static int	known_pid = 0;
	static TimestampTz known = 0;
	static TimestampTz until = 0;

	if (keeper->xid != known_xid || bbm_time_has_come(now, until, BBM_BEGAN_MS))
	{
		int			n;
		int			nkeeping;
		int		   *keeping = pids_that_keep(keeper->xid, &nkeeping);

		known_xid = keeper->xid;
		known_pid = keeper->pid;
		known = 0;
		until = TimestampTzPlusMilliseconds(now, BBM_BEGAN_MS);
		pgstat_clear_backend_activity_snapshot();
		n = pgstat_fetch_stat_numbackends();
		BBM_POINT_BETWEEN("sessions_listed");
		for (int i = 1; i <= n; i++)
		{
			PgBackendStatus *status = bbm_backend_status(i);

			if (status == NULL || status->st_backendType == B_WAL_SENDER || status->st_xact_start_timestamp == 0 ||
				(known != 0 && status->st_xact_start_timestamp >= known) ||
				bsearch(&status->st_procpid, keeping, nkeeping, sizeof(int), compare_pids) == NULL)
				continue;
			known_pid = status->st_procpid;
			known = status->st_xact_start_timestamp;
		}
		pgstat_clear_backend_activity_snapshot();
		pfree(keeping);
	}
	keeper->pid = known_pid;
	return known;
}

/*
 * bbm.max_horizon_age.  We have recorded ourselves when a transaction id was
 * passed; a transaction that was there before that shows when it began.
 */
void
bbm_read_horizon(BbmReading *reading)
{
	int64		limit = (int64) bbm_setting_int(reading->migration, BBM_MAX_HORIZON_AGE) * 1000;
	FullTransactionId next = ReadNextFullTransactionId();
	Keeper		keeper = {InvalidTransactionId};
	BbmWaitStates *entries;
	TimestampTz since;

	find_ours();
	find_keeper(&keeper);
	entries = bbm_wait_states_lock();
	bbm_trace_note(&entries->xids, reading->now, U64FromFullTransactionId(next));
	since = !TransactionIdIsValid(keeper.xid) ? 0 :
		bbm_trace_behind_since(&entries->xids, U64FromFullTransactionId(next) -
							   (uint32) (XidFromFullTransactionId(next) - keeper.xid));
	bbm_wait_states_unlock();
	if (!TransactionIdIsValid(keeper.xid))
	{
		bbm_reading_measures(reading, "s", 0, limit / 1000000.0);
		return;
	}
	/*
	 * While one of bbm's processes runs a transaction, the new snapshots of
	 * all sessions go back to it: so only the age of these snapshots
	 * themselves counts.
	 */
	if (TransactionIdIsNormal(ours.oldest) && !TransactionIdPrecedes(keeper.xid, ours.oldest))
		since = keeper.pid != 0 ? began(&keeper, reading->now) : 0;
	else if (keeper.pid != 0 && (since == 0 || reading->now - since <= limit))
	{
		TimestampTz start = began(&keeper, reading->now);

		if (start != 0 && (since == 0 || start < since))
			since = start;
	}
	bbm_reading_measures(reading, "s", since == 0 ? 0 : (reading->now - since) / 1000000.0, limit / 1000000.0);
	if (since == 0 || reading->now - since <= limit)
		return;
	if (keeper.pid != 0)
		bbm_reading_throttles(reading, "process %d has kept dead tuples for %.1f s (limit %.1f s)", keeper.pid,
							  (reading->now - since) / 1000000.0, limit / 1000000.0);
	else
		bbm_reading_throttles(reading, "%s has kept dead tuples for %.1f s (limit %.1f s)",
							  keeper.prepared ? "a prepared transaction" : "a replication slot",
							  (reading->now - since) / 1000000.0, limit / 1000000.0);
}

/* ----------------------------------------------------------------
 * Dead tuples
 */

static TimestampTz
time_of(PGFunction function, Oid relid)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(relid);
	fcinfo->args[0].isnull = false;
	result = function(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetTimestampTz(result);
}

/* When the current transaction of a process began; 0 when it is in none. */
static TimestampTz
transaction_start(int pid)
{
	PgBackendStatus *status;
	TimestampTz start;

	pgstat_clear_backend_activity_snapshot();
	status = bbm_status_of_process(pid);
	start = status ? status->st_xact_start_timestamp : 0;
	pgstat_clear_backend_activity_snapshot();
	return start;
}

/*
 * Are there dead tuples only because of a session of bbm's, such as one in
 * bbm_wait?  That session keeps more than any other, and each relation has
 * been vacuumed since it began: no vacuum can remove what that vacuum has
 * left, nor what has died since, before the session ends, which may wait for
 * this migration.
 *
 * A vacuum that began before the session and ended after it has left a few
 * dead tuples that the next one removes.
 */
static bool
ours_alone_keep(const BbmThrottle *state)
{
	Keeper		keeper = {InvalidTransactionId};
	TimestampTz start;

	find_ours();
	if (!TransactionIdIsNormal(ours.kept))
		return false;
	find_keeper(&keeper);
	if (TransactionIdIsNormal(keeper.xid) && !TransactionIdPrecedes(ours.kept, keeper.xid))
		return false;
	BBM_POINT_BETWEEN("keeper_found");
	start = transaction_start(ours.keeper);
	if (start == 0)
		return false;
	for (int i = 0; i < state->nrelations; i++)
	{
		Oid			relid = state->relations[i];

		if (DatumGetInt64(DirectFunctionCall1(pg_stat_get_dead_tuples, ObjectIdGetDatum(relid))) > 0 &&
			Max(time_of(pg_stat_get_last_vacuum_time, relid), time_of(pg_stat_get_last_autovacuum_time, relid)) < start)
			return false;
	}
	return true;
}

static void
count_dead(BbmThrottle *state)
{
	state->dead = state->live = 0;
	/* old values must not be taken for current ones */
	pgstat_clear_snapshot();
	for (int i = 0; i < state->nrelations; i++)
	{
		Datum		relid = ObjectIdGetDatum(state->relations[i]);

		state->dead += DatumGetInt64(DirectFunctionCall1(pg_stat_get_dead_tuples, relid));
		state->live += DatumGetInt64(DirectFunctionCall1(pg_stat_get_live_tuples, relid));
	}
	state->dead_are_kept = state->dead > 0 && ours_alone_keep(state);
	pgstat_clear_snapshot();
}

/* Up to date enough.  Returns false if nothing is to be waited for: if we waited for them, they would wait for us. */
static bool
read_dead(BbmReading *reading)
{
	BbmThrottle *state = reading->state;

	if (bbm_time_has_come(reading->now, state->dead_until, BBM_DEAD_MS))
	{
		count_dead(state);
		state->dead_until = TimestampTzPlusMilliseconds(reading->now, BBM_DEAD_MS);
	}
	return !state->dead_are_kept;
}

/* bbm.max_dead_tuples */
void
bbm_read_dead_tuples(BbmReading *reading)
{
	int			limit = bbm_setting_int(reading->migration, BBM_MAX_DEAD_TUPLES);
	bool		counts = read_dead(reading);

	bbm_reading_measures(reading, "rows", reading->state->dead, limit);
	if (counts && reading->state->dead > limit)
		bbm_reading_throttles(reading, "the table has %.0f dead tuples (limit %d)", reading->state->dead, limit);
}

/* bbm.max_dead_tuple_ratio */
void
bbm_read_dead_ratio(BbmReading *reading)
{
	double		limit = bbm_setting_real(reading->migration, BBM_MAX_DEAD_TUPLE_RATIO);
	bool		counts = read_dead(reading);
	double		dead = reading->state->dead;
	double		share = dead > 0 ? dead / (dead + reading->state->live) : 0;

	bbm_reading_measures(reading, "percent", 100 * share, 100 * limit);
	if (counts && share > limit)
		bbm_reading_throttles(reading, "%.1f percent of the table's tuples are dead (limit %.1f)", 100 * share, 100 * limit);
}
