/*-------------------------------------------------------------------------
 *
 * slots.c
 *		A slot for each process of bbm, and waking those that wait.
 *
 * NOTES
 *	  Without preloading there is no shared memory, and every function here does
 *	  nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "base/slots.h"

#include "miscadmin.h"
#include "storage/ipc.h"

#include "base/guc.h"
#include "base/requests.h"
#include "base/shared.h"
#include "base/shmem.h"

/* Caller holds the lock exclusively.  Returns -1 when all slots of this kind are taken. */
static int
slot_find_unused(BbmKind kind)
{
	bool		worker = kind == BBM_KIND_WORKER || kind == BBM_KIND_LAUNCHED;
	int			foreground_end = bbm_max_workers + BBM_FOREGROUND_SLOTS;
	int			first = worker ? 0 : kind == BBM_KIND_FOREGROUND ? bbm_max_workers : foreground_end;
	int			last = worker ? bbm_max_workers : kind == BBM_KIND_FOREGROUND ? foreground_end : bbm_shared->nslots;

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

/* For the launcher: reserves a slot for a process to be started; -1 when there is none. */
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

/* Is it still reserved for the process that was to be started then?  Caller holds the lock. */
static bool
is_reserved(const BbmSlot *slot, uint32 generation)
{
	return slot->in_use && slot->generation == generation && slot->pid == 0;
}

/* For the launcher: the process is not to be started. */
void
bbm_slot_cancel_reservation(int i, uint32 generation)
{
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	if (is_reserved(&bbm_shared->slots[i], generation))
		bbm_shared->slots[i].in_use = false;
	LWLockRelease(bbm_shared->lock);
}

/* Caller holds the lock exclusively.  A process has ended, and its work is not done: another one will come later. */
static void
died(const BbmSlot *slot)
{
	if (slot->must_exit && slot->kind == BBM_KIND_DISCOVERY)
		return;
	if (slot->kind == BBM_KIND_DISCOVERY)
		bbm_discovery_died(slot->database);
	else
		bbm_request_back_off(slot);
}

/*
 * For the launcher: the process has ended.  Perhaps before it took its slot,
 * though it was wanted: the system could not start it, for example.
 */
void
bbm_slot_stillborn(int i, uint32 generation)
{
	BbmSlot    *slot = &bbm_shared->slots[i];
	bool		stillborn;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	stillborn = is_reserved(slot, generation) && !slot->must_exit;
	if (stillborn)
		died(slot);
	if (is_reserved(slot, generation))
		slot->in_use = false;
	LWLockRelease(bbm_shared->lock);
}

static void
slot_on_exit(int code, Datum arg)
{
	bbm_slot_release(false);
}

/*
 * A started process takes the slot that was reserved for it.  False when it is
 * not wanted any more.  Called before connecting to a database, so that the
 * slot is released whatever happens meanwhile.
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
	wanted = slot->in_use && slot->generation == generation && slot->pid == 0 && !slot->must_exit;
	if (wanted)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		*database = slot->database;
		*owner = slot->owner;
		bbm_my_slot = i;
		bbm_my_generation = generation;
	}
	LWLockRelease(bbm_shared->lock);
	if (wanted)
		before_shmem_exit(slot_on_exit, (Datum) 0);
	return wanted;
}

/*
 * A session takes a slot, so that others see it; false when all slots of its
 * kind are taken, which does no harm.
 */
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
		bbm_my_slot = i;
		bbm_my_generation = slot->generation;
	}
	LWLockRelease(bbm_shared->lock);
	return i >= 0;
}

/*
 * Releases the slot.  With "clean", the process has recorded what is left to
 * do; otherwise the request becomes due again, with a back-off.
 */
