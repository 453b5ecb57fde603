/*-------------------------------------------------------------------------
 *
 * order.c
 *		Whether a migration processes the partitions of a table one by one, or
 *		as one table.
 *
 * NOTES
 *	  An application may move rows between partitions, or child tables, at any
 *	  moment: it updates a column of the partition key, splits a partition, or
 *	  deletes a row in one and inserts it into another.  A migration that
 *	  processes the partitions one by one misses a row that moves to a finished
 *	  partition, and does a row twice that moves to a later one.  In the order
 *	  of the key over all partitions the row keeps its position, whatever
 *	  partition it is in.
 *
 *	  So partitions are processed one by one only where moving makes no
 *	  difference:
 *	  - a row that is done no longer meets the filter, so none is done twice; a
 *	    last check over all partitions finds what was missed
 *	    (engine/completion.c);
 *	  - the columns of the partition key, at every level, are the first columns
 *	    of the batching key, so a row that moves is one whose key changes.
 *	    This does not apply if there is a default partition: rows that are
 *	    split off it move with their keys unchanged.  A partition that is
 *	    attached during the run is checked for rows of others
 *	    (target/partitions.c);
 *	  - the user says that rows stay.
 *
 *	  A shard of a distributed table is always processed in the order of the
 *	  key: what is recorded of it is one cursor (catalog/shards.c).
 *
 *	  What was decided when the migration was first started is kept with it: in
 *	  another order, the ranges that have been allocated mean nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "target/order.h"

#include <float.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/point.h"
#include "base/spi.h"
#include "target/filter.h"
#include "target/hierarchy.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"

/* If more rows than this share the leading columns of a key, these are not used without the others. */
#define BBM_FEW_TIES 100

/* Names of the columns in the partition key of this level, including those in expressions. */
static List *
partition_columns(Relation rel)
{
	PartitionKey key = RelationGetPartitionKey(rel);
	Bitmapset  *attnums = NULL;
	List	   *names = NIL;
	int			attnum = -1;

	for (int i = 0; i < key->partnatts; i++)
	{
		if (key->partattrs[i] != 0)
			attnums = bms_add_member(attnums, key->partattrs[i] - FirstLowInvalidHeapAttributeNumber);
	}
	pull_varattnos((Node *) key->partexprs, 1, &attnums);
	while ((attnum = bms_next_member(attnums, attnum)) >= 0)
	{
		AttrNumber	column = attnum + FirstLowInvalidHeapAttributeNumber;

		/* an expression over the whole row depends on every column */
		if (column <= 0)
		{
			for (int i = 0; i < RelationGetDescr(rel)->natts; i++)
				names = lappend(names, pstrdup(NameStr(TupleDescAttr(RelationGetDescr(rel), i)->attname)));
		}
		else
			names = lappend(names, get_attname(RelationGetRelid(rel), column, false));
	}
	return names;
}

/*
 * Names of the columns in the partition keys of all levels below the table;
 * *has_default: some level has a default partition.  A level that another
 * session adds after this check is not seen; a partition that comes with it is
 * checked when its turn comes.
 */
static List *
all_partition_columns(Oid relid, bool *has_default)
{
	List	   *names = NIL;
	ListCell   *cell;

	*has_default = false;
	foreach(cell, bbm_partitions_all(relid))
	{
		Relation	rel;

		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			continue;
		rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		if (rel == NULL)
			continue;
		names = list_concat(names, partition_columns(rel));
		*has_default |= OidIsValid(get_default_partition_oid(RelationGetRelid(rel)));
		table_close(rel, NoLock);
	}
	BBM_POINT("levels_read");
	return names;
}

static bool
has_name(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/* Are the columns of all levels' partition keys the first columns of the batching key? */
static bool
key_leads(const BbmTarget *target, bool *has_default)
{
	List	   *names = all_partition_columns(target->relid, has_default);
	int			leading = 0;
	ListCell   *cell;

	while (leading < target->key.n && has_name(names, target->key.columns[leading].name))
		leading++;
	foreach(cell, names)
	{
		bool		found = false;

		for (int i = 0; i < leading && !found; i++)
			found = strcmp(target->key.columns[i].name, lfirst(cell)) == 0;
		if (!found)
			return false;
	}
	return names != NIL;
}

/* Is it a default partition, at any level below the table? */
bool
bbm_order_is_default(Oid root, Oid relid)
{
	ListCell   *cell;

	foreach(cell, bbm_partitions_all(root))
	{
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_PARTITIONED_TABLE &&
			get_default_partition_oid(lfirst_oid(cell)) == relid)
			return true;
	}
	return false;
}

bool
bbm_order_key_leads(const BbmTarget *target)
{
	bool		has_default;

	return key_leads(target, &has_default);
}

/* Can a trigger or a rule of a partition change what the statement writes? */
static bool
partitions_have_their_way(Oid relid)
{
	ListCell   *cell;

	foreach(cell, bbm_partitions_list(relid))
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		bool		has = rel && (rel->rd_rules || (rel->trigdesc && rel->trigdesc->trig_update_before_row));

		if (rel)
			table_close(rel, NoLock);
		if (has)
			return true;
	}
	return false;
}

/* Does the filter show that a row is done? */
static bool
filter_ends(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	BbmStatementParts parts;

	/* a quarantined row never stops meeting it */
	if (migration->operation == NULL || migration->on_error != BBM_ON_ERROR_FAIL)
		return false;
	bbm_job_parts(migration, &parts);
	return bbm_statement_ends_filter(target->relid, &parts) &&
		(parts.verb == BBM_DELETE || !partitions_have_their_way(target->relid));
}

/*
 * How the partitions of the table, if it has any, are processed.  Needs the
 * job's search_path; strategy, key and form are resolved.
 */
