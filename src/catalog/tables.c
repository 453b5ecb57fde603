/*-------------------------------------------------------------------------
 *
 * tables.c
 *		Our tables, by their names.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/tables.h"

#include "access/skey.h"
#include "access/stratnum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static const char *const table_names[BBM_TABLES] = {
	[BBM_MIGRATIONS] = "batched_background_migrations",
	[BBM_JOBS] = "batched_background_migration_jobs",
	[BBM_PARTITIONS] = "bbm_partitions",
	[BBM_ROW_ERRORS] = "bbm_row_errors",
	[BBM_EVENTS] = "bbm_events",
	[BBM_TOTALS] = "bbm_totals"
};

const char *
bbm_table_name(BbmTable table)
{
	return table_names[table];
}

/* A column of a row of ours, by its name; 0 where it is NULL. */
Datum
bbm_tuple_column(HeapTuple tuple, Relation rel, const char *name)
{
	bool		isnull;

	return heap_getattr(tuple, get_attnum(RelationGetRelid(rel), name), RelationGetDescr(rel), &isnull);
}

bool
bbm_tuple_is_null(HeapTuple tuple, Relation rel, const char *name)
{
	return heap_attisnull(tuple, get_attnum(RelationGetRelid(rel), name), RelationGetDescr(rel));
}

/* Begins to read the rows with this id, by an index on its column. */
SysScanDesc
bbm_scan_id(Relation rel, Oid index, const char *column, int64 id, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, get_attnum(RelationGetRelid(rel), column), BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	return systable_beginscan(rel, index, true, snapshot, 1, &key);
}
