/*-------------------------------------------------------------------------
 *
 * jobs.h
 *		Jobs: claiming and counting them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_JOBS_H
#define BBM_CATALOG_JOBS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"

#define BBM_WAITS_FOR_RETRY "retry of a failed job"

typedef struct BbmUnfinished
{
	int64		jobs;			/* new or failed */
	int64		failed;
	TimestampTz due;			/* the earliest time; DT_NOEND without jobs */
	char	   *error;			/* of the job that is due first, or NULL */
} BbmUnfinished;

/* What a job has used, and when. */
typedef struct BbmSpent
{
	int64		rows;
	int64		wal;
	TimestampTz since;
	TimestampTz until;
} BbmSpent;

extern int	bbm_jobs_spent(int64 migration_id, BbmSpent *spent, int room);
extern void bbm_job_insert(BbmJob *job, int32 worker_id, int64 after);
extern bool bbm_job_ids_are_behind(const ErrorData *error);
extern void bbm_job_ids_catch_up(void);
extern BbmJobKind bbm_job_kind(const char *name);
extern bool bbm_job_reclaim(int64 migration_id, int status, TimestampTz now, int32 worker_id, MemoryContext context,
							BbmJob *job);
extern void bbm_jobs_unfinished(int64 migration_id, BbmUnfinished *unfinished);
extern char *bbm_unfinished_to_string(const BbmUnfinished *unfinished);
extern bool bbm_job_is_followed(int64 migration_id, int64 job_id);
extern int64 bbm_jobs_refresh(int64 migration_id);
extern bool bbm_jobs_idle(int64 migration_id, int n);
extern int64 bbm_jobs_found(int64 migration_id, int round);
extern bool bbm_jobs_have_repair(int64 migration_id);
extern void bbm_jobs_repair(int64 migration_id, int round);
extern char *bbm_job_range_to_string(const BbmJob *job);
extern int64 *bbm_jobs_checks(int64 migration_id, int round, int *n);

#endif							/* BBM_CATALOG_JOBS_H */
