/*-------------------------------------------------------------------------
 *
 * merge.c
 *		Merging finished jobs, so that the table stays small.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/merge.h"

#include "catalog/sql.h"
#include "catalog/totals.h"

/* The id of the job that "retention" newer ones follow; 0 when there are fewer. */
static int64
oldest_kept(int64 migration_id, int retention)
{
	static BbmSql sql = {
		"SELECT id FROM @.batched_background_migration_jobs WHERE batched_background_migration_id = $1 "
		"ORDER BY id DESC OFFSET $2 LIMIT 1",
		2, {INT8OID, INT4OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), Int32GetDatum(retention));
	return SPI_processed == 1 ? bbm_sql_int64(0, 1) : 0;
}

/*
 * Merges finished neighbours older than the newest "retention" jobs into one
 * row each, so that the table stays small however long the migration is.
 * Neighbours were created one after the other, in one phase on one partition.
 * With an integer key their ranges must also be adjacent, in case somebody has
 * deleted what was between (the first phase leaves nothing out).  Nobody else
 * uses finished rows, and the caller holds the migration's lock, so that two
 * workers do not merge at once, and no job is created between finding the
 * oldest job that is kept and the merge.  If somebody deletes a job meanwhile,
 * one job fewer stays unmerged.
 *
 * "totals" were brought up to date in this transaction.  Only jobs that are in
 * these sums are merged: one that has ended since then is not.
 */
void
bbm_jobs_merge(int64 migration_id, int retention, const BbmTotals *totals)
{
	static BbmSql sql = {
		"WITH old AS MATERIALIZED ("
		" SELECT id, min_value, max_value, min_key::text, max_key::text, key_count, row_count, run_ms, wal_bytes, "
		"  merged_jobs, started_at, finished_at, CASE WHEN id = ANY ($3) THEN 1 ELSE status END AS status, phase, round, relation, batch_size, detached, kind, "
		"  requeued, requeue_reasons, failures, batch_counts "
		" FROM @.batched_background_migration_jobs "
		" WHERE batched_background_migration_id = $1 AND kind <> 'retry' AND id < $2 "
		" ORDER BY id DESC LIMIT 10000), "
		"edges AS (SELECT *, CASE WHEN status = 2 AND lag(status) OVER w = 2 AND lag(phase) OVER w = phase AND lag(round) OVER w = round AND lag(kind) OVER w = kind "
		"  AND lag(relation) OVER w IS NOT DISTINCT FROM relation AND NOT detached AND NOT lag(detached) OVER w "
		"  AND (min_key IS NOT NULL OR phase = 'verify' OR round > 1 OR (min_value = 0 AND max_value = 0) "
		"       OR min_value::numeric = (lag(max_value) OVER w)::numeric + 1) THEN 0 ELSE 1 END AS edge "
		" FROM old WINDOW w AS (ORDER BY id)), "
		"islands AS (SELECT *, sum(edge) OVER (ORDER BY id) AS island FROM edges), "
		"merged AS (SELECT min(id) AS id, max(max_value) AS max_value, min(min_value) AS min_value, "
		"  (array_agg(min_key ORDER BY id))[1]::text[] AS min_key, "
		"  (array_agg(max_key ORDER BY id DESC))[1]::text[] AS max_key, "
		"  bbm_internal.bbm_as_bigint(sum(key_count)) AS key_count, bbm_internal.bbm_as_bigint(sum(row_count)) AS row_count, "
		"  sum(run_ms) AS run_ms, bbm_internal.bbm_as_bigint(sum(wal_bytes)) AS wal_bytes, "
		"  least(sum(merged_jobs), 2147483647)::integer AS merged_jobs, "
		"  least(sum(requeued), 2147483647)::integer AS requeued, "
		"  bbm_internal.bbm_requeue_reasons_sum(requeue_reasons) AS requeue_reasons, "
		"  least(sum(failures), 2147483647)::integer AS failures, "
		"  ARRAY(SELECT least(n, 2147483647) FROM unnest(bbm_internal.bbm_batch_counts(batch_counts, run_ms)) "
		"   WITH ORDINALITY c (n, i) ORDER BY i)::integer[] AS batch_counts, "
		"  min(started_at) AS started_at, max(finished_at) AS finished_at, array_agg(id) AS ids, "
		"  (array_agg(batch_size ORDER BY id DESC))[1] AS batch_size "
		" FROM islands GROUP BY island HAVING count(*) > 1), "
		"gone AS (DELETE FROM @.batched_background_migration_jobs j "
		" USING (SELECT id AS kept, unnest(ids) AS id FROM merged) m WHERE j.id = m.id AND j.id <> m.kept) "
		"UPDATE @.batched_background_migration_jobs j SET min_value = merged.min_value, "
		" max_value = merged.max_value, min_key = merged.min_key, max_key = merged.max_key, "
		" key_count = merged.key_count, row_count = merged.row_count, "
		" run_ms = merged.run_ms, wal_bytes = merged.wal_bytes, merged_jobs = merged.merged_jobs, "
		" requeued = merged.requeued, requeue_reasons = merged.requeue_reasons, "
		" failures = merged.failures, batch_counts = merged.batch_counts, reduced_sub_batch_size = NULL, "
		" started_at = merged.started_at, finished_at = merged.finished_at, batch_size = merged.batch_size, "
		" cursor_value = NULL, cursor_key = NULL, keys_done = NULL, "
		" updated_at = clock_timestamp() FROM merged WHERE j.id = merged.id",
		3, {INT8OID, INT8OID, INT8ARRAYOID}
	};
	int64		kept = oldest_kept(migration_id, retention);
	int64		summed = totals->last_job;

	/* usually there is nothing to merge yet, which this finds out in a fraction of the time */
	if (kept > 0 && summed > 0)
		bbm_sql_run(&sql, true, Int64GetDatum(migration_id), Int64GetDatum(kept <= summed ? kept : summed + 1),
					bbm_totals_open(totals));
}

/*
 * Deletes the jobs of this migration, or (0) of all: what a foreign key's
 * cascade would do.  Waits for a batch in flight, whose worker has its row
 * locked.
 */
void
bbm_jobs_forget(int64 migration_id)
{
	static BbmSql all = {"DELETE FROM @.batched_background_migration_jobs", 0, {0}};
	static BbmSql one = {
		"DELETE FROM @.batched_background_migration_jobs WHERE batched_background_migration_id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(migration_id == 0 ? &all : &one, true, Int64GetDatum(migration_id));
	bbm_totals_forget(migration_id);
}