BbmPartitionOrder
bbm_partition_order(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	bool		has_default;

	if (target->form != BBM_JOB_COMPOSED && target->form != BBM_JOB_REGISTRY_FUNCTION && target->form != BBM_JOB_NONE)
		return BBM_ORDER_AS_ONE_TABLE;
	/* blocks belong to one partition, and the filter shows what is done */
	if (target->strategy->table_scans)
		return BBM_ORDER_BY_FILTER;
	/* it does not matter which rows the function chooses, so it may be given the table as a whole */
	if (!target->strategy->has_key && target->as_owner && target->form == BBM_JOB_REGISTRY_FUNCTION)
		return BBM_ORDER_AS_ONE_TABLE;
	if (migration->partition_order != BBM_ORDER_UNDECIDED)
		return migration->partition_order;
	/* in a row that is done, the column is filled */
	if (!target->strategy->has_key)
		return migration->rows_stay ? BBM_ORDER_ROWS_STAY : BBM_ORDER_BY_FILTER;
	/* the record of a shard has one cursor, over all partitions */
	if (migration->shard_id != 0)
		return BBM_ORDER_AS_ONE_TABLE;
	/* if read through the root, each range would be searched for in each partition */
	if (target->as_owner && target->has_partitions)
		return BBM_ORDER_AS_ONE_TABLE;
	if (migration->rows_stay)
		return BBM_ORDER_ROWS_STAY;
	if (key_leads(target, &has_default) && !has_default)
		return BBM_ORDER_BY_KEY;
	return filter_ends(target) ? BBM_ORDER_BY_FILTER : BBM_ORDER_AS_ONE_TABLE;
}

/* ----------------------------------------------------------------
 * The default key
 * ----------------------------------------------------------------
 */

/* The number of the partition's rows that share a value of the column, by ANALYZE's statistics; 0 unknown. */
static double
rows_a_value(Oid relid, const char *name)
{
	HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(relid),
										Int16GetDatum(get_attnum(relid, name)), BoolGetDatum(false));
	HeapTuple	class = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	double		result = 0;

	if (HeapTupleIsValid(tuple) && HeapTupleIsValid(class))
	{
		double		distinct = ((Form_pg_statistic) GETSTRUCT(tuple))->stadistinct;

		/* negative: distinct values as a fraction of the rows */
		if (distinct < 0)
			result = 1 / -distinct;
		else if (distinct > 0)
			result = ((Form_pg_class) GETSTRUCT(class))->reltuples / distinct;
	}
	if (HeapTupleIsValid(class))
		ReleaseSysCache(class);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* Do many rows of a partition share all these columns, by ANALYZE's statistics? */
static bool
has_many_ties(Oid relid, List *names)
{
	ListCell   *partition;

	foreach(partition, bbm_partitions_list(relid))
	{
		double		least = DBL_MAX;
		ListCell   *cell;

		foreach(cell, names)
			least = Min(least, rows_a_value(lfirst_oid(partition), lfirst(cell)));
		if (least > BBM_FEW_TIES)
			return true;
	}
	return false;
}

/* Do many rows share these columns with the lowest (or highest) key? */
static bool
end_has_many_ties(Oid relid, const char *columns, const char *order)
{
	char	   *table = bbm_table_sql_name(relid);
	char	   *sql = psprintf("SELECT 1 FROM %s WHERE (%s) = (SELECT %s FROM %s ORDER BY %s LIMIT 1) LIMIT %d",
							   table, columns, columns, table, order, BBM_FEW_TIES + 1);
	bool		many;

	(void) bbm_spi_execute(sql, true, 0);
	many = SPI_processed > BBM_FEW_TIES;
	SPI_freetuptable(SPI_tuptable);
	return many;
}

/* Names as a list in SQL, each followed by "after". */
static char *
name_list(List *names, const char *after)
{
	StringInfoData list;
	ListCell   *cell;

	initStringInfo(&list);
	foreach(cell, names)
		appendStringInfo(&list, "%s%s%s", foreach_current_index(cell) > 0 ? ", " : "",
						 quote_identifier(lfirst(cell)), after);
	return list.data;
}

/*
 * The primary key of a partitioned table contains the columns of the partition
 * key.  A row that moves would then have another batching key, and might cross
 * the bound between two ranges; so partition key columns at the end are left
 * out, if the columns before them distinguish nearly all rows.  "columns" is
 * the key in the form of column_name.  Needs SPI and the privileges of the
 * owner.
 */
char *
bbm_order_default_key(Oid relid, const char *columns)
{
	List	   *deciding;
	List	   *names = NIL;
	int			n;
	bool		has_default;

	if (columns == NULL || get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE ||
		get_attnum(relid, columns) != InvalidAttrNumber ||
		!SplitIdentifierString(pstrdup(columns), ',', &names))
		return columns ? pstrdup(columns) : NULL;
	deciding = all_partition_columns(relid, &has_default);
	n = list_length(names);
	while (n > 0 && has_name(deciding, list_nth(names, n - 1)))
		n--;
	if (n == 0 || n == list_length(names))
		return pstrdup(columns);
	names = list_truncate(names, n);
	for (int i = 0; i < n; i++)
	{
		/* a row that moves may have another key in any case */
		if (has_name(deciding, list_nth(names, i)))
			return pstrdup(columns);
	}
	if (has_many_ties(relid, names) || end_has_many_ties(relid, name_list(names, ""), name_list(names, "")) ||
		end_has_many_ties(relid, name_list(names, ""), name_list(names, " DESC")))
		return pstrdup(columns);
	return n == 1 ? pstrdup(linitial(names)) : name_list(names, "");
}
