/*-------------------------------------------------------------------------
 *
 * jobs.c
 *		SQL over batched_background_migration_jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/jobs.h"

#include "access/table.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/point.h"
#include "base/printable.h"
#include "catalog/extension.h"
#include "catalog/sql.h"

/* Identifies that error. */
#define JOBS_KEY "bbm_jobs_pkey"

/* Raises an error after which the transaction is retried, once the sequence has been advanced. */
static void
raise_ids_behind(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the sequence of the ids of jobs is behind them"),
			 errdetail("The newest job of a migration is known by its id. Jobs were loaded, or the sequence was set."),
			 errhint("bbm advances the sequence and tries again."),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, JOBS_KEY)));
}

/* Is this the error above? */
bool
bbm_job_ids_are_behind(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE && error->constraint_name &&
		strcmp(error->constraint_name, JOBS_KEY) == 0;
}

/*
 * Advances the sequence of the jobs' ids beyond the highest one, if it is
 * behind.  The lock keeps others from taking a number between the SELECT and
 * setval, which would hand it out again; whoever takes a number afterwards gets a
 * higher one.
 */
void
bbm_job_ids_catch_up(void)
{
	static BbmSql highest = {"SELECT max(id) FROM @.batched_background_migration_jobs", 0};
	static BbmSql last = {"SELECT pg_sequence_last_value($1)", 1, {OIDOID}};
	static BbmSql set = {"SELECT setval($1::regclass, greatest($2, pg_sequence_last_value($1)))", 2, {OIDOID, INT8OID}};
	Relation	jobs = table_open(bbm_catalog()->jobs, AccessShareLock);
	Oid			sequence = getIdentitySequence(jobs, get_attnum(RelationGetRelid(jobs), "id"), false);
	Datum		values[] = {ObjectIdGetDatum(sequence), (Datum) 0};
	int64		known;

	table_close(jobs, AccessShareLock);
	bbm_sql_run_values(&last, values, NULL, false);
	known = bbm_sql_int64(0, 1);
	bbm_sql_run_values(&highest, NULL, NULL, false);
	if (bbm_sql_int64(0, 1) <= known)
		return;
	LockRelationOid(sequence, ShareRowExclusiveLock);
	bbm_sql_run_values(&highest, NULL, NULL, false);
	BBM_POINT("ids-read");
	values[1] = Int64GetDatum(bbm_sql_int64(0, 1));
	bbm_sql_run_values(&set, values, NULL, false);
}

/* Inserts the row of a new job, and returns its id. */
static int64
insert_job(BbmSql *sql, Datum *values)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		bbm_sql_run_values(sql, values, NULL, true);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		raise_ids_behind();
	}
	PG_END_TRY();
	return bbm_sql_int64(0, 1);
}

/* NULL, where a row is read before its constraints are checked, is the default. */
BbmJobKind
bbm_job_kind(const char *name)
{
	if (name == NULL)
		return BBM_JOB_RANGE;
	return strcmp(name, "repair") == 0 ? BBM_JOB_REPAIR : strcmp(name, "retry") == 0 ? BBM_JOB_RETRY : BBM_JOB_RANGE;
}

/*
 * Inserts a new job, claimed by this process, and fills in its id.  The id
 * must be higher than "after", the id of the newest job, since the newest job
 * determines the next range.
 */
