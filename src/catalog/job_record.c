/*-------------------------------------------------------------------------
 *
 * job_record.c
 *		Recording what comes of a claimed job.
 *
 * NOTES
 *	  A batch that is done is recorded in its own transaction, which has locked
 *	  the job's row (bbm_job_lock).  Each of the other statements is alone in
 *	  its transaction, and checks by itself that the claim is still valid.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/job_record.h"

#include "access/table.h"
#include "utils/snapmgr.h"

#include "catalog/batch_counts.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/sql.h"
#include "catalog/tables.h"

#define ONE_MORE_FAILURE "failures = failures + (failures < 2147483647)::integer, "

/*
 * Locks the row of a job that we have claimed, until the end of the
 * transaction.  False when it is not ours any more.  Uses only the primary
 * key: the index of open jobs may be full of dead entries.
 */
bool
bbm_job_lock(BbmJob *job)
{
	const BbmCatalog *catalog = bbm_catalog();
	Relation	jobs = table_open(catalog->jobs, RowExclusiveLock);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	TupleTableSlot *slot = table_slot_create(jobs, NULL);
	SysScanDesc scan = bbm_scan_id(jobs, catalog->jobs_key, "id", job->id, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	bool		ours = false;

	if (HeapTupleIsValid(tuple))
	{
		TM_FailureData failure;

		job->tid = tuple->t_self;

		/* whoever has changed the row since the snapshot has taken over the job */
		ours = DatumGetInt32(bbm_tuple_column(tuple, jobs, "claim_epoch")) == job->claim_epoch &&
			DatumGetInt16(bbm_tuple_column(tuple, jobs, "status")) == BBM_RUNNING &&
			table_tuple_lock(jobs, &tuple->t_self, snapshot, slot, GetCurrentCommandId(true),
							 LockTupleExclusive, LockWaitBlock, 0, &failure) == TM_Ok;
	}
	systable_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(jobs, NoLock);
	return ours;
}

/* Is the row of a running job locked by another transaction? */
bool
bbm_job_is_locked(int64 id)
{
	static BbmSql running = {
		"SELECT 1 FROM @.batched_background_migration_jobs WHERE id = $1 AND status + 0 = 4",
		1, {INT8OID}
	};
	static BbmSql unlocked = {
		"SELECT 1 FROM @.batched_background_migration_jobs WHERE id = $1 AND status + 0 = 4 FOR SHARE SKIP LOCKED",
		1, {INT8OID}
	};

	bbm_sql_run(&unlocked, true, Int64GetDatum(id));
	if (SPI_processed > 0)
		return false;
	bbm_sql_run(&running, false, Int64GetDatum(id));
	return SPI_processed > 0;
}

/* A job that has its own migration deleted must not end as if it were recorded. */
void
bbm_job_check_recorded(const BbmJob *job, uint64 rows)
{
	if (rows != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the row of job " INT64_FORMAT " is gone", job->id),
				 errdetail("The batch cannot be recorded as done."),
				 errhint("A job must not delete or restart its own migration.")));
}

/*
 * Uses the ctid, like bbm_job_progress.  The caller has bbm_job_lock.
 * "detached": its partition is not part of the table, so it was not done, and
 * will be if the partition is attached again.  A job with one batch needs no
 * histogram: run_ms shows the batch.
 */
void
bbm_job_finish(const BbmJob *job, const BbmCost *cost, bool detached)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 2, finished_at = $2, updated_at = $2, "
		"row_count = row_count + " BBM_UP_TO("$3", "row_count") ", run_ms = run_ms + $4, "
		"wal_bytes = wal_bytes + " BBM_UP_TO("$5", "wal_bytes") ", "
		"failure_error_code = NULL, next_attempt_at = NULL, detached = $6, "
		"batch_counts = CASE WHEN $7 > 0 THEN " BBM_BATCH_COUNTED("$7") " ELSE batch_counts END WHERE ctid = $1",
		7, {TIDOID, TIMESTAMPTZOID, INT8OID, FLOAT8OID, INT8OID, BOOLOID, INT4OID}
	};

	bbm_sql_run(&sql, true, PointerGetDatum(&job->tid), TimestampTzGetDatum(GetCurrentTimestamp()),
				Int64GetDatum(cost->rows), Float8GetDatum(cost->ms), Int64GetDatum(cost->wal), BoolGetDatum(detached),
				Int32GetDatum(job->has_cursor ? bbm_batch_bucket(cost->ms) : 0));
	bbm_job_check_recorded(job, SPI_processed);
}

/*
 * Records that the attempt failed; the next one may quarantine rows.  False
 * when the job is not ours any more.
 */
