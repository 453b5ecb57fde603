/*-------------------------------------------------------------------------
 *
 * job_record.h
 *		Recording what comes of a claimed job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_JOB_RECORD_H
#define BBM_CATALOG_JOB_RECORD_H

#include "base/bbm.h"

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
	int64		keys;			/* of its range; 0: they are not counted */
	int64		rows;
	double		ms;
	int64		wal;
} BbmCost;

extern bool bbm_job_orphan(int64 id, TimestampTz due);
extern bool bbm_job_take_back(int64 id);
extern bool bbm_job_lock(BbmJob *job);
extern bool bbm_job_is_locked(int64 id);
extern void bbm_job_check_recorded(const BbmJob *job, uint64 rows);
extern void bbm_job_finish(const BbmJob *job, const BbmCost *cost, bool detached);
extern bool bbm_job_fail(const BbmJob *job, int code, const ErrorData *error, TimestampTz due, bool bisect);
extern bool bbm_job_skip(const BbmJob *job);
extern bool bbm_job_release_unstarted(const BbmJob *job);
extern const char *bbm_requeue_reason_name(BbmRequeueReason why);
extern bool bbm_job_requeue(const BbmJob *job, BbmRequeueReason why, const ErrorData *error, TimestampTz due);

#endif							/* BBM_CATALOG_JOB_RECORD_H */