void
bbm_job_insert(BbmJob *job, int32 worker_id, int64 after)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, min_value, "
		"max_value, key_count, worker_pid, worker_id, started_at, updated_at, status, attempts, claim_epoch, "
		"round, batch_size, min_key, max_key, relation, relation_name, phase) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $7, 4, 1, 1, $8, $9, $10, $11, nullif($12, 0), $13, $14) RETURNING id",
		14, {INT8OID, INT8OID, INT8OID, INT8OID, INT4OID, INT4OID, TIMESTAMPTZOID, INT4OID, INT4OID, TEXTARRAYOID,
		TEXTARRAYOID, OIDOID, TEXTOID, TEXTOID}
	};
	Datum		values[] = {
		Int64GetDatum(job->migration_id), Int64GetDatum(job->min.number), Int64GetDatum(job->max.number),
		Int64GetDatum(job->key_count), Int32GetDatum(MyProcPid), Int32GetDatum(worker_id),
		TimestampTzGetDatum(GetCurrentTimestamp()), Int32GetDatum(job->phase.round), Int32GetDatum(job->batch_size),
		job->min.key, job->max.key, ObjectIdGetDatum(job->relation), bbm_sql_text_value(job->relation_name),
		CStringGetTextDatum(bbm_phase_name(job->phase))
	};

	job->id = insert_job(&sql, values);
	if (job->id <= after)
		raise_ids_behind();
	job->attempts = 1;
	job->claim_epoch = 1;
	job->kind = BBM_JOB_RANGE;
	job->bisect = false;
	job->has_cursor = false;
	job->reduced_sub_batch_size = job->no_progress = job->requeues_in_row = 0;
}

/*
 * Claims the lowest due job of the migration with this status (new or failed).
 * A locked row is skipped: its worker is just ending.
 */
bool
bbm_job_reclaim(int64 migration_id, int status, TimestampTz now, int32 worker_id, MemoryContext context, BbmJob *job)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs j SET status = 4, attempts = attempts + (attempts < 32767)::integer, "
		"claim_epoch = claim_epoch + 1, worker_pid = $4, worker_id = $5, started_at = $3, updated_at = $3 "
		"WHERE j.id = (SELECT o.id FROM @.batched_background_migration_jobs o "
		" WHERE o.status = $2::smallint AND o.status <> 2 AND o.batched_background_migration_id = $1 "
		" AND (o.next_attempt_at IS NULL OR o.next_attempt_at <= $3) "
		" ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED) "
		"RETURNING id, min_value, max_value, cursor_value, attempts::bigint, claim_epoch::bigint, key_count, "
		"round::bigint, min_key, max_key, cursor_key, relation, relation_name, batch_size::bigint, bisect, "
		"reduced_sub_batch_size::bigint, no_progress::bigint, kind, phase = 'verify', requeues_in_row::bigint",
		5, {INT8OID, INT4OID, TIMESTAMPTZOID, INT4OID, INT4OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), Int32GetDatum(status), TimestampTzGetDatum(now),
				Int32GetDatum(MyProcPid), Int32GetDatum(worker_id));
	if (SPI_processed == 0)
		return false;
	job->id = bbm_sql_int64(0, 1);
	job->migration_id = migration_id;
	job->min.number = bbm_sql_int64(0, 2);
	job->max.number = bbm_sql_int64(0, 3);
	job->has_cursor = !bbm_sql_is_null(0, 4);
	job->cursor.number = bbm_sql_int64(0, 4);
	job->attempts = bbm_sql_int64(0, 5);
	job->claim_epoch = bbm_sql_int64(0, 6);
	job->key_count = bbm_sql_int64(0, 7);
	job->phase.round = bbm_sql_int64(0, 8);
	job->min.key = bbm_sql_array(0, 9, context);
	job->max.key = bbm_sql_array(0, 10, context);
	job->cursor.key = bbm_sql_array(0, 11, context);
	job->relation = bbm_sql_oid(0, 12);
	job->relation_name = bbm_sql_text(0, 13, context);
	job->batch_size = bbm_sql_int64(0, 14);
	job->bisect = bbm_sql_bool(0, 15);
	job->reduced_sub_batch_size = bbm_sql_int64(0, 16);
	job->no_progress = bbm_sql_int64(0, 17);
	job->kind = bbm_job_kind(bbm_sql_text(0, 18, CurrentMemoryContext));
	job->phase.verifies = bbm_sql_bool(0, 19);
	job->requeues_in_row = bbm_sql_int64(0, 20);
	return true;
}

/*
 * Reads the jobs that have to be done again, with the error of the one that is
 * due first, in the current memory context.
 */
