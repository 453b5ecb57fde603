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

#include "catalog/jobs.h"
#include "engine/claim.h"
#include "target/target.h"

typedef enum BbmWorkResult
{
	BBM_WORK_FINISHED,			/* the job is finished */
	BBM_WORK_SUB_BATCH,			/* a sub-batch is; the job's cursor has moved */
	BBM_WORK_LOST,				/* somebody else has the job now */
	BBM_WORK_STALE,				/* the table is not what the target was resolved for; requeue it */
	BBM_WORK_PAUSED,			/* the migration is not to run any more */
	BBM_WORK_SLICE_OVER			/* the rest of the job is for later: another migration waits for the table */
} BbmWorkResult;

typedef struct BbmWork
{
	BbmTarget  *target;			/* in */
	BbmJob	   *job;
	MemoryContext context;		/* where the job's bounds live */
	const char *string;			/* migration and job, for messages, once there was one */
	bool		waited;			/* since the claim, so the migration may have been paused */
	BbmClaim   *next;			/* to be claimed along with the record ... */
	bool		(*may_go_on) (const void *arg); /* ... if this says so by then */
	const void *arg;
	BbmWorkResult result;		/* out */
	BbmBound	next_cursor;	/* what a part has reached; lives as the job does */
	int			next_size;		/* of the next part, when cut down; 0 not */
	BbmCost		cost;			/* of the last part */
	bool		detached;		/* its partition is not part of the table */
	bool		outside;		/* what was done may have reached outside of this server */
	int64		keys;			/* of all parts so far ... */
	double		ms;				/* ... and what they have cost */
	double		wal;
} BbmWork;

/* A BbmTxnFn with a BbmWork. */
extern void bbm_work(void *arg);
extern int64 bbm_work_whole(BbmWork *work);

#endif							/* BBM_ENGINE_BATCH_H */
