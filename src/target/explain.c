/*-------------------------------------------------------------------------
 *
 * explain.c
 *		The plan of a job, to be shown.
 *
 *-------------------------------------------------------------------------
 */
#include "target/explain.h"

#include "base/spi.h"
#include "base/user.h"
#include "target/job.h"

/* The output of EXPLAIN of the job for a range.  Needs a transaction and SPI; the current user is the owner. */
char *
bbm_job_explain(BbmTarget *target, BbmPartition *partition, const BbmRange *range, int size)
{
	int			level = bbm_job_settings(target->migration);
	Oid			types[BBM_MAX_JOB_ARGS];
	Datum		values[BBM_MAX_JOB_ARGS];
	int			nargs = bbm_job_types(target, types);
	StringInfoData plan;
	SPIPlanPtr	explain;

	bbm_job_bind(target, partition, range, size, values);
	explain = bbm_spi_prepare(psprintf("EXPLAIN %s", bbm_job_statement(target, partition)), nargs, types, 0);
	(void) bbm_spi_execute_plan(explain, values, NULL, false, 0);
	initStringInfo(&plan);
	for (uint64 i = 0; i < SPI_processed; i++)
		appendStringInfo(&plan, "%s%s", i > 0 ? "\n" : "", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(explain);
	bbm_user_settings_end(level);
	return plan.data;
}
