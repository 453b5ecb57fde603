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

/*
 * The number of a column of ours, by its name.  Where it was found last is
 * looked at first: a claim and a scrape look up dozens of them.  The name
 * decides, so that a stale number does no harm.
 */
AttrNumber
bbm_column_number(Relation rel, const char *name)
{
	static AttrNumber hints[1024];
	AttrNumber *hint = &hints[((uintptr_t) name ^ RelationGetRelid(rel)) % lengthof(hints)];
	TupleDesc	desc = RelationGetDescr(rel);

	if (*hint < 1 || *hint > desc->natts || TupleDescAttr(desc, *hint - 1)->attisdropped ||
		strcmp(NameStr(TupleDescAttr(desc, *hint - 1)->attname), name) != 0)
		*hint = get_attnum(RelationGetRelid(rel), name);
	return *hint;
}

/* A column of a row of ours, by its name; 0 where it is NULL. */
Datum
bbm_tuple_column(HeapTuple tuple, Relation rel, const char *name)
{
	bool		isnull;

	return heap_getattr(tuple, bbm_column_number(rel, name), RelationGetDescr(rel), &isnull);
}

bool
bbm_tuple_is_null(HeapTuple tuple, Relation rel, const char *name)
{
	return heap_attisnull(tuple, bbm_column_number(rel, name), RelationGetDescr(rel));
}

/* Begins to read the rows with this id, by an index on its column. */
SysScanDesc
bbm_scan_id(Relation rel, Oid index, const char *column, int64 id, Snapshot snapshot)
{
	ScanKeyData key;

	ScanKeyInit(&key, bbm_column_number(rel, column), BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	return systable_beginscan(rel, index, true, snapshot, 1, &key);
}
