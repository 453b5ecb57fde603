/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		Worker slots, demands and the launcher's latch.
 *
 * NOTES
 *	  Everything here is a hint about what should run: the truth is in the
 *	  tables.  A demand that is lost (the server crashed, the array was full)
 *	  is found again by a look into the database; a demand too many costs one
 *	  worker that finds nothing and leaves.
 *
 *	  Without preloading there is no shared memory, and every function here
 *	  does nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "shmem.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "throttle.h"

#define BBM_FIRST_BACKOFF_MS 200
#define BBM_YOUNG_MS 5000
/* Within this time a process that has come finds work, or leaves. */
#define BBM_MOMENT_MS 1000

BbmShared  *bbm_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static int	my_slot = -1;
static uint32 my_generation = 0;

static int
slot_count(void)
{
	return bbm_max_workers + BBM_FOREGROUND_SLOTS;
}

static Size
shmem_size(void)
{
	return add_size(offsetof(BbmShared, slots), mul_size(slot_count(), sizeof(BbmSlot)));
}

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("bbm", 1);
}

static void
shmem_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	bbm_shared = ShmemInitStruct("bbm", shmem_size(), &found);
	if (!found)
	{
		memset(bbm_shared, 0, shmem_size());
		bbm_shared->lock = &(GetNamedLWLockTranche("bbm"))->lock;
		bbm_shared->nslots = slot_count();
		bbm_shared->discover_everywhere = true;
		bbm_shared->laid_out_at = GetCurrentTimestamp();
		ConditionVariableInit(&bbm_shared->changed);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Hooks shared memory in; call from _PG_init while the server preloads. */
void
bbm_shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/*
 * Did the server start, or come back from a crash, a moment ago?  Perhaps it
 * was a batch that took it down, and will again.
 */
bool
bbm_server_is_young(void)
{
	return bbm_shared &&
		!TimestampDifferenceExceeds(bbm_shared->laid_out_at, GetCurrentTimestamp(), BBM_YOUNG_MS);
}

/* Caller holds the lock. */
static void
wake_launcher_locked(void)
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

/* ----------------------------------------------------------------
 * Demands
 * ----------------------------------------------------------------
 */

/* Caller holds the lock exclusively.  NULL when there is none and no room. */
static BbmWorkRequest *
request_find(Oid database, Oid owner, bool create)
{
	BbmWorkRequest *unused = NULL;

	for (int i = 0; i < BBM_MAX_REQUESTS; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];

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

	/* With no room, a settled demand is one that only an event or a look can wake again. */
	for (int i = 0; unused == NULL && i < BBM_MAX_REQUESTS; i++)
	{
		if (bbm_shared->requests[i].due == DT_NOEND)
			unused = &bbm_shared->requests[i];
	}
	if (unused == NULL)
	{
		bbm_shared->discover_everywhere = true;
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
 * Something of this owner's may have become runnable.  Called after commit, so
 * it must not fail; does not need a transaction.
 */
void
bbm_request_announce(Oid database, Oid owner)
{
	BbmWorkRequest *request;
	int			working = 0;

	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < bbm_max_workers; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && slot->database == database && slot->owner == owner)
			working++;
	}
	request = request_find(database, owner, true);
	if (request)
	{
		request->generation++;
		/* those that work may be in long batches, so one more; it leaves if there is nothing for it */
		request->wanted = Max(request->wanted, working + 1);
		request->due = BBM_DUE_NOW;
		request->failures = 0;
		request->not_before = 0;
	}
	/* workers of this owner may be waiting for a retry: let them look sooner */
	for (int i = 0; i < bbm_shared->nslots; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && slot->latch && slot->database == database && slot->owner == owner)
			SetLatch(slot->latch);
	}
	wake_launcher_locked();
	LWLockRelease(bbm_shared->lock);
}

/*
 * A look has found work of this owner's.  That is no event: after workers that
 * died, the back-off stays.
 */
void
bbm_request_found(Oid database, Oid owner)
{
	BbmWorkRequest *request;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, true);
	if (request && request->due > GetCurrentTimestamp())
	{
		request->generation++;
		request->wanted = Max(request->wanted, 1);
		request->due = BBM_DUE_NOW;
	}
	wake_launcher_locked();
	LWLockRelease(bbm_shared->lock);
}