void
bbm_slot_release(bool clean)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || bbm_my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	slot = &bbm_shared->slots[bbm_my_slot];
	if (slot->in_use && slot->generation == bbm_my_generation)
	{
		if (!clean)
			died(slot);
		else if (slot->kind == BBM_KIND_DISCOVERY)
			bbm_shared->discovery_failures = 0;
		slot->in_use = false;
		slot->latch = NULL;
		slot->pid = 0;
	}
	bbm_my_slot = -1;
	bbm_launcher_wake_locked();
	LWLockRelease(bbm_shared->lock);
	ConditionVariableBroadcast(&bbm_shared->changed);
}

void
bbm_slot_connected(void)
{
	if (bbm_shared == NULL || bbm_my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->slots[bbm_my_slot].connected = true;
	LWLockRelease(bbm_shared->lock);
}

/* The pace of this process.  It changes often, so it is recorded with what it works on. */
static double my_pace = 0;
static int	my_pace_why = 0;

void
bbm_slot_pace(double share, int why)
{
	my_pace = share;
	my_pace_why = why;
}

/* Records what this process works on, and what it waits for (NULL: it does not wait). */
static void
slot_report(int64 migration_id, int64 job_id, const BbmReason *reason)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || bbm_my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	slot = &bbm_shared->slots[bbm_my_slot];
	slot->migration_id = migration_id;
	slot->job_id = job_id;
	slot->since = GetCurrentTimestamp();
	slot->pace = my_pace;
	slot->pace_why = my_pace_why;
	slot->waiting_on = reason ? *reason : (BbmReason) {0};
	slot->blocked.count = 0;
	LWLockRelease(bbm_shared->lock);
}

/* Records what this process works on: a migration, a job, or (0) neither. */
void
bbm_slot_report(int64 migration_id, int64 job_id)
{
	slot_report(migration_id, job_id, NULL);
}

/* The process has a migration and waits: records both at once, so that nobody sees it as working. */
void
bbm_slot_wait_with(int64 migration_id, const BbmReason *reason)
{
	slot_report(migration_id, 0, reason);
}

/* Records what it waits for with what it has reported last; NULL: it does not wait any more. */
void
bbm_slot_wait(const BbmReason *reason)
{
	if (bbm_shared == NULL || bbm_my_slot < 0)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->slots[bbm_my_slot].pace = my_pace;
	bbm_shared->slots[bbm_my_slot].pace_why = my_pace_why;
	bbm_shared->slots[bbm_my_slot].waiting_on = reason ? *reason : (BbmReason) {0};
	LWLockRelease(bbm_shared->lock);
}

/*
 * Records the lock that this process waits for, or (NULL) that it does not
 * wait any more.  A signal handler passes "wait" as false; the result is then
 * false when the lock of the slots was not free.
 */
bool
bbm_slot_blocked(const BbmBlockers *blockers, bool wait)
{
	BbmSlot    *slot;

	if (bbm_shared == NULL || bbm_my_slot < 0)
		return true;
	slot = &bbm_shared->slots[bbm_my_slot];
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
	bool		must_exit;

	if (bbm_shared == NULL || bbm_my_slot < 0)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	must_exit = bbm_shared->slots[bbm_my_slot].must_exit;
	LWLockRelease(bbm_shared->lock);
	return must_exit;
}

/*
 * For the launcher: is a discovery at work, or has one ended whose database is
 * still to be checked?  If there are "others" to check after it, it must not
 * wait for long.
 */
bool
bbm_discovery_is_open(bool others)
{
	bool		open;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	open = OidIsValid(bbm_shared->discovery_undone);
	bbm_each_slot(slot)
	{
		if (!slot->in_use || slot->kind != BBM_KIND_DISCOVERY)
			continue;
		open = true;
		if (others && !slot->yields && slot->latch)
			SetLatch(slot->latch);
		slot->yields |= others;
	}
	LWLockRelease(bbm_shared->lock);
	return open;
}

/*
 * For a discovery that cannot check its database now: must it leave the slot to
 * the others?  Then another one tries again, after them.
 */
