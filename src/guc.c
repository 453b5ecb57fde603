/*-------------------------------------------------------------------------
 *
 * guc.c
 *		Every setting of bbm and its bounds.
 *
 * What workers read is SIGHUP: one value for the server, so that a session
 * cannot give itself more.  What one migration may need different is a column
 * of its row.
 *
 *-------------------------------------------------------------------------
 */
#include "guc.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

bool		bbm_enabled = true;
int			bbm_max_workers = 4;
int			bbm_naptime = 600;
int			bbm_lock_timeout = 1000;
int			bbm_max_blocking_time = 1000;
int			bbm_max_batch_time = 10 * 60 * 1000;
int			bbm_retry_delay = 1000;
int			bbm_retry_max_delay = 30 * 60 * 1000;
int			bbm_job_retention = 1000;
int			bbm_event_retention = 90 * 24 * 60;
int			bbm_log_min_duration = -1;

void
bbm_guc_define(void)
{
	DefineCustomBoolVariable("bbm.enabled",
							 "Lets workers run migrations.",
							 "When off, workers leave after the batch in flight and none is started.",
							 &bbm_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* Sizes shared memory, so it only exists when that is being laid out. */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("bbm.max_workers",
								"Sets the maximum number of workers of all migrations.",
								"They are taken from max_worker_processes.",
								&bbm_max_workers, 4, 1, 256,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("bbm.naptime",
							"Sets the time between looks for migrations that no event announced.",
							"Zero turns the looks off; one is still made at start and after a promotion.",
							&bbm_naptime, 600, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.lock_timeout",
							"Sets the longest time a worker waits for a lock.",
							"A batch that waits longer is given back and does not count as failed.",
							&bbm_lock_timeout, 1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.max_blocking_time",
							"Sets the longest time a batch lets other sessions wait for its locks.",
							"A batch that does longer is given back, does not count as failed, and the next is smaller. Zero turns it off.",
							&bbm_max_blocking_time, 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.max_batch_time",
							"Sets the longest time a batch may take.",
							"A batch that takes longer is given back, does not count as failed, and the next is smaller. Zero turns it off.",
							&bbm_max_batch_time, 10 * 60 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.retry_delay",
							"Sets the delay before the first retry of a failed job.",
							"It doubles with each attempt, with a third of jitter.",
							&bbm_retry_delay, 1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.retry_max_delay",
							"Sets the longest delay between two attempts of a job.",
							NULL,
							&bbm_retry_max_delay, 30 * 60 * 1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.job_retention",
							"Sets how many finished jobs a migration keeps as rows of their own.",
							"Older neighbours are merged into one row; -1 keeps all.",
							&bbm_job_retention, 1000, -1, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.event_retention",
							"Sets how long rows of bbm_events are kept.",
							"-1 keeps all.",
							&bbm_event_retention, 90 * 24 * 60, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.log_min_duration",
							"Sets the execution time of a job above which it is logged.",
							"Zero logs every job, -1 none.",
							&bbm_log_min_duration, -1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	MarkGUCPrefixReserved("bbm");
}

void
bbm_guc_set(const char *name, const char *value, bool local)
{
	/* superuser's context: a worker limits its owner's session with SUSET settings too */
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 local ? GUC_ACTION_SAVE : GUC_ACTION_SET,
							 true, 0, false);
}
