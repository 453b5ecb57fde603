/*-------------------------------------------------------------------------
 *
 * changes.c
 *		What a batch has changed in the rows of its range.
 *
 * NOTES
 *	  Nothing is copied before the batch but the places (ctid) of its rows: what
 *	  a row was like is still visible afterwards to the snapshot from before,
 *	  and its new version is found from the old one, whatever changed it (the
 *	  statement, a function, a trigger) and even if its key is another one.  A
 *	  row that has moved to another partition is a row that was deleted and one
 *	  that was inserted.
 *
 *	  Rows are read as the owner, with its row security.  To read a ctid it needs
 *	  SELECT on the table as a whole.  Columns that the server computes, and
 *	  values stored out of line, are read like any other.
 *
 *	  Another session may change a row between the first snapshot and the
 *	  batch, which changes the newest version then.  What was changed meanwhile
 *	  is then shown as if the batch had changed it, too.  Nothing depends on it.
 *
 *-------------------------------------------------------------------------
 */
#include "target/changes.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "base/point.h"
#include "base/spi.h"
#include "base/user.h"
#include "target/job.h"
#include "target/relation.h"

/* More rows of one range are not compared. */
#define BBM_MOST_COMPARED 10000

/* A job without a range chooses among the first of these. */
#define BBM_MOST_CHOSEN 10000

/* Can the rows of a partition be compared?  Their places must be readable, and mean something. */
bool
bbm_changes_possible(const BbmTarget *target, const BbmPartition *partition)
{
	return !partition->is_foreign && pg_class_aclcheck(target->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/* The columns of the table that are in this set (NULL: all), as a list for SELECT. */
static char *
columns_sql(const BbmTarget *target, Relation rel, const Bitmapset *set)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData sql;

	initStringInfo(&sql);
	for (AttrNumber attnum = 1; attnum <= desc->natts; attnum++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);

		if (attribute->attisdropped || (set && !bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, set)))
			continue;
		appendStringInfo(&sql, "%s%s.%s", sql.len > 0 ? ", " : "", target->alias,
						 quote_identifier(NameStr(attribute->attname)));
	}
	return sql.data;
}

/* What identifies a row for its reader: the batching key if each row has its own, else the primary key, or its ctid. */
static char *
identity_sql(const BbmTarget *target, Relation rel)
{
	Bitmapset  *primary = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	bool		by_key = target->strategy->has_key && strcmp(target->strategy->name, "LooseIndexScanBatchingStrategy") != 0;
	Bitmapset  *columns = NULL;

	for (int i = 0; by_key && i < target->key.n; i++)
		columns = bms_add_member(columns, target->key.columns[i].attnum - FirstLowInvalidHeapAttributeNumber);
	if (columns == NULL)
		columns = primary;
	return columns ? columns_sql(target, rel, columns) : psprintf("%s.ctid", target->alias);
}

/* Reads a version of a row, by its table and place: its identity, and all of it, as jsonb. */
static SPIPlanPtr
prepare_image(const BbmTarget *target)
{
	Oid			types[2] = {OIDOID, TIDOID};
	Relation	rel = table_open(target->relid, AccessShareLock);
	char	   *sql = psprintf("SELECT (SELECT pg_catalog.to_jsonb(k.*) FROM (SELECT %s) AS k),"
							   " (SELECT pg_catalog.to_jsonb(r.*) FROM (SELECT %s) AS r)"
							   " FROM %s AS %s WHERE %s.tableoid OPERATOR(pg_catalog.=) $1 AND %s.ctid OPERATOR(pg_catalog.=) $2",
							   identity_sql(target, rel), columns_sql(target, rel, NULL),
							   bbm_table_sql_name(target->relid), target->alias, target->alias, target->alias);

	table_close(rel, AccessShareLock);
	return bbm_spi_prepare(sql, 2, types, 0);
}

static SPIPlanPtr
prepare_difference(void)
{
	Oid			types[2] = {JSONBOID, JSONBOID};

	return bbm_spi_prepare("SELECT coalesce(pg_catalog.jsonb_object_agg(b.key, b.value), '{}'::pg_catalog.jsonb),"
						   " coalesce(pg_catalog.jsonb_object_agg(a.key, a.value), '{}'::pg_catalog.jsonb)"
						   " FROM pg_catalog.jsonb_each($1) AS b, pg_catalog.jsonb_each($2) AS a"
						   " WHERE b.key OPERATOR(pg_catalog.=) a.key"
						   " AND b.value::pg_catalog.text OPERATOR(pg_catalog.<>) a.value::pg_catalog.text", 2, types, 0);
}

