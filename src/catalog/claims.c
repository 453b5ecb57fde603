/*-------------------------------------------------------------------------
 *
 * claims.c
 *		What a claim reads: the last range, the running jobs, the competing
 *		migrations.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/claims.h"

#include "access/table.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/sql.h"
#include "catalog/tables.h"

/* A text[] that outlives the tuple, or (Datum) 0 when NULL. */
static Datum
array_column(HeapTuple tuple, Relation rel, const char *name)
{
	Datum		datum = bbm_tuple_column(tuple, rel, name);

	return datum ? PointerGetDatum(PG_DETOAST_DATUM_COPY(datum)) : (Datum) 0;
}

static BbmPhase
phase_column(HeapTuple tuple, Relation rel)
{
	char	   *name = TextDatumGetCString(bbm_tuple_column(tuple, rel, "phase"));
	int			round = DatumGetInt32(bbm_tuple_column(tuple, rel, "round"));

	return (BbmPhase) {.round = round, .verifies = strcmp(name, "verify") == 0};
}

static int64
id_of(HeapTuple tuple, Relation rel)
{
	return DatumGetInt64(bbm_tuple_column(tuple, rel, "id"));
}

static BbmStatus
status_of(HeapTuple tuple, Relation migrations)
{
	return (BbmStatus) DatumGetInt16(bbm_tuple_column(tuple, migrations, "status"));
}

static bool
is_retry(HeapTuple tuple, Relation jobs)
{
	return bbm_job_kind(TextDatumGetCString(bbm_tuple_column(tuple, jobs, "kind"))) == BBM_JOB_RETRY;
}

/* Begins to read the migration's jobs with this id and lower ones, the newest first. */
static SysScanDesc
scan_newest(int64 migration_id, int64 id, Relation jobs, Relation index, Snapshot snapshot)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], bbm_column_number(jobs, "batched_background_migration_id"),
				BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(migration_id));
	ScanKeyInit(&keys[1], bbm_column_number(jobs, "id"),
				BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(id));
	return systable_beginscan_ordered(jobs, index, snapshot, 2, keys);
}

/*
 * Reads the end of the last allocated range.  The newest job that is no retry
 * has it, since ranges are allocated in order, one after the other, under the
 * migration's lock.  There may be any number of retries after it: this process
 * remembers how far it has passed over them.  No range can appear between them,
 * as its id has to be higher than last_id.  Ids begin anew when the extension is
 * created again, so a retry is known by its time as well.
 */