/* A look has found that nobody can work for this owner. */
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

/* Only these databases can be connected to. */
void
bbm_requests_keep(List *databases)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BBM_MAX_REQUESTS; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];

		if (request->in_use && !list_member_oid(databases, request->database))
			request->in_use = false;
	}
	LWLockRelease(bbm_shared->lock);
}

/* Events so far; read before looking into the tables, handed back to bbm_request_fulfil. */
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
		/* also for a worker that has looked before this, and is about to settle and leave */
		request->generation++;
		if (request->wanted < wanted)
		{
			request->wanted = wanted;
			request->due = BBM_DUE_NOW;
			wake_launcher_locked();
		}
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * A worker that found nothing to do until "due" says so before it leaves.  An
 * event since it looked (more wakes than it saw) overrules it.
 */
void
bbm_request_fulfil(Oid database, Oid owner, uint64 generation, TimestampTz due)
{
	BbmWorkRequest *request;

	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request = request_find(database, owner, false);
	if (request && request->generation == generation)
	{
		int			others = 0;

		for (int i = 0; i < bbm_shared->nslots; i++)
		{
			BbmSlot    *slot = &bbm_shared->slots[i];

			if (slot->in_use && i != my_slot && !slot->yields && slot->kind == BBM_KIND_WORKER &&
				slot->database == database && slot->owner == owner)
				others++;
		}
		request->failures = 0;
		/* those still at work keep theirs; I am not wanted */
		request->wanted = Max(others, 1);
		request->due = others > 0 ? Min(request->due, due) : due;
	}
	LWLockRelease(bbm_shared->lock);
}

/* What was to be waited for may have changed: those that are due later are due now. */
void
bbm_requests_reconsider(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BBM_MAX_REQUESTS; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];

		if (request->in_use && request->due != DT_NOEND)
			request->due = Min(request->due, now);
	}
	LWLockRelease(bbm_shared->lock);
}

/* Have a scout look into a database. */
void
bbm_request_discovery(Oid database)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	request_discovery_locked(database);
	wake_launcher_locked();
	LWLockRelease(bbm_shared->lock);
}

/*
 * Wakes those who wait for a migration or a batch to end, and the processes in
 * this database that wait for their turn.
 */
void
bbm_state_changed(void)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < bbm_shared->nslots; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && i != my_slot && slot->latch && slot->waiting_on.text[0] != '\0' &&
			slot->database == MyDatabaseId)
			SetLatch(slot->latch);
	}
	LWLockRelease(bbm_shared->lock);
	ConditionVariableBroadcast(&bbm_shared->changed);
}

/* Wakes those who wait for a batch to end, if there are any: it happens often. */
void
bbm_batch_ended(void)
{
	if (bbm_shared && bbm_shared->batch_waiters > 0)
		ConditionVariableBroadcast(&bbm_shared->changed);
}

/* This session begins, or has ended, to wait for batches to end. */
void
bbm_await_batches(bool begin)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->batch_waiters += begin ? 1 : -1;
	LWLockRelease(bbm_shared->lock);
}

/* ----------------------------------------------------------------
 * Slots
 * ----------------------------------------------------------------
 */

/* Caller holds the lock exclusively.  Returns -1 when the kind's share is used up. */
static int
slot_find_unused(BbmKind kind)
{
	bool		worker = kind == BBM_KIND_WORKER || kind == BBM_KIND_LAUNCHED;
	int			first = worker ? 0 : bbm_max_workers;
	int			last = worker ? bbm_max_workers : bbm_shared->nslots;

	for (int i = first; i < last; i++)
	{
		if (!bbm_shared->slots[i].in_use)
			return i;
	}
	return -1;
}

/* Caller holds the lock exclusively. */
static void
slot_fill(BbmSlot *slot, BbmKind kind, Oid database, Oid owner)
{
	uint32		generation = slot->generation + 1;

	memset(slot, 0, sizeof(BbmSlot));
	slot->generation = generation;
	slot->in_use = true;
	slot->kind = kind;
	slot->database = database;
	slot->owner = owner;
	slot->since = GetCurrentTimestamp();
}

