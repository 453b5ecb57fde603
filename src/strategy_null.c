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

#include "target.h"
#include "txn.h"

static void
resolve(BbmTarget *target)
{
	char	   *sql;
	SPIPlanPtr	plan;

	target->key_type = INT8OID;
	sql = psprintf("SELECT 1 FROM %s WHERE %s IS NULL LIMIT 1",
				   quote_qualified_identifier(get_namespace_name(get_rel_namespace(target->relid)),
											  get_rel_name(target->relid)),
				   quote_identifier(get_attname(target->relid, target->attnum, false)));
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql);
	target->probe = plan;
}

static bool
bounds(BbmTarget *target, int64 *min_value, int64 *max_value)
{
	*min_value = *max_value = 0;
	return true;
}

static bool
next_range(BbmTarget *target, const BbmClaimState *state, BbmRange *range)
{
	/* a row security policy of the table's is the owner's code */
	int			level = bbm_job_settings(target->migration);
	int			result = SPI_execute_plan(target->probe, NULL, NULL, false, 1);

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
				 errhint("See which rows they are; mend the job or the rows, and start the migration again.")));
	}
	range->min_value = range->max_value = 0;
	range->key_count = state->batch_size;
	return true;
}

static void
first_of(BbmTarget *target, const BbmRange *rest, int n, BbmRange *part)
{
	*part = *rest;
}

/* The column's null fraction, when the table has been analyzed. */
static double
share(BbmTarget *target)
{
	HeapTuple	tuple = SearchSysCache3(STATRELATTINH, ObjectIdGetDatum(target->relid),
										Int16GetDatum(target->attnum), BoolGetDatum(false));
	double		fraction = 1.0;

	if (HeapTupleIsValid(tuple))
	{
		fraction = ((Form_pg_statistic) GETSTRUCT(tuple))->stanullfrac;
		ReleaseSysCache(tuple);
	}
	return fraction;
}

const BbmStrategy bbm_strategy_null = {
	.name = "NullKeySetBatchingStrategy",
	.one_at_a_time = true,
	.resolve = resolve,
	.bounds = bounds,
	.next_range = next_range,
	.first_of = first_of,
	.share = share
};
