/*-------------------------------------------------------------------------
 *
 * null_keys.c
 *		Rows of a migration's table whose batching key is null: in no range.
 *
 *-------------------------------------------------------------------------
 */
#include "target/null_keys.h"

#include "access/table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/point.h"
#include "base/spi.h"
#include "base/txn.h"
#include "base/user.h"
#include "target/hierarchy.h"
#include "target/key.h"
#include "target/nulls.h"
#include "target/relation.h"
#include "target/target.h"

/* More rows than this are not counted, as the migration's lock is held while counting. */
#define BBM_MOST_NULL_KEYS 100000

/*
 * Is the table partitioned, with all of the key's columns declared NOT NULL?
 * Then they are NOT NULL in each partition as well, and no partition needs to
 * be opened.
 */
static bool
all_declared(const BbmTarget *target)
{
	Relation	rel = get_rel_relkind(target->relid) == RELKIND_PARTITIONED_TABLE ?
		try_table_open(target->relid, AccessShareLock) : NULL;
	bool		declared = rel != NULL;

	for (int i = 0; i < target->key.n && declared; i++)
	{
		AttrNumber	attnum = get_attnum(target->relid, target->key.columns[i].name);

		declared = attnum > 0 && bbm_column_not_null(RelationGetDescr(rel), attnum);
	}
	if (rel)
		table_close(rel, AccessShareLock);
	return declared;
}

/*
 * Counts the rows of a table, or of its source in SQL, in which one of the
 * columns (a list of names) is null: up to "most", unless that is 0.
 */
static int64
count_nulls(const BbmTarget *target, const char *source, List *columns, const char *condition, int64 most)
{
	StringInfoData sql;
	int64		rows;
	int			level;
	ListCell   *cell;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT pg_catalog.count(*) FROM (SELECT 1 FROM %s AS %s WHERE (", source, target->alias);
	foreach(cell, columns)
		/* IS NULL would ask for each part of a composite value */
		appendStringInfo(&sql, "%s%s.%s IS NOT DISTINCT FROM NULL", foreach_current_index(cell) > 0 ? " OR " : "", target->alias,
						 quote_identifier(lfirst(cell)));
	/* the condition may end in a comment */
	appendStringInfo(&sql, ")%s%s%s", condition ? " AND (" : "", condition ? condition : "", condition ? "\n)" : "");
	if (most > 0)
		appendStringInfo(&sql, " LIMIT " INT64_FORMAT, most);
	appendStringInfoString(&sql, ") AS nulls");

	level = bbm_job_settings(target->migration);
	/* whatever the planner estimates: usually there are no such rows, and an index shows that at once */
	bbm_guc_set("enable_seqscan", "off", true);
	bbm_guc_set("jit", "off", true);
	(void) bbm_spi_execute(sql.data, true, 0);
	rows = bbm_spi_count();
	bbm_user_settings_end(level);
	pfree(sql.data);
	return rows;
}

/* Names of the key's columns that exist in the table and may be null there. */
static List *
nullable_columns(const BbmKey *key, Relation rel)
{
	List	   *columns = NIL;

	for (int i = 0; i < key->n; i++)
	{
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), key->columns[i].name);

		if (attnum > 0 && bbm_column_may_be_null(rel, attnum))
			columns = lappend(columns, key->columns[i].name);
	}
	return columns;
}

/*
 * The number of rows, as of the active snapshot, whose key is null and that
 * meet the condition, if one is given; counts up to "most", unless that is 0.
 * *table is the first table that has such rows.  Needs a transaction and SPI;
 * the current user is the owner.
 */
