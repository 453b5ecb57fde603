/*-------------------------------------------------------------------------
 *
 * jobs.h
 *		Jobs: claiming, recording and merging them.
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

/* Why a batch was requeued; counted by name in requeue_reasons of a job. */
typedef enum BbmRequeueReason
{
	BBM_REQUEUE_LOCK_TIMEOUT = 1,
	BBM_REQUEUE_DEADLOCK,
	BBM_REQUEUE_BLOCKING,		/* others waited too long for its locks */
	BBM_REQUEUE_TIME,			/* it took too long */
	BBM_REQUEUE_CANCELLED,
	BBM_REQUEUE_OTHER
} BbmRequeueReason;

typedef struct BbmCost
{
	int64		rows;
	double		ms;
	int64		wal;
} BbmCost;

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
extern bool bbm_job_orphan(int64 id, TimestampTz due);
extern bool bbm_job_take_back(int64 id);
extern void bbm_jobs_unfinished(int64 migration_id, BbmUnfinished *unfinished);
extern char *bbm_unfinished_to_string(const BbmUnfinished *unfinished);
extern bool bbm_job_lock(BbmJob *job);
extern bool bbm_job_is_locked(int64 id);
extern void bbm_job_progress(const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size,
							 const BbmCost *cost);
extern void bbm_job_finish(const BbmJob *job, const BbmCost *cost, bool detached);
extern int64 bbm_jobs_rows(int64 migration_id, Oid relation);
extern void bbm_jobs_revive(int64 migration_id, List *partitions);
extern bool bbm_job_fail(const BbmJob *job, int code, const ErrorData *error, TimestampTz due, bool bisect);
extern bool bbm_job_skip(const BbmJob *job);
extern void bbm_error_values(const ErrorData *error, Datum *values, char *nulls);
extern bool bbm_job_release_unstarted(const BbmJob *job);
extern const char *bbm_requeue_reason_name(BbmRequeueReason why);
extern bool bbm_job_requeue(const BbmJob *job, BbmRequeueReason why, const ErrorData *error, TimestampTz due);
extern int64 bbm_jobs_refresh(int64 migration_id);
extern bool bbm_jobs_idle(int64 migration_id, int n);
extern int64 bbm_jobs_found(int64 migration_id, int round);
extern void bbm_jobs_repair(int64 migration_id, int round);
extern char *bbm_job_range_to_string(const BbmJob *job);
extern void bbm_partition_extent(int64 migration_id, Oid relation, const BbmBound *low, const BbmBound *high);
extern bool bbm_jobs_last(int64 migration_id, Oid root, Oid relation, BbmPhase phase, BbmBound *last);
extern int64 *bbm_jobs_checks(int64 migration_id, int round, int *n);

#endif							/* BBM_CATALOG_JOBS_H */
