/*-------------------------------------------------------------------------
 *
 * waiting.c
 *		What a migration waits for, as far as shared memory shows.
 *
 * NOTES
 *	  A reason for waiting (BbmReason) is in one of three places, according to
 *	  whose it is: in the slot of a process that waits, in the wait state of a
 *	  migration that is throttled, and with a transient error, which may be its
 *	  owner's or its database's.  Code that shows users a reason reads all
 *	  three here, at one moment.
 *
 *-------------------------------------------------------------------------
 */
#include "base/waiting.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/trouble.h"
#include "base/wait_state.h"

/* Caller holds the lock on shared memory. */
static void
read_slot(const BbmSlot *slot, int64 id, Oid owner, BbmWaiting *waiting)
{
	if (!slot->in_use || slot->database != MyDatabaseId)
		return;
	if (slot->blocked.count > 0 && (slot->blocked.migration_id == id ||
									(slot->blocked.migration_id == 0 && slot->owner == owner)))
	{
		waiting->blocked = slot->blocked;
		waiting->anybody = true;
		return;
	}
	if (slot->migration_id != id)
		return;
	waiting->anybody = true;
	if (slot->waiting_on.text[0] != '\0')
		bbm_outlasts(&waiting->longest, &slot->waiting_on);
	else if (slot->job_id != 0)
		waiting->works = true;
}

/* Reads what a migration of this database waits for.  Needs shared memory. */
void
bbm_waiting_read(int64 migration_id, Oid owner, BbmWaiting *waiting)
{
	TimestampTz now = GetCurrentTimestamp();

	memset(waiting, 0, sizeof(BbmWaiting));
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
		read_slot(slot, migration_id, owner, waiting);
	bbm_each_request(request)
	{
		if (request->in_use && request->database == MyDatabaseId && request->owner == owner && request->due != DT_NOEND)
		{
			waiting->requested = true;
			waiting->requested_for = request->due;
		}
	}
	bbm_wait_state_reason(migration_id, now, &waiting->longest, &waiting->idle);
	bbm_trouble_reasons(migration_id, owner, now, &waiting->longest, &waiting->of_batch);
	LWLockRelease(bbm_shared->lock);
}

/*
 * How many processes are at work on a migration of this database, or pause
 * between two of its batches?  Needs shared memory.
 */
int
bbm_workers_on(int64 migration_id)
{
	int			n = 0;

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
	{
		if (slot->in_use && slot->database == MyDatabaseId && slot->migration_id == migration_id &&
			(slot->waiting_on.text[0] == '\0' || slot->waiting_on.paces))
			n++;
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}