/* For the launcher: a slot for a process about to be started, or -1. */
int
bbm_slot_reserve(BbmKind kind, Oid database, Oid owner, uint32 *generation)
{
	int			i;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	i = slot_find_unused(kind);
	if (i >= 0)
	{
		slot_fill(&bbm_shared->slots[i], kind, database, owner);
		*generation = bbm_shared->slots[i].generation;
	}
	LWLockRelease(bbm_shared->lock);
	return i;
}

/* For the launcher: the process never came. */
void
bbm_slot_cancel_reservation(int i, uint32 generation)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	if (bbm_shared->slots[i].in_use && bbm_shared->slots[i].generation == generation &&
		bbm_shared->slots[i].pid == 0)
		bbm_shared->slots[i].in_use = false;
	LWLockRelease(bbm_shared->lock);
}

/* How many workers more there may be. */
int
bbm_slots_unused(void)
{
	int			n = 0;

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < bbm_max_workers; i++)
		n += !bbm_shared->slots[i].in_use;
	LWLockRelease(bbm_shared->lock);
	return n;
}

static void
slot_on_exit(int code, Datum arg)
{
	bbm_slot_release(false);
}

/*
 * A started process takes the slot that was reserved for it.  False when it is
 * not wanted any more.  Before connecting to a database, so that the slot is
 * given back whatever happens on the way.
 */
bool
bbm_slot_attach(int i, uint32 generation, Oid *database, Oid *owner)
{
	BbmSlot    *slot;
	bool		wanted;

	if (bbm_shared == NULL || i < 0 || i >= bbm_shared->nslots)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	slot = &bbm_shared->slots[i];
	wanted = slot->in_use && slot->generation == generation && slot->pid == 0 && !slot->leave;
	if (wanted)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		*database = slot->database;
		*owner = slot->owner;
		my_slot = i;
		my_generation = generation;
	}
	LWLockRelease(bbm_shared->lock);
	if (wanted)
		before_shmem_exit(slot_on_exit, (Datum) 0);
	return wanted;
}

/* A session makes itself seen; false when all slots of its kind are taken, which does no harm. */
bool
bbm_slot_take(BbmKind kind, Oid owner)
{
	static bool registered = false;
	int			i;

	if (bbm_shared == NULL)
		return false;
	if (!registered)
	{
		before_shmem_exit(slot_on_exit, (Datum) 0);
		registered = true;
	}
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	i = slot_find_unused(kind);
	if (i >= 0)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		slot_fill(slot, kind, MyDatabaseId, owner);
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->connected = true;
		my_slot = i;
		my_generation = slot->generation;
	}
	LWLockRelease(bbm_shared->lock);
	return i >= 0;
}

/*
 * Caller holds the lock exclusively.  What a death without a word means: there
 * is work left, and the next one to try waits a little, also because the dead
 * process's locks may still be there.
 */
static void
request_backs_off(BbmSlot *slot)
{
	BbmWorkRequest *request = request_find(slot->database, slot->owner, true);
	TimestampTz now = GetCurrentTimestamp();
	int			delay;

	if (request == NULL)
		return;
	/* it cannot even log in: a superuser's look tells whether that is for good */
	if (!slot->connected && request->failures == 2)
		request_discovery_locked(slot->database);
	delay = BBM_FIRST_BACKOFF_MS << Min(request->failures, 11);
	delay = Min(delay, BBM_LAST_BACKOFF_MS);
	request->failures++;
	request->wanted = Max(request->wanted, 1);
	request->due = BBM_DUE_NOW;
	request->not_before = TimestampTzPlusMilliseconds(now, delay);
}

/*
 * Gives the slot back.  "clean" is the process's word that it has said what is
 * left to do; otherwise the demand comes due again, with a back-off.
 */
void
bbm_slot_release(bool clean)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	slot = &bbm_shared->slots[my_slot];
	if (slot->in_use && slot->generation == my_generation)
	{
		if (!clean && slot->kind != BBM_KIND_DISCOVERY)
			request_backs_off(slot);
		slot->in_use = false;
		slot->latch = NULL;
		slot->pid = 0;
	}
	my_slot = -1;
	wake_launcher_locked();
	LWLockRelease(bbm_shared->lock);
	ConditionVariableBroadcast(&bbm_shared->changed);
}

