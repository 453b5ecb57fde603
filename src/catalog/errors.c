/*-------------------------------------------------------------------------
 *
 * errors.c
 *		SQL over bbm_row_errors: what a migration has quarantined.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/errors.h"

#include "base/cancel.h"
#include "base/printable.h"
#include "catalog/jobs.h"
#include "catalog/sql.h"

/* SQLSTATE, message, detail, hint and context, each shortened to a readable length. */
void
bbm_error_values(const ErrorData *error, Datum *values)
{
	const char *texts[] = {
		unpack_sql_state(error->sqlerrcode), error->message, error->detail, error->hint, error->context
	};

	for (int i = 0; i < lengthof(texts); i++)
		values[i] = bbm_sql_text_value(texts[i] ? bbm_shortened(texts[i], BBM_LONGEST_KEPT) : NULL);
}

/*
 * Quarantines a range that fails with this error.  Called in the transaction
 * that does the remaining rows of its job.
 */
void
bbm_error_add(const BbmJob *job, const BbmBound *min, const BbmBound *max, const ErrorData *error)
{
	static BbmSql sql = {
		"INSERT INTO @.bbm_row_errors (migration_id, job_id, relation, relation_name, min_value, max_value, min_key, "
		"max_key, error_sqlstate, error_message, error_detail, error_hint, error_context) "
		"VALUES ($1, $2, nullif($3, 0), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
		13, {INT8OID, INT8OID, OIDOID, TEXTOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID}
	};
	Datum		values[13] = {
		Int64GetDatum(job->migration_id), Int64GetDatum(job->id), ObjectIdGetDatum(job->relation),
		bbm_sql_text_value(job->relation_name), Int64GetDatum(min->number), Int64GetDatum(max->number), min->key,
		max->key
	};

	bbm_error_values(error, &values[8]);
	bbm_sql_run_values(&sql, values, NULL, true);
}

int64
bbm_errors_count(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT count(*) FROM @.bbm_row_errors WHERE migration_id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	return bbm_sql_int64(0, 1);
}

/* What a migration fails with when more cannot be done than its max_errors. */
ErrorData *
bbm_errors_too_many(const BbmMigration *migration, const ErrorData *last)
{
	ErrorData  *error = bbm_make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
									   psprintf("more than %d %s cannot be done", migration->max_errors,
												migration->on_error == BBM_ON_ERROR_SKIP ? "ranges" : "rows"),
									   "bbm_errors shows those before; correct the job, or raise max_errors, and start the migration again.");

	error->detail = psprintf("The last error was: %s", last->message);
	return error;
}

static const char *
counted(int64 n, const char *one, const char *many)
{
	return psprintf(INT64_FORMAT " %s", n, n == 1 ? one : many);
}

/*
 * What the word "finished" is followed by when rows or ranges of rows are
 * quarantined, in the current memory context; an empty string when none is.
 */
const char *
bbm_quarantined_to_string(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT count(*) FILTER (WHERE is_row), count(*) FILTER (WHERE NOT is_row) "
		"FROM (SELECT min_value = max_value AND min_key IS NOT DISTINCT FROM max_key AS is_row "
		" FROM @.bbm_row_errors WHERE migration_id = $1) e",
		1, {INT8OID}
	};
	int64		rows;
	int64		ranges;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	rows = bbm_sql_int64(0, 1);
	ranges = bbm_sql_int64(0, 2);
	if (rows == 0 && ranges == 0)
		return "";
	return psprintf(", %s%s%s quarantined", rows > 0 ? counted(rows, "row", "rows") : "",
					rows > 0 && ranges > 0 ? " and " : "", ranges > 0 ? counted(ranges, "range", "ranges") : "");
}

/* Returns a list of BbmQuarantined, in the current memory context. */
List *
bbm_errors(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT id, relation, min_value, max_value, min_key, max_key FROM @.bbm_row_errors WHERE migration_id = $1",
		1, {INT8OID}
	};
	List	   *list = NIL;

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmQuarantined *entry = palloc0(sizeof(BbmQuarantined));

		entry->id = bbm_sql_int64(i, 1);
		entry->relation = bbm_sql_oid(i, 2);
		entry->min.number = bbm_sql_int64(i, 3);
		entry->max.number = bbm_sql_int64(i, 4);
		entry->min.key = bbm_sql_array(i, 5, CurrentMemoryContext);
		entry->max.key = bbm_sql_array(i, 6, CurrentMemoryContext);
		list = lappend(list, entry);
	}
	return list;
}

void
bbm_error_delete(int64 id)
{
	static BbmSql sql = {"DELETE FROM @.bbm_row_errors WHERE id = $1", 1, {INT8OID}};

	bbm_sql_run(&sql, true, Int64GetDatum(id));
}

/*
 * Turns each quarantined range into a job; returns how many.
 * The caller has bbm_migration_lock, so nobody else takes or adds a range
 * between the two statements, which may run with the rights of different
 * owners.
 */
int64
bbm_errors_retry(int64 migration_id)
{
	static BbmSql take = {
		"WITH gone AS (DELETE FROM @.bbm_row_errors WHERE migration_id = $1 RETURNING *) "
		"SELECT array_agg(id), array_agg(relation), array_agg(relation_name), array_agg(min_value), array_agg(max_value), "
		"array_agg(min_key::text), array_agg(max_key::text) FROM gone",
		1, {INT8OID}
	};
	static BbmSql add = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, relation, relation_name, "
		"min_value, max_value, min_key, max_key, status, key_count, batch_size, kind) "
		"SELECT $1, g.relation, g.relation_name, g.min_value, g.max_value, g.min_key::text[], g.max_key::text[], "
		"1, 0, 1, 'retry' FROM unnest($2, $3, $4, $5, $6, $7, $8) g (id, relation, relation_name, min_value, max_value, min_key, max_key) "
		"ORDER BY g.id",
		8, {INT8OID, INT8ARRAYOID, OIDARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID}
	};
	Datum		values[8] = {Int64GetDatum(migration_id)};

	bbm_sql_run_values(&take, values, NULL, true);
	if (bbm_sql_is_null(0, 1))
		return 0;
	for (int i = 1; i < lengthof(values); i++)
		values[i] = bbm_sql_array(0, i, CurrentMemoryContext);
	bbm_job_ids_catch_up();
	bbm_sql_run_values(&add, values, NULL, true);
	return SPI_processed;
}

/* Deletes those of this migration, or (0) of all. */
void
bbm_errors_forget(int64 migration_id)
{
	static BbmSql all = {"DELETE FROM @.bbm_row_errors", 0, {0}};
	static BbmSql one = {
		"DELETE FROM @.bbm_row_errors WHERE migration_id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(migration_id == 0 ? &all : &one, true, Int64GetDatum(migration_id));
}

/* A migration of a restored database is started here: its tables are found by their names. */
void
bbm_errors_accept(int64 migration_id)
{
	static BbmSql sql = {
		"UPDATE @.bbm_row_errors SET relation = coalesce(to_regclass(relation_name)::oid, 0) "
		"WHERE migration_id = $1 AND relation IS NOT NULL",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id));
}
