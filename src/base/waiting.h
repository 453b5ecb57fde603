/*-------------------------------------------------------------------------
 *
 * waiting.h
 *		What a migration waits for, as far as shared memory shows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_WAITING_H
#define BBM_BASE_WAITING_H

#include "base/bbm.h"

#include "base/shared.h"

typedef struct BbmWaiting
{
	bool		anybody;		/* a process is on it ... */
	bool		works;			/* ... and one has a job, and waits for nothing */
	bool		requested;		/* a worker is to come ... */
	TimestampTz requested_for;	/* ... then */
	bool		idle;			/* as of the last check, there are only jobs that are not due yet */
	BbmBlockers blocked;		/* the lock that a process waits for, if one does */
	BbmReason	longest;		/* of all reasons the one that lasts longest */
	BbmReason	of_batch;		/* the lock that its last batch did not get */
} BbmWaiting;

extern void bbm_waiting_read(int64 migration_id, Oid owner, BbmWaiting *waiting);
extern int	bbm_workers_on(int64 migration_id);

#endif							/* BBM_BASE_WAITING_H */
