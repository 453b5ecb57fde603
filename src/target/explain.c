/*-------------------------------------------------------------------------
 *
 * explain.c
 *		The statement of a job, and its plan, to be shown.
 *
 *-------------------------------------------------------------------------
 */
#include "target/explain.h"

#include "base/spi.h"
#include "base/user.h"
#include "target/job.h"

/* What is executed for a range; $1, $2 ... are its bounds. */
char *
bbm_job_statement(BbmTarget *target, BbmPartition *partition)
{
	switch (target->form)
	{
		case BBM_JOB_STATEMENT:
			return pstrdup(target->migration->job);
		case BBM_JOB_COMPOSED:
			return bbm_job_sql(target, partition);
		case BBM_JOB_RANGE_FUNCTION:
		case BBM_JOB_REGISTRY_FUNCTION:
			return pstrdup(target->call);
		case BBM_JOB_NONE:
			break;
	}
	return NULL;
}

/* The output of EXPLAIN of the job for a range.  Needs a transaction and SPI; the current user is the owner. */
char *
bbm_job_explain(BbmTarget *target, BbmPartition *partition, const BbmRange *range, int size)
{
	int			level = bbm_job_settings(target->migration);
	MemoryContext context = CurrentMemoryContext;
	Oid			types[BBM_MAX_JOB_ARGS];
	Datum		values[BBM_MAX_JOB_ARGS];
	int			nargs = bbm_job_types(target, types);
	StringInfoData plan;
	SPIPlanPtr	explain;

	bbm_job_bind(target, partition, range, size, values);
	explain = bbm_spi_prepare(psprintf("EXPLAIN %s", bbm_job_statement(target, partition)), nargs, types, 0);
	if (explain == NULL || bbm_spi_execute_plan(explain, values, NULL, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not explain the job");
	MemoryContextSwitchTo(context);
	initStringInfo(&plan);
	for (uint64 i = 0; i < SPI_processed; i++)
		appendStringInfo(&plan, "%s%s", i > 0 ? "\n" : "", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(explain);
	bbm_user_settings_end(level);
	return plan.data;
}
