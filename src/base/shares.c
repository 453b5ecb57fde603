/*-------------------------------------------------------------------------
 *
 * shares.c
 *		How worker slots are shared among owners, and who gets the next one.
 *
 *-------------------------------------------------------------------------
 */
#include "base/shares.h"

#include "base/guc.h"
#include "base/rates.h"
#include "base/requests.h"
#include "base/shared.h"
#include "base/shmem.h"

/* Within this time a new process finds work, or exits. */
#define BBM_MOMENT_MS 1000

/* For so long, workers that work let an owner wait whose migrations were all throttled when that was last checked. */
#define BBM_POLL_LATE_MS (8 * 1000)

/*
 * Number of processes that count against bbm.max_workers: of an owner in all
 * databases, and in one of them.  Caller holds the lock.
 */
typedef struct Share
{
	int			of_owner;
	int			there;
} Share;

static Share
share_of(Oid database, Oid owner)
{
	Share		share = {0, 0};

	bbm_each_worker_slot(slot)
	{
		if (!slot->in_use || slot->yields || slot->owner != owner)
			continue;
		share.of_owner++;
		if (slot->database == database)
			share.there++;
	}
	return share;
}

/* The owner with fewer workers in all sorts first, and then the one with fewer in that database. */
static int
compare_shares(Share a, Share b)
{
	return a.of_owner != b.of_owner ? a.of_owner - b.of_owner : a.there - b.there;
}

/*
 * Would my share still not be the smaller one if one of its workers gave its
 * slot to the other?  The last worker exits in favour of an owner that has
 * none: where there are more owners than slots they alternate.
 */
static bool
yields_to(const BbmSlot *mine, Share my, const BbmWorkRequest *request, Share other)
{
	if (request->owner != mine->owner)
		return other.of_owner == 0 || my.of_owner - other.of_owner >= 2;
	return other.there == 0 || my.there - other.there >= 2;
}

/*
 * Is the request only to poll whether what its migrations wait for is over?
 * Workers that work do not exit for it, nor do requests of others wait for it,
 * unless it is already late: with many throttled owners, the others would spend
 * most of their time in alternating with them.
 */
static bool
only_polls(const BbmWorkRequest *request, TimestampTz now)
{
	return request->polls && !bbm_time_has_come(now, TimestampTzPlusMilliseconds(request->due, BBM_POLL_LATE_MS),
												BBM_POLL_LATE_MS);
}

/* Has no owner a larger share than this one? */
static bool
is_largest_share(Share my)
{
	bbm_each_worker_slot(slot)
	{
		if (slot->in_use && !slot->yields && share_of(slot->database, slot->owner).of_owner > my.of_owner)
			return false;
	}
	return true;
}

/*
 * Slots that are free, or will be in a moment: those of processes that are
 * about to exit and, for a caller that works, those of processes that have
 * just started and may find nothing to do.
 */
static int
free_slots(bool works, TimestampTz now)
{
	int			n = 0;

	bbm_each_worker_slot(slot)
	{
		if (!slot->in_use || slot->yields ||
			(works && !bbm_is_my_slot(slot) && slot->job_id == 0 &&
			 !bbm_time_has_come(now, TimestampTzPlusMilliseconds(slot->since, BBM_MOMENT_MS), BBM_MOMENT_MS)))
			n++;
	}
	return n;
}

/* When a worker may be started for it: not before its back-off has ended, unless the clock was set back since. */
static TimestampTz
due_of(const BbmWorkRequest *request, TimestampTz now)
{
	return bbm_time_has_come(now, request->not_before, BBM_LAST_BACKOFF_MS) ? request->due :
		Max(request->due, request->not_before);
}

/*
 * Is there due work for which all slots are taken, and should this worker exit
 * for it?  One that waits ("works" is false) exits in favour of any other that
 * could work; one that works, only if the other's share is smaller than its
 * own.  Then its slot counts as free from here on, so that no other worker
 * exits as well.
 */
bool
bbm_slot_is_wanted(bool works)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmSlot    *mine;
	Share		my;
	int			missing = 0;

	if (bbm_shared == NULL || bbm_my_slot < 0 || bbm_my_slot >= bbm_max_workers)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	mine = &bbm_shared->slots[bbm_my_slot];
	my = share_of(mine->database, mine->owner);
	if (!works || is_largest_share(my))
		missing = -free_slots(works, now);
	for (int i = 0; i < bbm_shared->nrequests && missing <= 0; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];
		Share		other;

		if (!request->in_use || due_of(request, now) > now ||
			(request->database == mine->database && request->owner == mine->owner))
			continue;
		other = share_of(request->database, request->owner);
		if (other.there < request->wanted &&
			(!works || (!only_polls(request, now) && yields_to(mine, my, request, other))))
			missing++;
	}
	mine->yields = missing > 0;
	LWLockRelease(bbm_shared->lock);
	return missing > 0;
}

/* How many more workers may be started. */
int
bbm_slots_unused(void)
{
	int			n = 0;

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_worker_slot(slot)
		n += !slot->in_use;
	LWLockRelease(bbm_shared->lock);
	return n;
}

/* There is work, and perhaps no slot for it: workers that only wait check whether their slot is wanted. */
void
bbm_slots_wake_waiting(void)
{
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_worker_slot(slot)
	{
		if (slot->in_use && slot->latch && slot->job_id == 0 && slot->waiting_on.text[0] != '\0')
			SetLatch(slot->latch);
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * Returns the due request with the fewest workers, of those that want more,
 * and among equals one that may find work, and the one that was served longest
 * ago; false when there is none.  *needed: it has no worker.  *wait is lowered to the next time that a
 * request is due.
 */
bool
bbm_request_next(Oid *database, Oid *owner, bool *needed, TimestampTz *wait)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmWorkRequest *next = NULL;
	Share		fewest = {0, 0};

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_request(request)
	{
		TimestampTz when = due_of(request, now);
		Share		share;
		int			order;

		if (!request->in_use || request->due == DT_NOEND)
			continue;
		share = share_of(request->database, request->owner);
		if (share.there >= request->wanted)
			continue;
		if (when > now)
		{
			*wait = Min(*wait, when);
			continue;
		}
		order = next ? compare_shares(share, fewest) : -1;
		if (order == 0)
			order = (int) only_polls(request, now) - (int) only_polls(next, now);
		if (order < 0 || (order == 0 && request->served < next->served))
		{
			next = request;
			fewest = share;
		}
	}
	if (next)
	{
		*database = next->database;
		*owner = next->owner;
		*needed = fewest.there == 0;
	}
	LWLockRelease(bbm_shared->lock);
	return next != NULL;
}
