/*-------------------------------------------------------------------------
 *
 * requests.c
 *		Requests for workers, and the launcher's latch.
 *
 * NOTES
 *	  A request is a hint about what should run: the tables decide.  Discovery
 *	  finds again what is lost (the server crashed, the array was full); an
 *	  unnecessary request costs a worker that finds nothing and exits.
 *
 *-------------------------------------------------------------------------
 */
#include "base/requests.h"

#include "base/guc.h"
#include "base/shared.h"
#include "base/shmem.h"

#define BBM_FIRST_BACKOFF_MS 200

/* Caller holds the lock. */
void
bbm_launcher_wake_locked(void)
{
	if (bbm_shared->launcher_latch)
		SetLatch(bbm_shared->launcher_latch);
}

/* Caller holds the lock exclusively. */
static void
request_discovery_locked(Oid database)
{
	if (OidIsValid(bbm_shared->discovery_database) && bbm_shared->discovery_database != database)
		bbm_shared->discover_everywhere = true;
	bbm_shared->discovery_database = database;
}

/* Caller holds the lock exclusively.  Returns NULL when there is none and no room. */
static BbmWorkRequest *
request_find(Oid database, Oid owner, bool create)
{
	BbmWorkRequest *unused = NULL;

	bbm_each_request(request)
	{
		if (!request->in_use)
		{
			if (unused == NULL)
				unused = request;
		}
		else if (request->database == database && request->owner == owner)
			return request;
	}
	if (!create)
		return NULL;

	if (unused == NULL && bbm_shared->nrequests < BBM_MAX_REQUESTS)
		unused = &bbm_shared->requests[bbm_shared->nrequests++];
	/* When the array is full, reuse a fulfilled request: only an event or discovery can wake it again. */
	for (int i = 0; unused == NULL && i < BBM_MAX_REQUESTS; i++)
	{
		if (bbm_shared->requests[i].due == DT_NOEND)
			unused = &bbm_shared->requests[i];
	}
	if (unused == NULL)
	{
		bbm_shared->requests_lost = true;
		return NULL;
	}
	memset(unused, 0, sizeof(BbmWorkRequest));
	unused->in_use = true;
	unused->database = database;
	unused->owner = owner;
	unused->due = DT_NOEND;
	return unused;
}

/*
 * This owner may have new runnable work.  Called after commit, so it must not
 * fail; does not need a transaction.
 */
void
bbm_request_announce(Oid database, Oid owner)
{
	BbmWorkRequest *request;
	int			working = 0;

	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_each_worker_slot(slot)
	{
		if (slot->in_use && slot->database == database && slot->owner == owner)
			working++;
	}
	request = request_find(database, owner, true);
	if (request)
	{
		request->generation = ++bbm_shared->events;
		/* the workers that run may be in long batches, so one more; it exits if there is nothing to do */
		request->wanted = Max(request->wanted, working + 1);
		request->due = BBM_DUE_NOW;
		request->polls = false;
		request->failures = 0;
		request->not_before = 0;
	}
	/* workers of this owner may be waiting for a retry: let them check now */
	bbm_each_slot(slot)
	{
		if (slot->in_use && slot->latch && slot->database == database && slot->owner == owner)
			SetLatch(slot->latch);
	}
	bbm_launcher_wake_locked();
	LWLockRelease(bbm_shared->lock);
}

/*
 * Discovery has found work of this owner.  That is not an event: after workers
 * that died, the back-off stays.
 */
void
bbm_request_found(Oid database, Oid owner)
{
	BbmWorkRequest *request;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, true);
	if (request && request->due > GetCurrentTimestamp())
	{
		request->generation = ++bbm_shared->events;
		request->wanted = Max(request->wanted, 1);
		request->due = BBM_DUE_NOW;
	}
	bbm_launcher_wake_locked();
	LWLockRelease(bbm_shared->lock);
}

/* Discovery has found that nobody can work for this owner. */
void
bbm_request_drop(Oid database, Oid owner)
{
	BbmWorkRequest *request;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, false);
	if (request)
		request->in_use = false;
	LWLockRelease(bbm_shared->lock);
}

/* The number of the last event; read it before listing databases, and pass it to bbm_requests_keep. */
uint64
bbm_requests_events(void)
{
	uint64		events;

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	events = bbm_shared->events;
	LWLockRelease(bbm_shared->lock);
	return events;
}

