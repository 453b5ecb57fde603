/*-------------------------------------------------------------------------
 *
 * shape.c
 *		The columns that our tables must have, and the indexes that we scan
 *		directly.
 *
 * NOTES
 *	  A role that owns the tables may alter them, and its schema tool may add
 *	  and drop columns.  Added columns do not concern us.  A column that is
 *	  missing, or of another type, would be misread: so nothing of the
 *	  extension runs until it is restored.
 *
 *	  Indexes are identified by their columns, as names can be changed.
 *
 *	  Nothing is locked: whoever alters a table sends an invalidation at the
 *	  commit, and the catalog is searched again.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shape.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/options.h"
#include "catalog/tables.h"

typedef struct ShapeColumn
{
	BbmTable	table;
	const char *name;
	Oid			type;
	bool		not_null;
} ShapeColumn;

/* The same as in the install script; sql/owner.sql compares the two.  catalog/options.c has those of a migration. */
static const ShapeColumn columns[] = {
	{BBM_JOBS, "id", INT8OID, true},
	{BBM_JOBS, "created_at", TIMESTAMPTZOID, true},
	{BBM_JOBS, "updated_at", TIMESTAMPTZOID, false},
	{BBM_JOBS, "started_at", TIMESTAMPTZOID, false},
	{BBM_JOBS, "finished_at", TIMESTAMPTZOID, false},
	{BBM_JOBS, "batched_background_migration_id", INT8OID, true},
	{BBM_JOBS, "min_value", INT8OID, true},
	{BBM_JOBS, "max_value", INT8OID, true},
	{BBM_JOBS, "status", INT2OID, true},
	{BBM_JOBS, "failure_error_code", INT2OID, false},
	{BBM_JOBS, "attempts", INT2OID, true},
	{BBM_JOBS, "claim_epoch", INT4OID, true},
	{BBM_JOBS, "worker_pid", INT4OID, false},
	{BBM_JOBS, "worker_id", INT4OID, false},
	{BBM_JOBS, "phase", TEXTOID, true},
	{BBM_JOBS, "round", INT4OID, true},
	{BBM_JOBS, "relation", OIDOID, false},
	{BBM_JOBS, "relation_name", TEXTOID, false},
	{BBM_JOBS, "min_key", TEXTARRAYOID, false},
	{BBM_JOBS, "max_key", TEXTARRAYOID, false},
	{BBM_JOBS, "cursor_value", INT8OID, false},
	{BBM_JOBS, "cursor_key", TEXTARRAYOID, false},
	{BBM_JOBS, "keys_done", INT8OID, false},
	{BBM_JOBS, "batch_size", INT4OID, false},
	{BBM_JOBS, "bisect", BOOLOID, true},
	{BBM_JOBS, "key_count", INT8OID, true},
	{BBM_JOBS, "row_count", INT8OID, true},
	{BBM_JOBS, "run_ms", FLOAT8OID, true},
	{BBM_JOBS, "wal_bytes", INT8OID, true},
	{BBM_JOBS, "merged_jobs", INT4OID, true},
	{BBM_JOBS, "detached", BOOLOID, true},
	{BBM_JOBS, "kind", TEXTOID, true},
	{BBM_JOBS, "requeued", INT4OID, true},
	{BBM_JOBS, "requeue_reasons", JSONBOID, false},
	{BBM_JOBS, "failures", INT4OID, true},
	{BBM_JOBS, "batch_counts", INT4ARRAYOID, false},
	{BBM_JOBS, "reduced_sub_batch_size", INT4OID, false},
	{BBM_JOBS, "no_progress", INT4OID, true},
	{BBM_JOBS, "requeues_in_row", INT4OID, true},
	{BBM_JOBS, "next_attempt_at", TIMESTAMPTZOID, false},
	{BBM_JOBS, "error_sqlstate", TEXTOID, false},
	{BBM_JOBS, "error_message", TEXTOID, false},
	{BBM_JOBS, "error_detail", TEXTOID, false},
	{BBM_JOBS, "error_hint", TEXTOID, false},
	{BBM_JOBS, "error_context", TEXTOID, false},
	{BBM_PARTITIONS, "id", INT8OID, true},
	{BBM_PARTITIONS, "migration_id", INT8OID, true},
	{BBM_PARTITIONS, "relation", OIDOID, true},
	{BBM_PARTITIONS, "relation_name", TEXTOID, true},
	{BBM_PARTITIONS, "attached", BOOLOID, true},
	{BBM_PARTITIONS, "phase", TEXTOID, true},
	{BBM_PARTITIONS, "round", INT4OID, true},
	{BBM_PARTITIONS, "started_round", INT4OID, true},
	{BBM_PARTITIONS, "end_block", INT8OID, true},
	{BBM_PARTITIONS, "joined", BOOLOID, true},
	{BBM_PARTITIONS, "low_value", INT8OID, false},
	{BBM_PARTITIONS, "high_value", INT8OID, false},
	{BBM_PARTITIONS, "low_key", TEXTARRAYOID, false},
	{BBM_PARTITIONS, "high_key", TEXTARRAYOID, false},
	{BBM_ROW_ERRORS, "id", INT8OID, true},
	{BBM_ROW_ERRORS, "migration_id", INT8OID, true},
	{BBM_ROW_ERRORS, "job_id", INT8OID, true},
	{BBM_ROW_ERRORS, "at", TIMESTAMPTZOID, true},
	{BBM_ROW_ERRORS, "relation", OIDOID, false},
	{BBM_ROW_ERRORS, "relation_name", TEXTOID, false},
	{BBM_ROW_ERRORS, "min_value", INT8OID, true},
	{BBM_ROW_ERRORS, "max_value", INT8OID, true},
	{BBM_ROW_ERRORS, "min_key", TEXTARRAYOID, false},
	{BBM_ROW_ERRORS, "max_key", TEXTARRAYOID, false},
	{BBM_ROW_ERRORS, "error_sqlstate", TEXTOID, false},
	{BBM_ROW_ERRORS, "error_message", TEXTOID, false},
	{BBM_ROW_ERRORS, "error_detail", TEXTOID, false},
	{BBM_ROW_ERRORS, "error_hint", TEXTOID, false},
	{BBM_ROW_ERRORS, "error_context", TEXTOID, false},
	{BBM_EVENTS, "id", INT8OID, true},
	{BBM_EVENTS, "at", TIMESTAMPTZOID, true},
	{BBM_EVENTS, "migration_id", INT8OID, true},
	{BBM_EVENTS, "name", TEXTOID, true},
	{BBM_EVENTS, "event", TEXTOID, true},
	{BBM_EVENTS, "status", TEXTOID, true},
	{BBM_EVENTS, "role", NAMEOID, true},
	{BBM_EVENTS, "owner_oid", OIDOID, true},
	{BBM_EVENTS, "detail", TEXTOID, false},
	{BBM_TOTALS, "migration_id", INT8OID, true},
	{BBM_TOTALS, "last_job", INT8OID, true},
	{BBM_TOTALS, "open_jobs", INT8ARRAYOID, true},
	{BBM_TOTALS, "key_count", INT8OID, true},
	{BBM_TOTALS, "row_count", INT8OID, true},
	{BBM_TOTALS, "run_ms", FLOAT8OID, true},
	{BBM_TOTALS, "wal_bytes", INT8OID, true},
	{BBM_TOTALS, "jobs", INT8OID, true},
	{BBM_TOTALS, "requeued", INT8OID, true},
	{BBM_TOTALS, "requeue_reasons", INT8ARRAYOID, true},
	{BBM_TOTALS, "max_value", INT8OID, false},
	{BBM_TOTALS, "per_partition", BOOLOID, true},
	{BBM_TOTALS, "batch_size", INT4OID, true},
	{BBM_TOTALS, "progress_at", TIMESTAMPTZOID, false},
	{BBM_TOTALS, "samples", FLOAT8ARRAYOID, true}
};