int64
bbm_null_keys(BbmTarget *target, const char *condition, int64 most, char **table)
{
	List	   *partitions;
	List	   *of_all = NIL;
	int64		rows = 0;
	ListCell   *cell;

	*table = NULL;
	if (all_declared(target))
		return 0;
	partitions = bbm_partitions_list(target->relid);
	BBM_POINT("null_keys_listed");
	foreach(cell, partitions)
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		List	   *columns = rel ? nullable_columns(&target->key, rel) : NIL;
		char	   *name;
		int64		found;

		/* another session may have dropped it: then it has no rows.  A table that is queried stays locked */
		if (rel)
			table_close(rel, columns == NIL ? AccessShareLock : NoLock);
		if (columns == NIL || (most > 0 && rows >= most))
			continue;
		/* the owner must not learn the number of rows that he may not see */
		if (target->as_owner)
		{
			of_all = columns;
			continue;
		}
		name = bbm_table_sql_name(lfirst_oid(cell));
		found = count_nulls(target, psprintf("ONLY %s", name), columns, condition, most > 0 ? most - rows : 0);
		if (found > 0 && *table == NULL)
			*table = name;
		rows += found;
	}
	if (of_all != NIL)
	{
		*table = bbm_table_sql_name(target->relid);
		rows = count_nulls(target, psprintf("%s%s", target->has_partitions ? "" : "ONLY ", *table), of_all, condition, most);
	}
	return rows;
}

/* Reports such rows; "undone": they are still to be done, else they do not meet the check. */
static void
report(int elevel, const BbmTarget *target, int64 rows, const char *table, bool undone)
{
	const BbmMigration *migration = target->migration;
	const char *key = bbm_key_to_string(&target->key);
	const char *column = quote_identifier(target->key.columns[0].name);

	ereport(elevel,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 rows > BBM_MOST_NULL_KEYS ?
			 errmsg("more than %d rows have a null key and are in no range", BBM_MOST_NULL_KEYS) :
			 errmsg_plural(INT64_FORMAT " row has a null key and is in no range",
						   INT64_FORMAT " rows have a null key and are in no range", rows, rows),
			 undone ?
			 errdetail("\"%s\" is null there, in table %s for one.", key, table) :
			 errdetail("\"%s\" is null there, in table %s for one, and the check is not met: %s", key, table,
					   migration->row_check),
			 migration->skip_null_keys ? errhint("They are left as they are, as skip_null_keys says.") :
			 elevel < ERROR ?
			 errhint("The migration will fail at its end, unless you process these rows by hand (WHERE %s IS NULL) so that they no longer meet \"filter\", or set skip_null_keys so that they stay as they are.",
					 column) :
			 errhint("Process these rows by hand (WHERE %s IS NULL). If they still count then, because nothing shows that they are done, or if they are to stay as they are, call bbm_alter(..., skip_null_keys => true). Then start the migration again.",
					 column)));
}

/* The number of rows in no range that are still to be done, or (*undone false) that do not meet the check. */
static int64
undone_rows(BbmTarget *target, char **table, bool *undone)
{
	const BbmMigration *migration = target->migration;
	int64		rows;

	if (!target->strategy->has_key || all_declared(target))
		return 0;
	bbm_partitions_snapshot(target->relid, AccessShareLock);
	*undone = true;
	rows = bbm_null_keys(target, migration->filter, BBM_MOST_NULL_KEYS + 1, table);
	if (rows == 0 && migration->verify && migration->row_check && !migration->skip_null_keys)
	{
		*undone = false;
		rows = bbm_null_keys(target, psprintf("(%s\n) IS NOT TRUE", migration->row_check), BBM_MOST_NULL_KEYS + 1,
							 table);
	}
	PopActiveSnapshot();
	return rows;
}

/* Raises an error if rows are left when all ranges are done.  Caller has bbm_migration_lock. */
void
bbm_null_keys_check(BbmTarget *target)
{
	char	   *table;
	bool		undone;
	int64		rows = target->migration->skip_null_keys ? 0 : undone_rows(target, &table, &undone);

	if (rows == 0)
		return;
	bbm_failing_code = BBM_CODE_COLUMN;
	report(ERROR, target, rows, table, undone);
}

/* Warns about rows that are or will be left: when a migration is defined, tried or finished. */
void
bbm_null_keys_warn(BbmTarget *target)
{
	char	   *table;
	bool		undone;
	int64		rows = undone_rows(target, &table, &undone);

	if (rows > 0 && undone)
		report(WARNING, target, rows, table, true);
}