static void
read_last(BbmClaimState *state, int64 migration_id, Relation jobs, Snapshot snapshot)
{
	static int64 passed_migration = 0;
	static int64 passed_from = 0;
	static TimestampTz passed_at = 0;
	static int64 passed_to = 0;
	Relation	index = index_open(bbm_catalog()->jobs_newest, AccessShareLock);
	SysScanDesc scan = scan_newest(migration_id, PG_INT64_MAX, jobs, index, snapshot);
	HeapTuple	tuple = systable_getnext_ordered(scan, ForwardScanDirection);

	state->last_id = HeapTupleIsValid(tuple) ? id_of(tuple, jobs) : 0;
	if (HeapTupleIsValid(tuple) && is_retry(tuple, jobs))
	{
		TimestampTz created_at = DatumGetTimestampTz(bbm_tuple_column(tuple, jobs, "created_at"));

		if (passed_migration == migration_id && passed_from == state->last_id && passed_at == created_at)
		{
			systable_endscan_ordered(scan);
			scan = scan_newest(migration_id, passed_to, jobs, index, snapshot);
			tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		}
		while (HeapTupleIsValid(tuple) && is_retry(tuple, jobs))
			tuple = systable_getnext_ordered(scan, ForwardScanDirection);
		passed_migration = migration_id;
		passed_from = state->last_id;
		passed_at = created_at;
		passed_to = HeapTupleIsValid(tuple) ? id_of(tuple, jobs) : 0;
	}
	state->has_job = HeapTupleIsValid(tuple);
	state->has_last = false;
	state->last_relation = InvalidOid;
	state->last_size = 0;
	if (HeapTupleIsValid(tuple))
	{
		state->has_last = bbm_phase_is(phase_column(tuple, jobs), state->phase);
		state->last.number = DatumGetInt64(bbm_tuple_column(tuple, jobs, "max_value"));
		state->last.key = array_column(tuple, jobs, "max_key");
		state->last_relation = DatumGetObjectId(bbm_tuple_column(tuple, jobs, "relation"));
		state->last_size = DatumGetInt32(bbm_tuple_column(tuple, jobs, "batch_size"));
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
}

/* Reads what verification covers beyond the migration's range. */
static void
read_verify_max(BbmClaimState *state, Relation migrations, HeapTuple tuple)
{
	state->min_found = DatumGetBool(bbm_tuple_column(tuple, migrations, "min_found"));
	state->verify_max.number = DatumGetInt64(bbm_tuple_column(tuple, migrations, "verify_max_value"));
	state->verify_max.key = array_column(tuple, migrations, "verify_max_key");
	state->is_wide = !bbm_tuple_is_null(tuple, migrations, "verify_max_value") && state->phase.verifies;
}

/*
 * Is the migration running, and unchanged since it was read as of updated_at?
 * This is all that is read between two commits of a job.  The caller holds the
 * migration's lock, so the state is the committed one.
 */
bool
bbm_claim_is_running(int64 migration_id, TimestampTz updated_at)
{
	Relation	migrations = table_open(bbm_catalog()->migrations, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	SysScanDesc scan = bbm_scan_id(migrations, bbm_catalog()->migrations_key, "id", migration_id, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	bool		running = HeapTupleIsValid(tuple) && status_of(tuple, migrations) == BBM_RUNNING &&
		DatumGetTimestampTz(bbm_tuple_column(tuple, migrations, "updated_at")) == updated_at;

	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(migrations, AccessShareLock);
	return running;
}

/*
 * Reads all that a claim needs to decide.  The caller holds the migration's
 * lock, so the state is the committed one and no other claim moves the cursor.
 * False when the migration is gone.
 *
 * The indexes are scanned directly: this is read before every batch, must not
 * depend on the planner's estimates for a table that was empty a moment ago,
 * and returns nothing that the caller may not see.
 */
bool
bbm_claim_state(int64 migration_id, BbmClaimState *state)
{
	const BbmCatalog *catalog = bbm_catalog();
	Relation	migrations = table_open(catalog->migrations, AccessShareLock);
	Relation	jobs = table_open(catalog->jobs, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	SysScanDesc scan = bbm_scan_id(migrations, bbm_catalog()->migrations_key, "id", migration_id, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	bool		exists = HeapTupleIsValid(tuple);

	if (exists)
	{
		state->status = status_of(tuple, migrations);
		state->updated_at = DatumGetTimestampTz(bbm_tuple_column(tuple, migrations, "updated_at"));
		state->phase = phase_column(tuple, migrations);
		/* limited as in catalog/options.c */
		state->phase.round = Max(state->phase.round, 1);
		state->min.number = DatumGetInt64(bbm_tuple_column(tuple, migrations, "min_value"));
		state->min.key = array_column(tuple, migrations, "min_key");
		state->max.number = DatumGetInt64(bbm_tuple_column(tuple, migrations, "max_value"));
		state->max.key = array_column(tuple, migrations, "max_key");
		state->batch_size = Max(DatumGetInt32(bbm_tuple_column(tuple, migrations, "batch_size")), 1);
		read_verify_max(state, migrations, tuple);
		read_last(state, migration_id, jobs, snapshot);
	}
	systable_endscan(scan);

	UnregisterSnapshot(snapshot);
	table_close(jobs, AccessShareLock);
	table_close(migrations, AccessShareLock);
	return exists;
}

/*
 * Returns a list of BbmCompetitor, in the current memory context: other
 * migrations that were last resolved to this table and may have a batch in
 * flight.  One that is paused or has failed may have one for a moment; a
 * finished one has none.
 */
List *
bbm_competing_migrations(int64 migration_id, Oid table)
{
	const BbmCatalog *catalog = bbm_catalog();
	Relation	migrations = table_open(catalog->migrations, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *competitors = NIL;

	ScanKeyInit(&key, bbm_column_number(migrations, "table_oid"), BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(table));
	scan = systable_beginscan(migrations, catalog->migrations_by_table, true, snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		int64		id = id_of(tuple, migrations);
		BbmCompetitor *competitor;

		if (id == migration_id || status_of(tuple, migrations) == BBM_FINISHED)
			continue;
		/* defined for the table, but not started */
		if (bbm_tuple_is_null(tuple, migrations, "started_at"))
			continue;
		competitor = palloc(sizeof(BbmCompetitor));
		competitor->id = id;
		competitor->owner = DatumGetObjectId(bbm_tuple_column(tuple, migrations, "owner_oid"));
		competitor->workers = DatumGetInt32(bbm_tuple_column(tuple, migrations, "workers"));
		competitor->priority = DatumGetInt16(bbm_tuple_column(tuple, migrations, "priority"));
		competitor->share_table = DatumGetBool(bbm_tuple_column(tuple, migrations, "share_table"));
		competitors = lappend(competitors, competitor);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(migrations, AccessShareLock);
	return competitors;
}

/* Returns a list of BbmRunningJob, in the current memory context: those of this migration, or (0) of all. */
List *
bbm_jobs_running(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT j.id, j.batched_background_migration_id, j.attempts::bigint, "
		"j.worker_pid::bigint, j.worker_id::bigint, m.owner_oid, j.started_at "
		"FROM @.batched_background_migration_jobs j "
		"JOIN @.batched_background_migrations m ON m.id = j.batched_background_migration_id "
		"WHERE j.status = 4 AND j.status <> 2 AND (m.id = $1 OR $1 = 0) ORDER BY j.id",
		1, {INT8OID}
	};
	List	   *list = NIL;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmRunningJob *job = palloc(sizeof(BbmRunningJob));

		job->id = bbm_sql_int64(i, 1);
		job->migration_id = bbm_sql_int64(i, 2);
		job->attempts = bbm_sql_int64(i, 3);
		job->pid = bbm_sql_int64(i, 4);
		job->worker_id = bbm_sql_int64(i, 5);
		job->owner = bbm_sql_oid(i, 6);
		job->started_at = bbm_sql_is_null(i, 7) ? DT_NOBEGIN : bbm_sql_int64(i, 7);
		list = lappend(list, job);
	}
	return list;
}
