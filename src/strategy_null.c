/*-------------------------------------------------------------------------
 *
 * strategy_null.c
 *		NullKeySetBatchingStrategy: while rows with the column NULL remain.
 *
 * A job has no range (its bounds are 0 and 0, as the registry's): it is to fill
 * up to batch_size rows of its own choice.  Two at once would choose the same
 * ones, so they run one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

#include "access/htup_details.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "spi.h"
#include "target.h"
#include "txn.h"

/* A look at how many rows the jobs say they have changed is taken once in so many cuts. */
#define BBM_CUTS_BETWEEN_LOOKS 100
/* What the planner thinks of a small table is no measure. */
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
				 errhint("Name a column of the table.")));
}

/* "… FROM the leaf WHERE the column is null and there is something to do". */
static char *
from_where(BbmTarget *target, BbmLeaf *leaf, const char *alias)
{
	const char *condition = target->migration->where_clause;

	return psprintf("FROM %s AS %s WHERE %s%s%s.%s IS NULL%s%s%s", leaf->source, alias, leaf->own_rows ? leaf->own_rows : "",
					leaf->own_rows ? " AND " : "", alias, quote_identifier(target->migration->column_name),
					condition ? " AND (" : "", condition ? condition : "", condition ? "\n)" : "");
}

static SPIPlanPtr
probe(BbmTarget *target, BbmLeaf *leaf)
{
	if (leaf->probe == NULL)
	{
		char	   *sql = psprintf("SELECT 1 %s LIMIT 1", from_where(target, leaf, target->alias));
		SPIPlanPtr	plan = bbm_spi_prepare(sql, 0, NULL, 0);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", sql);
		leaf->probe = plan;
	}
	return leaf->probe;
}

/*
 * A job of the user's may report rows that it has changed and not filled, for
 * ever.  So from time to time it is looked how many they have become.
 */
static void
check_bounded(BbmTarget *target, BbmLeaf *leaf)
{
	double		most = Max(leaf->rows, BBM_FEW_ROWS) * target->migration->max_attempts;
	int64		rows;

	if (++leaf->cuts % BBM_CUTS_BETWEEN_LOOKS != 0)
		return;
	rows = bbm_jobs_rows(target->migration->id, target->by_leaf ? leaf->relid : InvalidOid);
	if (rows <= most)
		return;
	bbm_failing_code = BBM_CODE_ATTEMPTS;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the jobs have changed " INT64_FORMAT " rows, but rows with column \"%s\" null remain", rows,
					target->migration->column_name),
			 errdetail("Table %s has about %.0f.", leaf->name, leaf->rows),
			 errhint("See which rows they are; mend the job or the rows, and start the migration again.")));
}

static bool
next_range(BbmTarget *target, BbmLeaf *leaf, const BbmCut *cut, BbmRange *range)
{
	int			level;
	int			result;

	memset(range, 0, sizeof(BbmRange));
	/* to verify is to look once */
	if (cut->verifies)
		return cut->after == NULL;
	/* a row security policy of the table's is the owner's code */
	level = bbm_job_settings(target->migration);
	result = bbm_spi_execute_plan(probe(target, leaf), NULL, NULL, false, 1);
	bbm_user_settings_end(level);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not look for rows that are null: %s", SPI_result_code_string(result));
	if (SPI_processed == 0)
		return false;
	if (bbm_jobs_idle(target->migration->id, target->migration->max_attempts))
	{
		bbm_failing_code = BBM_CODE_ATTEMPTS;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the last %d jobs changed no row, but rows with column \"%s\" null remain",
						target->migration->max_attempts, target->migration->column_name),
				 errdetail("Some of them are in table %s.", leaf->name),
				 errhint("See which rows they are; mend the job or the rows, and start the migration again.")));
	}
	check_bounded(target, leaf);
	range->key_count = cut->size;
	return true;
}

static void
first_of(BbmTarget *target, BbmLeaf *leaf, const BbmRange *rest, bool after, int n, BbmRange *part)
{
	*part = *rest;
}

/* Without a range: up to $3 rows, whichever come first. */
static char *
predicate(BbmTarget *target, BbmLeaf *leaf, const char *alias)
{
	return psprintf("%s.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT %s.ctid %s LIMIT $3))", alias, alias,
					from_where(target, leaf, alias));
}

/* A row that was chosen and not filled is no progress. */
static char *
undone(BbmTarget *target, const char *alias)
{
	return psprintf("%s.%s IS NULL", alias, quote_identifier(target->migration->column_name));
}

/* The column's null fraction, when the table has been analyzed. */
static double
share(BbmTarget *target, double rows)
{
	HeapTuple	tuple;

	/* of rows that the owner may not see, either */
	if (target->as_owner)
		return rows;
	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(target->relid),
							Int16GetDatum(target->attnum), BoolGetDatum(target->is_tree));
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
	.next_range = next_range,
	.first_of = first_of,
	.predicate = predicate,
	.undone = undone,
	.share = share
};