void
bbm_jobs_unfinished(int64 migration_id, BbmUnfinished *unfinished)
{
	static BbmSql sql = {
		"SELECT count(*), count(*) FILTER (WHERE status = 3), min(coalesce(next_attempt_at, '-infinity')), "
		"(array_agg(left(error_sqlstate, 5) || ': ' || left(error_message, 200) || "
		/* the lock that it waited for, as in engine/outcome.c */
		"CASE WHEN error_sqlstate = '55P03' AND error_detail IS NOT NULL THEN ' (' || left(error_detail, 200) || ')' ELSE '' END "
		" ORDER BY coalesce(next_attempt_at, '-infinity'), id))[1] "
		"FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND status IN (1, 3) AND status <> 2",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	unfinished->jobs = bbm_sql_int64(0, 1);
	unfinished->failed = bbm_sql_int64(0, 2);
	unfinished->due = unfinished->jobs > 0 ? bbm_sql_int64(0, 3) : DT_NOEND;
	unfinished->error = bbm_sql_text(0, 4, CurrentMemoryContext);
}

/* What a migration waits for that has only these jobs left; in the current memory context. */
char *
bbm_unfinished_to_string(const BbmUnfinished *unfinished)
{
	if (unfinished->failed > 0)
		return pstrdup(BBM_WAITS_FOR_RETRY);
	return psprintf("retry of a requeued job%s%s", unfinished->error ? ": " : "",
					unfinished->error ? unfinished->error : "");
}

/* Was another range allocated after this job's? */
bool
bbm_job_is_followed(int64 migration_id, int64 job_id)
{
	static BbmSql sql = {
		"SELECT FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND id > $2 AND kind <> 'retry' LIMIT 1",
		2, {INT8OID, INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int64GetDatum(job_id));
	return SPI_processed > 0;
}

/* Gives failed jobs fresh attempts; returns how many. */
int64
bbm_jobs_refresh(int64 migration_id)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, attempts = 0, bisect = false, no_progress = 0, "
		"requeues_in_row = 0, next_attempt_at = NULL, failure_error_code = NULL, updated_at = clock_timestamp() "
		"WHERE batched_background_migration_id = $1 AND status = 3",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id));
	return SPI_processed;
}

/* Did the last n jobs of the migration, since it was last started, all end without changing a row? */
bool
bbm_jobs_idle(int64 migration_id, int n)
{
	static BbmSql sql = {
		"SELECT count(*) FROM (SELECT status, row_count FROM @.batched_background_migration_jobs "
		" WHERE batched_background_migration_id = $1 AND kind <> 'retry' AND created_at >= "
		"  (SELECT coalesce(updated_at, '-infinity') FROM @.batched_background_migrations WHERE id = $1) "
		" ORDER BY id DESC LIMIT $2) j WHERE status = 2 AND row_count = 0",
		2, {INT8OID, INT4OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int32GetDatum(n));
	return bbm_sql_int64(0, 1) >= n;
}

/* The number of wrong rows that the verification of a round has found; -1 when there was none. */
int64
bbm_jobs_found(int64 migration_id, int round)
{
	static BbmSql sql = {
		"SELECT bbm_internal.bbm_as_bigint(coalesce(sum(row_count), -1)) FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND phase = 'verify' AND round = $2",
		2, {INT8OID, INT4OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int32GetDatum(round));
	return bbm_sql_int64(0, 1);
}

/*
 * Creates a job in the next round for each range in which the verification of
 * this round has found rows.  The caller has bbm_migration_lock, and all its jobs
 * are finished, so no other session creates, finishes or merges a job that
 * matters here.
 */
void
bbm_jobs_repair(int64 migration_id, int round)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, "
		"min_key, max_key, relation, relation_name, key_count, batch_size, round, status, kind, updated_at) "
		"SELECT batched_background_migration_id, min_value, max_value, min_key, max_key, relation, relation_name, "
		" row_count, batch_size, $2 + 1, 1, 'repair', clock_timestamp() FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND phase = 'verify' AND round = $2 AND row_count > 0 ORDER BY id",
		2, {INT8OID, INT4OID}
	};

	bbm_job_ids_catch_up();
	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), Int32GetDatum(round));
}