void
bbm_slot_connected(void)
{
	if (bbm_shared == NULL || my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->slots[my_slot].connected = true;
	LWLockRelease(bbm_shared->lock);
}

/* Puts down what this process works on; "what" is what it waits for with that (NULL: nothing). */
static void
slot_report(int64 migration_id, int64 job_id, const char *what, TimestampTz due)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	slot = &bbm_shared->slots[my_slot];
	slot->migration_id = migration_id;
	slot->job_id = job_id;
	slot->since = GetCurrentTimestamp();
	slot->waiting_on.text[0] = '\0';
	if (what)
		bbm_outlasts(&slot->waiting_on, due, what);
	slot->blocked.count = 0;
	LWLockRelease(bbm_shared->lock);
}

/* What this process works on: a migration, a job, or (0) neither. */
void
bbm_slot_report(int64 migration_id, int64 job_id)
{
	slot_report(migration_id, job_id, NULL, 0);
}

/* It is at a migration and waits, for what and until when: in one, so that nobody takes it for at work. */
void
bbm_slot_wait_with(int64 migration_id, const char *what, TimestampTz due)
{
	slot_report(migration_id, 0, what, due);
}

/* What it waits for with what it has reported last; "" when it does not any more. */
void
bbm_slot_wait(const char *what, TimestampTz due)
{
	BbmReason  *waiting_on;

	if (bbm_shared == NULL || my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	waiting_on = &bbm_shared->slots[my_slot].waiting_on;
	waiting_on->text[0] = '\0';
	bbm_outlasts(waiting_on, due, what);
	LWLockRelease(bbm_shared->lock);
}

/*
 * The lock that this process waits for, or (NULL) that it does not any more.  With
 * "wait" false for a signal handler: false when it could not be written now.
 */
bool
bbm_slot_blocked(const BbmBlockers *blockers, bool wait)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || my_slot < 0)
		return true;
	slot = &bbm_shared->slots[my_slot];
	/* nobody else writes it */
	if (blockers == NULL && slot->blocked.count == 0)
		return true;
	if (wait)
		LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	else if (!LWLockConditionalAcquire(bbm_shared->lock, LW_EXCLUSIVE))
		return false;
	if (blockers)
		slot->blocked = *blockers;
	else
		slot->blocked.count = 0;
	LWLockRelease(bbm_shared->lock);
	return true;
}

bool
bbm_slot_must_exit(void)
{
	bool		leave;

	if (bbm_shared == NULL || my_slot < 0)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	leave = bbm_shared->slots[my_slot].leave;
	LWLockRelease(bbm_shared->lock);
	return leave;
}

/*
 * Processes that count against bbm.max_workers: of an owner in all databases, and
 * in one of them.  Caller holds the lock.
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

	for (int i = 0; i < bbm_max_workers; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (!slot->in_use || slot->yields || slot->owner != owner)
			continue;
		share.of_owner++;
		if (slot->database == database)
			share.there++;
	}
	return share;
}

/* Whose turn comes first: who has fewer workers in all, and then in that database. */
static int
compare_shares(Share a, Share b)
{
	return a.of_owner != b.of_owner ? a.of_owner - b.of_owner : a.there - b.there;
}

/*
 * Would mine still not be the smaller share if one of its workers left for one of
 * the other's?  The last worker leaves for somebody who has none: where there
 * are more owners than slots they take turns.
 */
static bool
yields_to(const BbmSlot *mine, Share my, const BbmWorkRequest *request, Share other)
{
	if (request->owner != mine->owner)
		return other.of_owner == 0 || my.of_owner - other.of_owner >= 2;
	return other.there == 0 || my.there - other.there >= 2;
}

/* Has no owner a larger share than this one? */
static bool
is_largest_share(Share my)
{
	for (int i = 0; i < bbm_max_workers; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && !slot->yields && share_of(slot->database, slot->owner).of_owner > my.of_owner)
			return false;
	}
	return true;
}

/*
 * Slots that are free, or will be in a moment: of processes that are about to
 * leave and, for one that works, of those that have just come and may find
 * nothing to do.
 */