bool
bbm_discovery_gives_way(void)
{
	BbmSlot    *slot = &bbm_shared->slots[bbm_my_slot];
	bool		yields;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	yields = slot->yields;
	if (yields)
		bbm_shared->discovery_undone = slot->database;
	LWLockRelease(bbm_shared->lock);
	return yields;
}

/* Counts other processes on a migration of this database. */
int
bbm_slots_on(int64 migration_id)
{
	int			n = 0;

	if (bbm_shared == NULL)
		return 0;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
	{
		if (slot->in_use && !bbm_is_my_slot(slot) && slot->database == MyDatabaseId &&
			slot->migration_id == migration_id)
			n++;
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}

/*
 * The pace of a migration of this database: the mean share of the time that
 * its processes work, and why the slowest of them is as slow as it is.  Returns
 * false when there is none, or none that has done a batch.
 */
bool
bbm_slots_pace(int64 migration_id, double *share, int *why)
{
	int			n = 0;
	double		least = 0;

	*share = 0;
	if (bbm_shared == NULL)
		return false;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
	{
		if (!slot->in_use || slot->database != MyDatabaseId || slot->migration_id != migration_id || slot->pace <= 0)
			continue;
		if (n++ == 0 || slot->pace < least)
		{
			least = slot->pace;
			*why = slot->pace_why;
		}
		*share += slot->pace;
	}
	LWLockRelease(bbm_shared->lock);
	if (n > 0)
		*share /= n;
	return n > 0;
}

/* Writes the process ids of all of bbm's processes that work, up to "most"; returns how many. */
int
bbm_slots_pids(pid_t *pids, int most)
{
	int			n = 0;

	if (bbm_shared == NULL)
		return 0;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
	{
		if (slot->in_use && slot->pid != 0 && n < most)
			pids[n++] = slot->pid;
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}

/*
 * Wakes those who wait for a migration or a batch to end, and the processes in
 * this database that wait for their time slice.
 */
void
bbm_state_changed(void)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	bbm_each_slot(slot)
	{
		if (slot->in_use && !bbm_is_my_slot(slot) && slot->latch && slot->waiting_on.text[0] != '\0' &&
			slot->database == MyDatabaseId)
			SetLatch(slot->latch);
	}
	LWLockRelease(bbm_shared->lock);
	ConditionVariableBroadcast(&bbm_shared->changed);
}

/* Wakes those who wait for a batch to end, but only if there are any, since this is called often. */
void
bbm_batch_ended(void)
{
	if (bbm_shared && bbm_shared->batch_waiters > 0)
		ConditionVariableBroadcast(&bbm_shared->changed);
}

/* This session starts, or has stopped, waiting for batches to end. */
void
bbm_await_batches(bool begin)
{
	if (bbm_shared == NULL)
		return;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_shared->batch_waiters += begin ? 1 : -1;
	LWLockRelease(bbm_shared->lock);
}

/*
 * Asks the background processes in a database to requeue their batch and exit;
 * returns how many are still there.  Call it again until there is none: a
 * signal may come a moment before the batch it should end.  With "terminate"
 * they are terminated.  A foreground session belongs to the user and is not
 * touched.
 */
int
bbm_database_ask_to_exit(Oid database, bool terminate)
{
	int			n = 0;

	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	bbm_each_slot(slot)
	{
		if (!slot->in_use || slot->database != database || slot->kind == BBM_KIND_FOREGROUND ||
			bbm_is_my_slot(slot))
			continue;
		n++;
		slot->must_exit = true;
		/* a process that is still connecting checks its slot afterwards */
		if (slot->pid != 0 && slot->connected)
		{
			/* ends its current statement; between statements the latch is enough */
			kill(slot->pid, terminate ? SIGTERM : SIGINT);
			if (slot->latch)
				SetLatch(slot->latch);
		}
	}
	LWLockRelease(bbm_shared->lock);
	return n;
}