/*
 * Are rows that verification has found still to be done?  Those of them that are
 * quarantined are done along with them, and not tried again by themselves.
 */
bool
bbm_jobs_have_repair(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND kind = 'repair' AND status IN (1, 3, 4) AND status <> 2 LIMIT 1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	return SPI_processed > 0;
}

/* Appends a key, without control characters and shortened. */
static void
append_key_string(StringInfo string, Datum key)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	const int	most = 64;

	deconstruct_array(DatumGetArrayTypeP(key), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *value = nulls[i] ? "NULL" : TextDatumGetCString(elements[i]);
		int			length = pg_mbcliplen(value, strlen(value), most);

		appendStringInfo(string, "%s%s%s", i > 0 ? ", " : "(", bbm_printable(pnstrdup(value, length)),
						 value[length] != '\0' ? "..." : "");
	}
	appendStringInfoChar(string, ')');
}

/* The range of a job, for messages.  Needs no transaction. */
char *
bbm_job_range_to_string(const BbmJob *job)
{
	StringInfoData string;

	initStringInfo(&string);
	if (DatumGetPointer(job->min.key))
	{
		append_key_string(&string, job->min.key);
		appendStringInfoString(&string, " to ");
		append_key_string(&string, job->max.key);
	}
	else
		appendStringInfo(&string, INT64_FORMAT " to " INT64_FORMAT, job->min.number, job->max.number);
	if (job->relation_name)
		appendStringInfo(&string, " of %s", bbm_printable(job->relation_name));
	return string.data;
}

/*
 * The numbers of wrong rows that the verifications of this round and of those
 * before it have found, newest first, back to the last restart of the
 * migration.  Sets *n.
 */
int64 *
bbm_jobs_checks(int64 migration_id, int round, int *n)
{
	static BbmSql sql = {
		"SELECT round::bigint, bbm_internal.bbm_as_bigint(sum(row_count)) FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 AND phase = 'verify' AND round <= $2 GROUP BY round "
		"ORDER BY round DESC",
		2, {INT8OID, INT4OID}
	};
	int64	   *found;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int32GetDatum(round));
	found = palloc(Max(SPI_processed, 1) * sizeof(int64));
	for (*n = 0; *n < SPI_processed && bbm_sql_int64(*n, 1) == round - *n; (*n)++)
		found[*n] = bbm_sql_int64(*n, 2);
	return found;
}

/*
 * Reads what the newest jobs have used, the oldest of them first; returns how
 * many there are, up to "room".  A job of several batches has waited between
 * them, and may have been released, so its use counts from its first claim.
 * Verification jobs have used nothing.
 */
int
bbm_jobs_spent(int64 migration_id, BbmSpent *spent, int room)
{
	static BbmSql sql = {
		"SELECT row_count, wal_bytes, "
		" greatest(least(started_at, CASE WHEN batch_counts IS NOT NULL THEN created_at END, until - make_interval(secs => least(greatest(run_ms, 0), 86400000) / 1000)), "
		"  until - interval '1 day'), until "
		"FROM (SELECT *, coalesce(finished_at, updated_at) AS until FROM @.batched_background_migration_jobs "
		" WHERE batched_background_migration_id = $1 AND phase = 'work' ORDER BY id DESC LIMIT $2) newest "
		"WHERE isfinite(until) ORDER BY id DESC",
		2, {INT8OID, INT4OID}
	};
	int			n;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int32GetDatum(room));
	n = (int) SPI_processed;
	for (int i = 0; i < n; i++)
	{
		BbmSpent   *one = &spent[n - 1 - i];

		one->rows = bbm_sql_int64(i, 1);
		one->wal = bbm_sql_int64(i, 2);
		one->since = bbm_sql_int64(i, 3);
		one->until = bbm_sql_int64(i, 4);
	}
	return n;
}