static int
free_slots(bool works, TimestampTz now)
{
	int			n = 0;

	for (int i = 0; i < bbm_max_workers; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (!slot->in_use || slot->yields ||
			(works && i != my_slot && slot->job_id == 0 &&
			 now < TimestampTzPlusMilliseconds(slot->since, BBM_MOMENT_MS)))
			n++;
	}
	return n;
}

/*
 * Is there due work for which all slots are taken, and is this worker's the one
 * to go?  One that waits ("works" is false) goes for whoever could work; one that
 * works, where the other's share is smaller than its own.  Then its slot counts as
 * free from here on, so that it is the only one to go.
 */
bool
bbm_slot_is_wanted(bool works)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmSlot    *mine;
	Share		my;
	int			missing = 0;

	if (bbm_shared == NULL || my_slot < 0 || my_slot >= bbm_max_workers)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	mine = &bbm_shared->slots[my_slot];
	my = share_of(mine->database, mine->owner);
	if (!works || is_largest_share(my))
		missing = -free_slots(works, now);
	for (int i = 0; i < BBM_MAX_REQUESTS && missing <= 0; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];
		Share		other;

		if (!request->in_use || request->due > now || request->not_before > now ||
			(request->database == mine->database && request->owner == mine->owner))
			continue;
		other = share_of(request->database, request->owner);
		if (other.there < request->wanted && (!works || yields_to(mine, my, request, other)))
			missing++;
	}
	mine->yields = missing > 0;
	LWLockRelease(bbm_shared->lock);
	return missing > 0;
}

/* There is work, and perhaps no slot for it: those that only wait are to see whether theirs is wanted. */
void
bbm_slots_wake_waiting(void)
{
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < bbm_max_workers; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && slot->latch && slot->job_id == 0 && slot->waiting_on.text[0] != '\0')
			SetLatch(slot->latch);
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * The due demand with the fewest workers, of those that want more, and among
 * equals the one that was served longest ago; false when there is none.  *needed:
 * no worker is at it.  *wait is lowered to the next time one comes due.
 */
bool
bbm_request_next(Oid *database, Oid *owner, bool *needed, TimestampTz *wait)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmWorkRequest *next = NULL;
	Share		fewest = {0, 0};

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < BBM_MAX_REQUESTS; i++)
	{
		BbmWorkRequest *request = &bbm_shared->requests[i];
		TimestampTz when = bbm_time_has_come(now, request->not_before, BBM_LAST_BACKOFF_MS) ?
			request->due : Max(request->due, request->not_before);
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

/* Other processes at this migration of this database, or with 0 at a job of any migration anywhere. */
static int
count_others(int64 migration_id)
{
	int			n = 0;

	if (bbm_shared == NULL)
		return 0;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < bbm_shared->nslots; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (slot->in_use && i != my_slot &&
			(migration_id == 0 ? slot->job_id != 0 :
			 slot->database == MyDatabaseId && slot->migration_id == migration_id))
			n++;
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}

/* Other processes that have a job, in any database; some may rest before it begins. */
int
bbm_slots_with_job(void)
{
	return count_others(0);
}

/* Other processes that are at a migration of this database. */
int
bbm_slots_on(int64 migration_id)
{
	return count_others(migration_id);
}

/* ----------------------------------------------------------------
 * Databases that must be free of workers for a moment
 * ----------------------------------------------------------------
 */

/*
 * Asks the background processes in a database to give their batch back and
 * leave; returns how many are still there.  To be called again until none is:
 * a signal may come a moment before the batch it was to end.  With "terminate"
 * they are not asked any more.  A foreground session is the user's and is left alone.
 */
int
bbm_database_ask_to_exit(Oid database, bool terminate)
{
	int			n = 0;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < bbm_shared->nslots; i++)
	{
		BbmSlot    *slot = &bbm_shared->slots[i];

		if (!slot->in_use || slot->database != database || slot->kind == BBM_KIND_FOREGROUND ||
			i == my_slot)
			continue;
		n++;
		slot->leave = true;
		/* one that is still connecting looks at its slot when it has */
		if (slot->pid != 0 && slot->connected)
		{
			/* ends the statement it is in; between statements the latch is enough */
			kill(slot->pid, terminate ? SIGTERM : SIGINT);
			if (slot->latch)
				SetLatch(slot->latch);
		}
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}