/*
 * Drops all requests except those of these databases, the only ones that
 * accept connections, and except those that had an event since they were
 * listed: such a database has perhaps been opened meanwhile.
 */
void
bbm_requests_keep(List *databases, uint64 events)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_each_request(request)
	{
		if (request->in_use && request->generation <= events && !list_member_oid(databases, request->database))
			request->in_use = false;
	}
	LWLockRelease(bbm_shared->lock);
}

/* The number of its last event; read it before reading the tables, and pass it to bbm_request_fulfil. */
uint64
bbm_request_generation(Oid database, Oid owner)
{
	uint64		generation = 0;
	BbmWorkRequest *request;

	if (bbm_shared == NULL)
		return 0;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, true);
	if (request)
		generation = request->generation;
	LWLockRelease(bbm_shared->lock);
	return generation;
}

/* This many workers would find work now. */
void
bbm_request_workers(Oid database, Oid owner, int wanted)
{
	BbmWorkRequest *request;

	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, true);
	if (request)
	{
		request->failures = 0;
		request->polls = false;
		/* also for a worker that has polled before this, and is about to fulfil it and exit */
		request->generation = ++bbm_shared->events;
		if (request->wanted < wanted)
		{
			request->wanted = wanted;
			request->due = BBM_DUE_NOW;
			bbm_launcher_wake_locked();
		}
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * A worker that found nothing to do until "due" calls this before it exits.
 * An event since it polled (another generation than it saw) overrides it, and
 * so does another worker that exits meanwhile and leaves something for later.
 * "polls": until an event, who comes then only polls whether a throttle is over.
 */
void
bbm_request_fulfil(Oid database, Oid owner, uint64 generation, TimestampTz due, bool polls)
{
	BbmWorkRequest *request;

	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, false);
	if (request && request->generation == generation)
	{
		int			others = 0;

		bbm_each_slot(slot)
		{
			if (slot->in_use && !bbm_is_my_slot(slot) && !slot->yields && slot->kind == BBM_KIND_WORKER &&
				slot->database == database && slot->owner == owner)
				others++;
		}
		request->failures = 0;
		/* the workers that still run are wanted; this one is not */
		request->wanted = Max(others, 1);
		request->due = others > 0 ? Min(request->due, due) : due;
		request->polls = polls && others == 0;
		/* one that exits after this, and has polled while we had a job, does not know when what we leave is due */
		if (others > 0 && due != DT_NOEND)
			request->generation = ++bbm_shared->events;
	}
	LWLockRelease(bbm_shared->lock);
}

/* The reason for waiting may be gone: requests that are due later are due now. */
void
bbm_requests_reconsider(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_each_request(request)
	{
		if (request->in_use && request->due != DT_NOEND)
		{
			request->due = Min(request->due, now);
			request->polls = false;
		}
	}
	LWLockRelease(bbm_shared->lock);
}

/* Requests discovery in a database. */
void
bbm_request_discovery(Oid database)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request_discovery_locked(database);
	bbm_launcher_wake_locked();
	LWLockRelease(bbm_shared->lock);
}

/*
 * Caller holds the lock exclusively.  A discovery has died, and its database is
 * still to be checked, after growing delays: what nobody announced would
 * otherwise wait for bbm.naptime, or for ever.
 */
void
bbm_discovery_died(Oid database)
{
	bbm_shared->discovery_undone = database;
	bbm_shared->discovery_failures++;
}

/*
 * Caller holds the lock exclusively.  A worker has died without reporting:
 * there is work left, and the next worker waits a little, also because the
 * dead process's locks may still be held.
 */
void
bbm_request_back_off(const BbmSlot *slot)
{
	BbmWorkRequest *request = request_find(slot->database, slot->owner, true);
	TimestampTz now = GetCurrentTimestamp();
	int			delay;

	if (request == NULL)
		return;
	/* it cannot even log in: discovery, as superuser, finds out whether that is permanent */
	if (!slot->connected && request->failures == 2)
		request_discovery_locked(slot->database);
	delay = BBM_FIRST_BACKOFF_MS << Min(request->failures, 11);
	delay = Min(delay, BBM_LAST_BACKOFF_MS);
	request->failures++;
	request->wanted = Max(request->wanted, 1);
	request->due = BBM_DUE_NOW;
	request->not_before = TimestampTzPlusMilliseconds(now, delay);
}
