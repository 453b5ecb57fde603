/*-------------------------------------------------------------------------
 *
 * batch.h
 *		The second transaction of a job: the batch and its record.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_BATCH_H
#define BBM_ENGINE_BATCH_H

#include "base/bbm.h"

#include "catalog/job_record.h"
#include "engine/claim.h"
#include "target/target.h"

typedef enum BbmWorkResult
{
	BBM_WORK_FINISHED,			/* the job is finished */
	BBM_WORK_SUB_BATCH,			/* a sub-batch is; the job's cursor has moved */
	BBM_WORK_LOST,				/* another process has the job now */
	BBM_WORK_STALE,				/* the table is not what the target was resolved for; requeue the job */
	BBM_WORK_PAUSED,			/* the migration is not to run any more, or not as it was */
	BBM_WORK_SLICE_OVER,		/* the remainder of the job is for later: another migration waits for the table */
	BBM_WORK_ELSEWHERE			/* the shard is moving or has moved, or the migration as a whole is paused */
} BbmWorkResult;

typedef struct BbmWork
{
	BbmTarget  *target;			/* in */
	BbmJob	   *job;
	MemoryContext context;		/* the job's bounds are allocated here */
	const char *string;			/* migration and job as text, for messages, once there was one */
	bool		waited;			/* since the claim, so the migration may have been paused */
	BbmClaim   *next;			/* to be claimed in the transaction of the record ... */
	bool		(*may_go_on) (const void *arg); /* ... if this function allows it then */
	const void *arg;
	BbmWorkResult result;		/* out */
	BbmBound	next_cursor;	/* what a sub-batch has reached; lives as long as the job */
	int			next_size;		/* of the next sub-batch, if reduced; else 0 */
	BbmCost		cost;			/* of the last sub-batch */
	bool		detached;		/* its partition is not attached to the table */
	bool		outside;		/* the batch may have had effects outside of this server */
	int64		keys;			/* of all sub-batches so far */
	int64		new_keys;		/* of those to which the size was not adapted yet ... */
	double		new_ms;			/* ... and what they have cost */
	double		new_wal;
} BbmWork;

/* A BbmTxnFn with a BbmWork. */
extern PGDLLEXPORT void bbm_work(void *arg);
extern BbmPartition *bbm_work_partition(const BbmWork *work);
extern int64 bbm_work_whole(BbmWork *work);

#endif							/* BBM_ENGINE_BATCH_H */
