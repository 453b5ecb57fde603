/*-------------------------------------------------------------------------
 *
 * import.c
 *		SQL over our tables that imports migrations and jobs from the GitLab
 *		container registry's own tables.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/import.h"

#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "catalog/migrations.h"
#include "catalog/options.h"
#include "catalog/sql.h"

/* Inserts the row by the rules for a user's INSERT: with the caller's rights, and checked by the guards. */
static int64
insert_migration(const BbmForeignMigration *m, BbmStatus status, const char *search_path, const char *owner)
{
	BbmDefinition d = {0};

	bbm_definition_set_text(&d, "name", m->name);
	bbm_definition_set(&d, "min_value", Int64GetDatum(m->min));
	bbm_definition_set(&d, "max_value", Int64GetDatum(m->max));
	bbm_definition_set(&d, "batch_size", Int32GetDatum(m->batch_size));
	bbm_definition_set(&d, "sub_batch_size", Int32GetDatum(m->sub_batch_size));
	bbm_definition_set(&d, "status", Int16GetDatum((int16) status));
	bbm_definition_set_text(&d, "job_signature_name", m->job);
	bbm_definition_set_text(&d, "table_name", m->table_name);
	bbm_definition_set_text(&d, "column_name", m->column_name);
	bbm_definition_set_text(&d, "batching_strategy", m->strategy);
	bbm_definition_set_text(&d, "job_search_path", search_path);
	bbm_definition_set(&d, "owner", DirectFunctionCall1(namein, CStringGetDatum(owner)));
	return bbm_migration_insert(&d);
}

static void
set_time(BbmDefinition *d, const char *column, TimestampTz at)
{
	if (at != 0)
		bbm_definition_set(d, column, TimestampTzGetDatum(at));
}

/*
 * Imports a migration of the GitLab container registry, with this status;
 * returns its id.  Columns that a user cannot set are updated afterwards: no
 * other session sees the row in between.
 */
int64
bbm_import_migration(const BbmForeignMigration *m, BbmStatus status, const char *search_path, const char *owner)
{
	int64		id = insert_migration(m, status, search_path, owner);
	BbmDefinition d = {0};

	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("migration \"%s\" already exists", m->name),
				 errdetail("Another session has defined it meanwhile."),
				 errhint("Nothing was imported. Call bbm_import again.")));
	set_time(&d, "created_at", m->created_at);
	set_time(&d, "started_at", m->started_at);
	set_time(&d, "finished_at", m->finished_at);
	if (m->total >= 0)
		bbm_definition_set(&d, "total_tuple_count", Int64GetDatum(m->total));
	if (status == BBM_FAILED)
	{
		if (m->code >= 0)
			bbm_definition_set(&d, "failure_error_code", Int16GetDatum((int16) m->code));
		bbm_definition_set_text(&d, "error_sqlstate", "55000");
		bbm_definition_set_text(&d, "error_message", "it had failed in the registry's worker, which keeps no error's text");
	}
	bbm_migration_write(id, &d, true);
	return id;
}

static Datum
make_array(Datum *elements, bool *nulls, int n, Oid type)
{
	int16		length;
	bool		by_value;
	char		align;
	int			low = 1;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_md_array(elements, nulls, 1, &n, &low, type, length, by_value, align));
}

/*
 * Imports the migration's jobs, in the order of their creation: the newest has
 * the highest id here as well. claim_epoch marks them as jobs of ours, for a
 * dump that loads them before their migration.
 */
void
bbm_import_jobs(int64 id, const BbmForeignMigration *m, const BbmForeignJob *jobs, int n)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, created_at, updated_at, "
		"started_at, finished_at, min_value, max_value, status, failure_error_code, attempts, key_count, batch_size, claim_epoch) "
		"SELECT $1, j.created_at, clock_timestamp(), j.started_at, j.finished_at, j.min_value, j.max_value, "
		"j.status, j.code, j.attempts, j.keys, $2, 1 "
		"FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11) WITH ORDINALITY "
		"j (created_at, started_at, finished_at, min_value, max_value, status, code, attempts, keys, n) ORDER BY j.n",
		11, {INT8OID, INT4OID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
		INT8ARRAYOID, INT2ARRAYOID, INT2ARRAYOID, INT2ARRAYOID, INT8ARRAYOID}
	};
	static const Oid types[] = {
		TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT2OID, INT2OID, INT2OID, INT8OID
	};
	Datum		values[11] = {Int64GetDatum(id), Int32GetDatum(m->batch_size)};
	Datum	   *elements[lengthof(types)];
	bool	   *nulls[lengthof(types)];

	if (n == 0)
		return;
	for (int c = 0; c < lengthof(types); c++)
	{
		elements[c] = MemoryContextAllocHuge(CurrentMemoryContext, (Size) n * sizeof(Datum));
		nulls[c] = MemoryContextAllocZero(CurrentMemoryContext, n * sizeof(bool));
	}
	for (int i = 0; i < n; i++)
	{
		const BbmForeignJob *job = &jobs[i];
		Datum		row[] = {
			TimestampTzGetDatum(job->created_at), TimestampTzGetDatum(job->started_at),
			TimestampTzGetDatum(job->finished_at), Int64GetDatum(job->min), Int64GetDatum(job->max),
			Int16GetDatum((int16) job->status), Int16GetDatum((int16) job->code), Int16GetDatum((int16) job->attempts),
			Int64GetDatum(job->keys)
		};

		for (int c = 0; c < lengthof(types); c++)
			elements[c][i] = row[c];
		nulls[1][i] = job->started_at == 0;
		nulls[2][i] = job->finished_at == 0;
		nulls[6][i] = job->code < 0;
	}
	for (int c = 0; c < lengthof(types); c++)
		values[2 + c] = make_array(elements[c], nulls[c], n, types[c]);
	bbm_sql_run_values(&sql, values, NULL, true);
	for (int c = 0; c < lengthof(types); c++)
	{
		pfree(elements[c]);
		pfree(nulls[c]);
		pfree(DatumGetPointer(values[2 + c]));
	}
}

/*
 * Returns the migration's last event other than "stalled"; NULL when there is
 * none any more.
 */
char *
bbm_import_last_event(int64 id)
{
	static BbmSql sql = {
		"SELECT event FROM @.bbm_events WHERE migration_id = $1 AND event <> 'stalled' ORDER BY id DESC LIMIT 1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(id));
	return SPI_processed == 0 ? NULL : bbm_sql_text(0, 1, CurrentMemoryContext);
}
