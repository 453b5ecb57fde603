/*-------------------------------------------------------------------------
 *
 * catalog_stalled.c
 *		The migrations that have had no progress for too long.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/stalled.h"

#include "base/guc.h"
#include "catalog/extension.h"
#include "catalog/sql.h"

/* Has it been reported, and has it not been stalled for twice as long since? */
static bool
was_reported(const BbmStalled *stalled)
{
	static BbmSql sql = {
		"SELECT clock_timestamp() - $2 <= 2 * (max(at) - $2) FROM @.bbm_events "
		"WHERE migration_id = $1 AND event = 'stalled' AND at > $2 AND at <= clock_timestamp()",
		2, {INT8OID, TIMESTAMPTZOID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(stalled->id), TimestampTzGetDatum(stalled->since_at));
	return bbm_sql_bool(0, 1);
}

/*
 * Returns a list of BbmStalled: active and running migrations without progress
 * for bbm.stalled_after, paused ones for bbm.stale_pause_after.  A reported
 * migration is reported again when it has been stalled for twice as long.  A
 * migration of a cloned or restored database waits to be started here, and is
 * not reported.
 */
List *
bbm_migrations_stalled(MemoryContext context)
{
	static BbmSql sql = {
		"SELECT m.id, m.status::bigint, m.owner_oid, m.name, stalled.since::timestamptz(0)::text, "
		"coalesce(s.waiting_on, (SELECT 'a batch that started at ' || max(j.started_at)::timestamptz(0) "
		"FROM @.batched_background_migration_jobs j WHERE j.batched_background_migration_id = m.id AND j.status = 4), "
		"'nothing that is known'), s.last_error, stalled.since "
		"FROM @.batched_background_migrations m JOIN @.bbm_migration_status s ON s.name = m.name "
		/* without infinite times, from which nothing can be subtracted */
		"CROSS JOIN LATERAL (SELECT least(greatest(CASE WHEN isfinite(m.created_at) THEN m.created_at END, "
		"CASE WHEN isfinite(m.updated_at) THEN m.updated_at END, s.last_progress_at, '2000-01-01+00'), "
		"clock_timestamp()) AS since) stalled "
		"CROSS JOIN LATERAL (SELECT make_interval(secs => CASE m.status WHEN 0 THEN $2 ELSE $1 END) AS after) setting "
		"WHERE m.status IN (0, 1, 4) AND coalesce(m.origin, $3) = $3 AND NOT m.restored AND setting.after > make_interval() "
		"AND clock_timestamp() - stalled.since > setting.after ORDER BY m.id",
		3, {INT4OID, INT4OID, TEXTOID}
	};
	List	   *list = NIL;
	ListCell   *cell;
	MemoryContext old;

	bbm_sql_run(&sql, false, Int32GetDatum(bbm_stalled_after), Int32GetDatum(bbm_stale_pause_after),
				CStringGetTextDatum(bbm_origin()));
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmStalled *stalled = palloc(sizeof(BbmStalled));

		stalled->id = bbm_sql_int64(i, 1);
		stalled->status = (BbmStatus) bbm_sql_int64(i, 2);
		stalled->owner = bbm_sql_oid(i, 3);
		stalled->name = bbm_sql_text(i, 4, context);
		stalled->since = bbm_sql_text(i, 5, context);
		stalled->waiting_on = bbm_sql_text(i, 6, context);
		stalled->last_error = bbm_sql_text(i, 7, context);
		stalled->since_at = bbm_sql_int64(i, 8);
		list = lappend(list, stalled);
	}
	MemoryContextSwitchTo(old);
	foreach(cell, list)
	{
		if (was_reported(lfirst(cell)))
			list = foreach_delete_current(list, cell);
	}
	return list;
}