/* The rows of the range that the current snapshot sees, in the order in which the table has them. */
static BbmRowVersion *
read_rows(const BbmChanges *changes, int *n)
{
	BbmTarget  *target = changes->target;
	Oid			types[BBM_MAX_JOB_ARGS];
	Datum		values[BBM_MAX_JOB_ARGS];
	int			nbounds = bbm_range_bind(target, changes->range, BBM_MOST_CHOSEN, values, types);
	SPIPlanPtr	plan = bbm_spi_prepare(bbm_job_rows_sql(target, changes->partition), nbounds + 1, types, 0);
	BbmRowVersion *rows;
	bool		isnull;

	(void) bbm_spi_execute_plan(plan, values, NULL, true, BBM_MOST_COMPARED);
	*n = (int) SPI_processed;
	rows = palloc0(Max(*n, 1) * sizeof(BbmRowVersion));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];

		rows[i].relation = DatumGetObjectId(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		rows[i].tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(plan);
	return rows;
}

/*
 * Called before a batch on changes->range of changes->partition.  The snapshot
 * is registered with the current subtransaction, which is to be taken back, or
 * to end with bbm_changes_end.
 */
void
bbm_changes_begin(BbmChanges *changes)
{
	int			level = bbm_job_settings(changes->target->migration);

	changes->rows = read_rows(changes, &changes->n);
	changes->image = prepare_image(changes->target);
	bbm_user_settings_end(level);
	changes->difference = prepare_difference();
	changes->before = RegisterSnapshot(GetTransactionSnapshot());
	BBM_POINT("preview-snapshot");
}

/* The open table of a row; the one before it is closed.  NULL: gone, or no heap. */
static Relation
relation_of(const BbmRowVersion *row, Relation before)
{
	Relation	rel;

	if (before && RelationGetRelid(before) == row->relation)
		return before;
	if (before)
		table_close(before, NoLock);
	rel = try_table_open(row->relation, AccessShareLock);
	if (rel && rel->rd_rel->relam != HEAP_TABLE_AM_OID)
	{
		table_close(rel, AccessShareLock);
		rel = NULL;
	}
	return rel;
}

static bool
is_visible(Relation rel, const BbmRowVersion *row, Snapshot snapshot)
{
	ItemPointerData tid = row->tid;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		visible = table_tuple_fetch_row_version(rel, &tid, snapshot, slot);

	ExecDropSingleTupleTableSlot(slot);
	return visible;
}

/* The newest version of a row that the snapshot sees; the row itself if that is deleted. */
static BbmRowVersion
newest(Relation rel, const BbmRowVersion *row, Snapshot snapshot)
{
	BbmRowVersion result = *row;
	/* as table_beginscan_tid does, whose parameters may depend on the server's version */
	TableScanDesc scan = rel->rd_tableam->scan_begin(rel, snapshot, 0, NULL, NULL, SO_TYPE_TIDSCAN);

	table_tuple_get_latest_tid(scan, &result.tid);
	table_endscan(scan);
	return result;
}

/* A value of the result's first row, which is not null, in the current memory context. */
static Datum
result_jsonb(int column)
{
	bool		isnull;

	return PointerGetDatum(PG_DETOAST_DATUM_COPY(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
															   &isnull)));
}

