/*-------------------------------------------------------------------------
 *
 * events.c
 *		The events: every change of state.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/events.h"

#include "base/guc.h"
#include "base/printable.h"
#include "base/user.h"
#include "catalog/sql.h"

void
bbm_event_add(int64 migration_id, const char *name, const char *event, BbmStatus status,
			  Oid owner, const char *detail)
{
	static BbmSql sql = {
		"INSERT INTO @.bbm_events (migration_id, name, event, status, role, owner_oid, detail) "
		"VALUES ($1, $2, $3, bbm_internal.bbm_status_name($4::smallint), "
		"coalesce((SELECT rolname FROM pg_roles WHERE oid = $5), $5::text::name), $6, $7)",
		7, {INT8OID, TEXTOID, TEXTOID, INT4OID, OIDOID, OIDOID, TEXTOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), CStringGetTextDatum(name), CStringGetTextDatum(event),
				Int32GetDatum((int) status), ObjectIdGetDatum(bbm_acting_user()), ObjectIdGetDatum(owner),
				bbm_sql_text_value(detail ? bbm_shortened(detail, BBM_LONGEST_KEPT) : NULL));
}

/* Is there such an event of the migration? */
bool
bbm_event_exists(int64 migration_id, const char *event)
{
	static BbmSql sql = {
		"SELECT 1 FROM @.bbm_events WHERE migration_id = $1 AND event = $2 LIMIT 1",
		2, {INT8OID, TEXTOID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), CStringGetTextDatum(event));
	return SPI_processed > 0;
}

/* Deletes events older than bbm.event_retention, a bounded number at a time. */
void
bbm_events_prune(void)
{
	static BbmSql sql = {
		"DELETE FROM @.bbm_events WHERE id = ANY (ARRAY(SELECT id FROM @.bbm_events "
		"WHERE at < now() - make_interval(mins => $1) ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED))",
		1, {INT4OID}
	};

	if (bbm_event_retention >= 0)
		bbm_sql_run(&sql, true, Int32GetDatum(bbm_event_retention));
}
