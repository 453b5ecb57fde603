/*-------------------------------------------------------------------------
 *
 * null.c
 *		NullKeySetBatchingStrategy: while rows with the column NULL remain.
 *
 * A job has no range (its bounds are 0 and 0, as in the GitLab container
 * registry): it is to fill up to batch_size rows of its own choice.  Two jobs
 * at once would choose the same rows, so they run one at a time.  An index has
 * to find these rows.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/spi.h"
#include "base/txn.h"
#include "base/user.h"
#include "catalog/jobs.h"
#include "catalog/partitions.h"
#include "strategy/strategy.h"
#include "target/hierarchy.h"
#include "target/nulls.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"

/* How many rows the jobs say they have changed is checked once in so many allocations. */
#define BBM_ALLOCATIONS_BETWEEN_POLLS 100
/* For a small table, the planner's estimate is not reliable. */
#define BBM_FEW_ROWS 1000

static void
resolve(BbmTarget *target)
{
	const char *column = target->migration->column_name;

	target->column_type = INT8OID;
	target->attnum = get_attnum(target->relid, column);
	if (target->attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", column, get_rel_name(target->relid)),
				 errdetail("The name is taken as it is, without folding to lower case."),
				 errhint("Name the column that is to be filled where it is null.")));
	if (target->attnum < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("system column \"%s\" is never null", column),
				 errdetail("%s fills a column where it is null.", bbm_strategy_null.name),
				 errhint("Name a column of the table.")));
}

/* Does an index show whether there is anything to do in the table?  Needs the job's search_path. */
static bool
has_index(const BbmTarget *target, Relation rel, AttrNumber attnum)
{
	const char *where = target->migration->filter;
	Node	   *condition;

	if (bbm_nulls_have_index(rel, attnum, NIL))
		return true;
	if (where == NULL)
		return false;
	/* an index over only the rows that meet it serves as well */
	condition = eval_const_expressions(NULL, bbm_statement_condition(RelationGetRelid(rel), where));
	return bbm_nulls_have_index(rel, attnum,
								make_ands_implicit((Expr *) canonicalize_qual((Expr *) condition, false)));
}

/*
 * Before each job it is checked whether a row is left, and each job searches
 * for some: without an index, each of these would read the whole table.
 */
static void
check_table(BbmTarget *target, Relation rel)
{
	const char *column = target->migration->column_name;
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), column);
	const char *quoted = quote_identifier(column);

	if (target->migration->allow_full_scan || rel->rd_rel->relkind != RELKIND_RELATION || attnum <= 0 ||
		!bbm_column_may_be_null(rel, attnum) || has_index(target, rel, attnum))
		return;
	bbm_failing_code = BBM_CODE_STRATEGY;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("no index finds the rows of table \"%s\" in which column \"%s\" is null",
					RelationGetRelationName(rel), column),
			 errdetail("%s searches for them before each job, and would read the whole table each time.",
					   target->strategy->name),
			 errhint("CREATE INDEX CONCURRENTLY ON %s (%s) WHERE %s IS NULL. If the table is so small that it may be read, set allow_full_scan of the migration.",
					 bbm_table_sql_name(RelationGetRelid(rel)), quoted, quoted),
			 errtablecol(rel, attnum)));
}

/* Does the same before a job: an index may have been dropped.  Caller has locked the partition. */
static void
check_partition_index(BbmTarget *target, const BbmPartition *partition)
{
	ListCell   *cell;

	foreach(cell, partition->as_one_table ? bbm_partitions_list(partition->relid) : list_make1_oid(partition->relid))
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);

		if (rel == NULL)
			continue;
		check_table(target, rel);
		table_close(rel, AccessShareLock);
	}
}

/* "... FROM the partition WHERE the column is null and there is something to do". */
static char *
from_where(BbmTarget *target, BbmPartition *partition, const char *alias)
{
	const char *condition = target->migration->filter;

	return psprintf("FROM %s AS %s WHERE %s%s%s.%s IS NULL%s%s%s", partition->source, alias, partition->own_rows ? partition->own_rows : "",
					partition->own_rows ? " AND " : "", alias, quote_identifier(target->migration->column_name),
					condition ? " AND (" : "", condition ? condition : "", condition ? "\n)" : "");
}