/* Is it a job's column of bbm, or one that somebody has added? */
bool
bbm_shape_job_has(const char *name)
{
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (columns[i].table == BBM_JOBS && strcmp(columns[i].name, name) == 0)
			return true;
	}
	return false;
}

/* Describes what is wrong with a column; NULL when nothing is. */
static char *
column_flaw(Oid relid, const char *table, const ShapeColumn *column)
{
	HeapTuple	tuple = SearchSysCacheAttName(relid, column->name);
	char	   *flaw = NULL;

	if (!HeapTupleIsValid(tuple))
		return psprintf("Column \"%s\" of table \"%s\" is missing.", column->name, table);
	if (((Form_pg_attribute) GETSTRUCT(tuple))->atttypid != column->type)
		flaw = psprintf("Column \"%s\" of table \"%s\" has type %s.", column->name, table,
						format_type_be(((Form_pg_attribute) GETSTRUCT(tuple))->atttypid));
	else if (column->not_null && !((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull)
		flaw = psprintf("Column \"%s\" of table \"%s\" may be NULL.", column->name, table);
	ReleaseSysCache(tuple);
	return flaw;
}

/* Describes what is wrong with a column, or its table, with a hint how to correct it; NULL when nothing is. */
static char *
shape_flaw(const BbmCatalog *catalog, const ShapeColumn *column, char **hint)
{
	const char *table = bbm_table_name(column->table);
	Oid			relid = catalog->tables[column->table];
	char	   *flaw = OidIsValid(relid) ? column_flaw(relid, table, column) :
		psprintf("Table \"%s\" is missing.", table);

	if (flaw)
		*hint = OidIsValid(relid) ?
			psprintf("Make it what it was: %s%s.", format_type_be(column->type), column->not_null ? ", NOT NULL" : "") :
			pstrdup("Drop the extension, and create it again.");
	return flaw;
}

/* The same for all of our tables. */
char *
bbm_shape_flaw(const BbmCatalog *catalog, char **hint)
{
	char	   *flaw = NULL;

	for (const BbmOption *option = bbm_options; option->column && flaw == NULL; option++)
	{
		ShapeColumn column = {BBM_MIGRATIONS, option->column, option->type, option->flags & BBM_NOT_NULL};

		flaw = shape_flaw(catalog, &column, hint);
	}
	for (int i = 0; i < lengthof(columns) && flaw == NULL; i++)
		flaw = shape_flaw(catalog, &columns[i], hint);
	return flaw;
}

/* Is this index a valid btree of exactly these columns, the second one descending? */
static bool
is_index_of(Form_pg_index index, HeapTuple tuple, TupleDesc desc, Oid relid, const char *first, const char *second)
{
	int			n = second ? 2 : 1;
	bool		isnull;
	HeapTuple	rel;
	bool		is_btree = false;

	if (!index->indisvalid || !index->indislive || !index->indisready || index->indnkeyatts != n ||
		index->indkey.values[0] != get_attnum(relid, first) ||
		(second && index->indkey.values[1] != get_attnum(relid, second)) ||
		!heap_attisnull(tuple, Anum_pg_index_indpred, desc) || !heap_attisnull(tuple, Anum_pg_index_indexprs, desc))
		return false;
	if (second)
	{
		Datum		options = heap_getattr(tuple, Anum_pg_index_indoption, desc, &isnull);

		if (isnull || ((int2vector *) DatumGetPointer(options))->values[1] != (INDOPTION_DESC | INDOPTION_NULLS_FIRST))
			return false;
	}
	rel = SearchSysCache1(RELOID, ObjectIdGetDatum(index->indexrelid));
	if (HeapTupleIsValid(rel))
	{
		is_btree = ((Form_pg_class) GETSTRUCT(rel))->relam == BTREE_AM_OID;
		ReleaseSysCache(rel);
	}
	return is_btree;
}

/* Prefers a unique index, and the oldest of them; InvalidOid when there is none. */
Oid
bbm_shape_index(Oid relid, const char *first, const char *second)
{
	Relation	indexes = table_open(IndexRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			best = InvalidOid;
	bool		best_unique = false;

	ScanKeyInit(&key, Anum_pg_index_indrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(indexes, IndexIndrelidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		if (!is_index_of(index, tuple, RelationGetDescr(indexes), relid, first, second))
			continue;
		if (!OidIsValid(best) || (index->indisunique && !best_unique) ||
			(index->indisunique == best_unique && index->indexrelid < best))
		{
			best = index->indexrelid;
			best_unique = index->indisunique;
		}
	}
	systable_endscan(scan);
	table_close(indexes, AccessShareLock);
	return best;
}
