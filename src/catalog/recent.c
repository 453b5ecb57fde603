/*-------------------------------------------------------------------------
 *
 * recent.c
 *		What became of a migration's newest jobs.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/recent.h"

#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/point.h"
#include "catalog/sql.h"

/* When it was started last; its events may have been deleted since. */
static TimestampTz
started_at(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT at FROM @.bbm_events WHERE migration_id = $1 AND event IN ('created', 'started') ORDER BY id DESC LIMIT 1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id));
	return SPI_processed == 0 || bbm_sql_is_null(0, 1) ? DT_NOBEGIN : bbm_sql_int64(0, 1);
}

/* The ids of jobs that had rows quarantined since then, as an array in the current context. */
static Datum
jobs_with_quarantined(int64 migration_id, TimestampTz since)
{
	static BbmSql sql = {
		"SELECT coalesce(array_agg(DISTINCT job_id), '{}') FROM @.bbm_row_errors WHERE migration_id = $1 AND at >= $2",
		2, {INT8OID, TIMESTAMPTZOID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), TimestampTzGetDatum(since));
	return bbm_sql_array(0, 1, CurrentMemoryContext);
}

/*
 * Counts the jobs that have ended since the migration was started last, among
 * its newest ones, at most so many: all of them, and those that have failed and
 * wait for another attempt, or have had rows quarantined.
 *
 * Jobs that end between the statements are in the last one or not; either is
 * right.
 */
void
bbm_recent_jobs(int64 migration_id, int most, int64 *jobs, int64 *failed)
{
	static BbmSql sql = {
		"SELECT count(*), count(*) FILTER (WHERE j.status = 3 OR j.id = ANY ($4)) "
		"FROM (SELECT id, status, updated_at FROM @.batched_background_migration_jobs "
		"WHERE batched_background_migration_id = $1 ORDER BY id DESC LIMIT $2) j "
		"WHERE j.status IN (2, 3) AND j.updated_at >= $3",
		4, {INT8OID, INT4OID, TIMESTAMPTZOID, INT8ARRAYOID}
	};
	TimestampTz since = started_at(migration_id);
	Datum		values[] = {
		Int64GetDatum(migration_id), Int32GetDatum(most), TimestampTzGetDatum(since),
		jobs_with_quarantined(migration_id, since)
	};

	BBM_POINT("breaker-listed");
	bbm_sql_run_values(&sql, values, NULL, false);
	*jobs = bbm_sql_int64(0, 1);
	*failed = bbm_sql_int64(0, 2);
}