static SPIPlanPtr
probe(BbmTarget *target, BbmPartition *partition)
{
	if (partition->probe == NULL)
	{
		SPIPlanPtr	plan = bbm_spi_prepare(psprintf("SELECT 1 %s LIMIT 1", from_where(target, partition, target->alias)),
										   0, NULL, 0);

		bbm_spi_keep(plan);
		partition->probe = plan;
	}
	return partition->probe;
}

/*
 * A user's own job may forever report rows that it has changed but not filled.
 * So from time to time it is checked how many they have become.
 */
static void
check_bounded(BbmTarget *target, BbmPartition *partition)
{
	double		most = Max(partition->rows, BBM_FEW_ROWS) * target->migration->max_attempts;
	int64		rows;

	if (++partition->allocations % BBM_ALLOCATIONS_BETWEEN_POLLS != 0)
		return;
	rows = bbm_jobs_rows(target->migration->id, target->per_partition ? partition->relid : InvalidOid);
	if (rows <= most)
		return;
	bbm_failing_code = BBM_CODE_ATTEMPTS;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the jobs have changed " INT64_FORMAT " rows, but rows with column \"%s\" null remain", rows,
					target->migration->column_name),
			 errdetail("Table %s has about %.0f.", partition->name, partition->rows),
			 errhint("See which rows they are; correct the job or the rows, and start the migration again.")));
}

static bool
next_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, BbmRange *range)
{
	int			level;

	memset(range, 0, sizeof(BbmRange));
	/* a verification is one job */
	if (allocation->verifies)
		return allocation->after == NULL;
	/* the table's row security policies may run the owner's code */
	level = bbm_job_settings(target->migration);
	check_partition_index(target, partition);
	(void) bbm_spi_execute_plan(probe(target, partition), NULL, NULL, false, 1);
	bbm_user_settings_end(level);
	if (SPI_processed == 0)
		return false;
	if (bbm_jobs_idle(target->migration->id, target->migration->max_attempts))
	{
		bbm_failing_code = BBM_CODE_ATTEMPTS;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the last %d jobs changed no row, but rows with column \"%s\" null remain",
						target->migration->max_attempts, target->migration->column_name),
				 errdetail("Some of them are in table %s.", partition->name),
				 errhint("See which rows they are; correct the job or the rows, and start the migration again.")));
	}
	check_bounded(target, partition);
	range->key_count = allocation->size;
	return true;
}

static void
first_sub_batch(BbmTarget *target, BbmPartition *partition, const BbmRange *rest, bool after, int n,
				BbmRange *sub_batch)
{
	*sub_batch = *rest;
}

/*
 * There is no range: selects up to $3 rows, in any order.  Another session may
 * fill one of them while the statement waits for its lock; the server then
 * checks the statement's own conditions for the new row, and minor releases
 * before November 2025 do not compare its ctid.
 */
static char *
predicate(BbmTarget *target, BbmPartition *partition, const char *alias)
{
	return psprintf("%s.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT %s.ctid %s LIMIT $3)) AND %s.%s IS NULL", alias, alias,
					from_where(target, partition, alias), alias, quote_identifier(target->migration->column_name));
}

/* A row that was selected and not filled is no progress. */
static char *
undone(BbmTarget *target, const char *alias)
{
	return psprintf("%s.%s IS NULL", alias, quote_identifier(target->migration->column_name));
}

/* Uses the column's null fraction, if the table has been analyzed. */
static double
share(BbmTarget *target, double rows)
{
	HeapTuple	tuple;

	/* the statistics include rows that the owner may not see */
	if (target->as_owner)
		return rows;
	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(target->relid),
							Int16GetDatum(target->attnum), BoolGetDatum(target->has_partitions));
	if (HeapTupleIsValid(tuple))
	{
		rows *= ((Form_pg_statistic) GETSTRUCT(tuple))->stanullfrac;
		ReleaseSysCache(tuple);
	}
	return rows;
}

const BbmStrategy bbm_strategy_null = {
	.name = "NullKeySetBatchingStrategy",
	.one_at_a_time = true,
	.resolve = resolve,
	.check_table = check_table,
	.next_range = next_range,
	.first_sub_batch = first_sub_batch,
	.predicate = predicate,
	.undone = undone,
	.share = share
};