/* Reads a version of a row that the snapshot sees; false if the owner may not see it. */
static bool
read_image(const BbmChanges *changes, const BbmRowVersion *row, Snapshot snapshot, Datum *key, Datum *image)
{
	BbmRowVersion copy = *row;
	Datum		values[2] = {ObjectIdGetDatum(copy.relation), PointerGetDatum(&copy.tid)};
	int			level = bbm_job_settings(changes->target->migration);
	bool		found;

	bbm_spi_execute_snapshot(changes->image, values, snapshot);
	bbm_user_settings_end(level);
	found = SPI_processed > 0;
	if (found && key)
		*key = result_jsonb(1);
	if (found)
		*image = result_jsonb(2);
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* Reduces the images of an updated row to the columns that differ. */
static void
reduce(const BbmChanges *changes, BbmChange *change)
{
	Datum		values[2] = {change->before, change->after};

	(void) bbm_spi_execute_plan(changes->difference, values, NULL, true, 0);
	change->before = result_jsonb(1);
	change->after = result_jsonb(2);
	SPI_freetuptable(SPI_tuptable);
}

static int
compare_versions(const void *a, const void *b)
{
	const BbmRowVersion *left = a;
	const BbmRowVersion *right = b;

	if (left->relation != right->relation)
		return left->relation < right->relation ? -1 : 1;
	return ItemPointerCompare((ItemPointer) &left->tid, (ItemPointer) &right->tid);
}

/* Reports the rows that were there before; fills "versions" with the newest version of each that has changed. */
static bool
report_old_rows(const BbmChanges *changes, Snapshot after, BbmRowVersion *versions, int *nversions,
				bool (*wanted) (const BbmRowVersion *row, void *arg), BbmChangeFn fn, void *arg)
{
	Relation	rel = NULL;
	bool		more = true;

	for (int i = 0; i < changes->n && more; i++)
	{
		const BbmRowVersion *row = &changes->rows[i];
		BbmChange	change = {.row = *row};
		BbmRowVersion now;

		CHECK_FOR_INTERRUPTS();
		rel = relation_of(row, rel);
		if (rel == NULL || is_visible(rel, row, after))
			continue;
		now = newest(rel, row, after);
		versions[(*nversions)++] = now;
		if (!wanted(row, arg) || !read_image(changes, row, changes->before, &change.key, &change.before))
			continue;
		change.operation = ItemPointerEquals(&now.tid, (ItemPointer) &row->tid) ? "delete" : "update";
		if (change.operation[0] == 'u' && read_image(changes, &now, after, NULL, &change.after))
			reduce(changes, &change);
		more = fn(&change, arg);
	}
	if (rel)
		table_close(rel, NoLock);
	return more;
}

/* Reports the rows that are in the range now and are no new version of one that was there before. */
static void
report_new_rows(const BbmChanges *changes, Snapshot after, BbmRowVersion *versions, int nversions,
				bool (*wanted) (const BbmRowVersion *row, void *arg), BbmChangeFn fn, void *arg)
{
	Relation	rel = NULL;
	bool		more = true;
	int			level = bbm_job_settings(changes->target->migration);
	int			n;
	BbmRowVersion *rows = read_rows(changes, &n);

	bbm_user_settings_end(level);
	qsort(versions, nversions, sizeof(BbmRowVersion), compare_versions);
	for (int i = 0; i < n && more; i++)
	{
		BbmChange	change = {.operation = "insert", .row = rows[i]};

		CHECK_FOR_INTERRUPTS();
		rel = relation_of(&rows[i], rel);
		if (rel == NULL || is_visible(rel, &rows[i], changes->before) ||
			bsearch(&rows[i], versions, nversions, sizeof(BbmRowVersion), compare_versions) || !wanted(&rows[i], arg) ||
			!read_image(changes, &rows[i], after, &change.key, &change.after))
			continue;
		more = fn(&change, arg);
	}
	if (rel)
		table_close(rel, NoLock);
}

/*
 * Called after the batch: passes what has changed in its rows to fn, until
 * that returns false.  A row that is not wanted is left out.
 */
void
bbm_changes_end(BbmChanges *changes, bool (*wanted) (const BbmRowVersion *row, void *arg), BbmChangeFn fn, void *arg)
{
	BbmRowVersion *versions = palloc(Max(changes->n, 1) * sizeof(BbmRowVersion));
	int			nversions = 0;
	Snapshot	after;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	after = GetActiveSnapshot();
	if (report_old_rows(changes, after, versions, &nversions, wanted, fn, arg) && changes->n < BBM_MOST_COMPARED &&
		changes->target->strategy->has_key)
		report_new_rows(changes, after, versions, nversions, wanted, fn, arg);
	PopActiveSnapshot();
	UnregisterSnapshot(changes->before);
	SPI_freeplan(changes->image);
	SPI_freeplan(changes->difference);
}
