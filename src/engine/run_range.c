/*-------------------------------------------------------------------------
 *
 * run_range.c
 *		Running the job on a range of keys.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/run_range.h"

#include "utils/fmgrprotos.h"

#include "base/guc.h"
#include "base/txn.h"
#include "base/user.h"
#include "target/hierarchy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/plan_guard.h"
#include "target/target.h"

/* How many rows of the partition, or of all partitions of the table, this transaction has changed so far. */
static int64
rows_changed(const BbmPartition *partition)
{
	List	   *tables = partition->as_one_table ? bbm_partitions_list(partition->relid) :
		list_make1_oid(partition->relid);
	int64		rows = 0;
	ListCell   *cell;

	foreach(cell, tables)
	{
		Datum		arg = ObjectIdGetDatum(lfirst_oid(cell));

		rows += DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_inserted, arg)) +
			DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, arg)) +
			DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, arg));
	}
	return rows;
}

/* The number a job's function returned; NULL is none. */
static int64
returned_count(void)
{
	bool		isnull;
	Datum		datum;

	if (SPI_processed == 0 || SPI_tuptable == NULL)
		return 0;
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return 0;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, 1))
	{
		case INT2OID:
			return DatumGetInt16(datum);
		case INT4OID:
			return DatumGetInt32(datum);
		default:
			return DatumGetInt64(datum);
	}
}

/* Explains to a job that tries to end the transaction why it must not. */
static void
explain_error(void *arg)
{
	if (geterrcode() == ERRCODE_INVALID_TRANSACTION_TERMINATION)
		errhint("A job runs in one transaction with its record, and must not end it.");
}

/*
 * Counts the updated rows that are done.  Where rows move, a row that still
 * meets the condition for what is to be done would be processed again and
 * again.
 */
static int64
rows_done(const BbmTarget *target)
{
	int64		rows = 0;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		still = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (isnull || !DatumGetBool(still))
			rows++;
		else if (target->strategy->has_key)
		{
			bbm_failing_code = BBM_CODE_COLUMN;
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a row that is done has another key, \"%s\", beyond its batch", bbm_key_to_string(&target->key)),
					 errdetail("A BEFORE trigger has changed it. A row whose key changes can move into another batch, and be done twice or not at all."),
					 errhint("If that does no harm here, set allow_key_change of the migration, and start it again.")));
		}
		else if (target->strategy->table_scans)
		{
			bbm_failing_code = BBM_CODE_SIGNATURE;
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a row that is done still meets \"filter\""),
					 errdetail("%s finds the rows to process by it: %s", target->strategy->name,
							   target->migration->filter),
					 errhint("Write a condition that a row does not meet any more once it is done.")));
		}
	}
	return rows;
}

/* Runs the job on a range; returns how many rows it says it has changed. */
int64
bbm_run_range(BbmTarget *target, BbmPartition *partition, const BbmRange *range, int size)
{
	bool		statement = target->form == BBM_JOB_STATEMENT || target->form == BBM_JOB_COMPOSED;
	bool		by_statistics = !statement && !target->returns_count;
	int64		before = by_statistics ? rows_changed(partition) : 0;
	int			level = bbm_job_settings(target->migration);
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = explain_error};
	Datum		values[BBM_MAX_JOB_ARGS];
	int64		rows;
	int			result;

	/* the planner's cost of a statement over many partitions does not reflect what a batch of it does */
	if (partition->as_one_table && target->form == BBM_JOB_COMPOSED)
		bbm_guc_set("jit", "off", true);
	bbm_job_revalidate(target, partition);
	bbm_job_bind(target, partition, range, size, values);
	error_context_stack = &callback;
	result = bbm_plan_execute(target, partition, values, target->strategy->one_at_a_time ? size :
							  Max(range->key_count, 1));
	error_context_stack = callback.previous;
	rows = statement ? (int64) SPI_processed : target->returns_count ? returned_count() : 0;
	if (result == SPI_OK_UPDATE_RETURNING && target->form == BBM_JOB_COMPOSED)
		rows = rows_done(target);
	SPI_freetuptable(SPI_tuptable);
	/*
	 * Deferred constraints and triggers are due now, in the settings of the
	 * job, and so is what they queue in turn, deferred or not: no code of the
	 * owner's may be left to run at the commit, where the settings are ours.
	 */
	bbm_txn_fire_deferred();
	bbm_txn_discard();
	if (by_statistics)
		rows = rows_changed(partition) - before;
	/* also undoes what the job has SET */
	bbm_user_settings_end(level);
	return bbm_row_count(rows);
}