bool
bbm_job_fail(const BbmJob *job, int code, const ErrorData *error, TimestampTz due, bool bisect)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 3, failure_error_code = $3::smallint, " ONE_MORE_FAILURE
		"next_attempt_at = $4, updated_at = clock_timestamp(), error_sqlstate = $5, error_message = $6, "
		"error_detail = $7, error_hint = $8, error_context = $9, bisect = $10, reduced_sub_batch_size = nullif($11, 0) "
		"WHERE id = $1 AND claim_epoch = $2 AND status = 4",
		11, {INT8OID, INT4OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, INT4OID}
	};
	Datum		values[11] = {
		Int64GetDatum(job->id), Int32GetDatum(job->claim_epoch), Int32GetDatum(code), TimestampTzGetDatum(due)
	};

	values[9] = BoolGetDatum(bisect);
	values[10] = Int32GetDatum(job->reduced_sub_batch_size);
	bbm_error_values(error, &values[4]);
	bbm_sql_run_values(&sql, values, NULL, true);
	return SPI_processed > 0;
}

/* Runs a statement with the claim as its only values.  False when the job is not ours any more. */
static bool
run_on_claim(BbmSql *sql, const BbmJob *job)
{
	bbm_sql_run(sql, true, Int64GetDatum(job->id), Int32GetDatum(job->claim_epoch));
	return SPI_processed > 0;
}

/* The range is quarantined: the job ends without processing it.  False when the job is not ours any more. */
bool
bbm_job_skip(const BbmJob *job)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 2, finished_at = clock_timestamp(), "
		"updated_at = clock_timestamp(), next_attempt_at = NULL WHERE id = $1 AND claim_epoch = $2 AND status = 4",
		2, {INT8OID, INT4OID}
	};

	return run_on_claim(&sql, job);
}

/* The rest of the job was not tried: it becomes new again.  False when the job is not ours any more. */
bool
bbm_job_release_unstarted(const BbmJob *job)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, attempts = greatest(attempts - 1, 0), "
		"updated_at = clock_timestamp() WHERE id = $1 AND claim_epoch = $2 AND status = 4",
		2, {INT8OID, INT4OID}
	};

	return run_on_claim(&sql, job);
}

/* The name of a reason in requeue_reasons. */
const char *
bbm_requeue_reason_name(BbmRequeueReason why)
{
	static const char *const reasons[] = {
		NULL, "lock timeout", "deadlock", "blocking others", "time limit", "cancelled", "other"
	};

	return reasons[why];
}

/*
 * Requeues the job; the attempt does not count.  The next one uses the job's
 * reduced_sub_batch_size and no_progress.  False when the job is not ours any
 * more.
 */
bool
bbm_job_requeue(const BbmJob *job, BbmRequeueReason why, const ErrorData *error, TimestampTz due)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, attempts = greatest(attempts - 1, 0), "
		"next_attempt_at = $3, updated_at = clock_timestamp(), error_sqlstate = $4, error_message = $5, "
		"error_detail = $6, error_hint = $7, error_context = $8, requeued = requeued + (requeued < 2147483647)::integer, "
		"requeue_reasons = bbm_internal.bbm_requeue_reasons_add(coalesce(requeue_reasons, '{}'), jsonb_build_object($9, 1)), "
		"reduced_sub_batch_size = nullif($10, 0), no_progress = $11, "
		"requeues_in_row = requeues_in_row + (requeues_in_row < 2147483647)::integer "
		"WHERE id = $1 AND claim_epoch = $2 AND status = 4",
		11, {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID}
	};
	Datum		values[11] = {
		Int64GetDatum(job->id), Int32GetDatum(job->claim_epoch), TimestampTzGetDatum(due)
	};

	bbm_error_values(error, &values[3]);
	values[8] = CStringGetTextDatum(bbm_requeue_reason_name(why));
	values[9] = Int32GetDatum(job->reduced_sub_batch_size);
	values[10] = Int32GetDatum(job->no_progress);
	bbm_sql_run_values(&sql, values, NULL, true);
	return SPI_processed > 0;
}

/*
 * The worker of a running job is gone: the job has failed and may be tried
 * again when due.  Raising claim_epoch makes that worker's claim invalid, in
 * case it is still there unseen.  False when somebody has the row locked: then
 * the worker does exist.
 */
bool
bbm_job_orphan(int64 id, TimestampTz due)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 3, claim_epoch = claim_epoch + 1, " ONE_MORE_FAILURE
		"next_attempt_at = $2, failure_error_code = 0, updated_at = clock_timestamp(), "
		"error_sqlstate = '57P02', error_message = 'the worker that ran this job is gone', "
		"error_detail = format('It was process %s.', worker_pid), error_hint = NULL, error_context = NULL "
		"WHERE id = (SELECT id FROM @.batched_background_migration_jobs WHERE id = $1 AND status = 4 "
		" FOR UPDATE SKIP LOCKED)",
		2, {INT8OID, TIMESTAMPTZOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(id), TimestampTzGetDatum(due));
	return SPI_processed > 0;
}

/*
 * Resets a job that this process has run, but whose end it could not record,
 * as if it had not been claimed.  False when somebody has the row locked.
 */
bool
bbm_job_take_back(int64 id)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, attempts = greatest(attempts - 1, 0), "
		"claim_epoch = claim_epoch + 1, updated_at = clock_timestamp() "
		"WHERE id = (SELECT id FROM @.batched_background_migration_jobs WHERE id = $1 AND status = 4 "
		" FOR UPDATE SKIP LOCKED)",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(id));
	return SPI_processed > 0;
}
