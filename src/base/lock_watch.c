/*-------------------------------------------------------------------------
 *
 * lock_watch.c
 *		Watching the batch in flight: is it in anybody's way?
 *
 * NOTES
 *	  A batch runs inside SPI and cannot look around, and whoever waits for its
 *	  locks wakes nobody.  So the process that runs it looks by itself, from a
 *	  timer: in a worker of the launcher's, in one of bbm_launch_worker() and
 *	  in a foreground session alike, with or without preloading.  There is no
 *	  other process to be told, and so no signal that comes late and hits the
 *	  wrong batch.  The timer runs only while batches do.
 *
 *	  The look happens in the handler of SIGALRM, which must disturb nothing
 *	  that it interrupts.  It allocates nothing, raises nothing and waits for
 *	  nothing.  It looks only where no interrupts are held off, hence no LWLock
 *	  is held or being taken by this process, and the lists of its locks, which
 *	  change under their partition's LWLock alone, are whole.  It takes those
 *	  LWLocks in shared mode, if they are free just now (also an error that
 *	  left one held is harmless so), and otherwise tries again a moment later.
 *	  The rest of the code takes a spinlock for a few instructions only, and
 *	  the look takes none.
 *
 *	  What the look leads to is what a SIGINT leads to, and nothing else: a
 *	  cancel at the next CHECK_FOR_INTERRUPTS.  A job that catches it is
 *	  cancelled again while it stays in the way, and not for long: cancel.c.
 *
 *-------------------------------------------------------------------------
 */
#include "base/lock_watch.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/blockers.h"
#include "base/compat.h"
#include "base/locks.h"

/* A look that could not be taken is tried again at the next tick. */
#define BBM_TICK_MS 20
/* Two looks are this far apart at most, well under the deadlock_timeout of others. */
#define BBM_POLL_MS 100

static TimeoutId ticker = MAX_TIMEOUTS;

/* Written by the batch, read by the handler. */
static volatile sig_atomic_t watching = false;
static volatile sig_atomic_t yielding = false;	/* a transaction of ours, batch or not, is open */
static bool ticks_for_batches = false;	/* the timer stays on from one batch to the next */
static volatile TimestampTz begun;
static volatile TimestampTz next_poll;
static volatile int max_blocking_time;	/* ms, 0 off */
static volatile int max_batch_time;

/* Written by the handler. */
static volatile sig_atomic_t stop = BBM_STOP_NONE;

/* What a look has seen so far. */
typedef struct Look
{
	TimestampTz now;
	bool		complete;		/* no partition was busy */
	bool		awaited;		/* somebody waits for us */
	bool		too_long;		/* ... who is not ours, and has for too long */
} Look;

/* Caller holds the partition's LWLock. */
static bool
has_worker_id(PGPROC *proc, int partition)
{
	for (PROCLOCK *held = bbm_next_of_proc(proc, partition, NULL); held; held = bbm_next_of_proc(proc, partition, held))
	{
		if (bbm_lock_is_worker_id(&held->tag.myLock->tag))
			return true;
	}
	return false;
}

/*
 * Is this waiter a process of bbm's?  Caller holds the LWLock of the partition
 * it waits in, so that it stays; the others are taken one by one.
 */
static bool
is_ours(Look *look, PGPROC *waiter, int partition)
{
	PGPROC	   *proc = waiter->lockGroupLeader ? waiter->lockGroupLeader : waiter;
	bool		ours = proc == MyProc || has_worker_id(proc, partition);

	for (int i = 0; i < NUM_LOCK_PARTITIONS && !ours; i++)
	{
		LWLock	   *lwlock = LockHashPartitionLockByIndex(i);

		if (i == partition)
			continue;
		if (!LWLockConditionalAcquire(lwlock, LW_SHARED))
		{
			/* not known: as good as ours, until the next look */
			look->complete = false;
			return true;
		}
		ours = has_worker_id(proc, i);
		LWLockRelease(lwlock);
	}
	return ours;
}

/*
 * Who waits for a lock that we hold?  Also who waits behind one that does.  A
 * wait that began before this batch is not this batch's doing: it is for what
 * a job has left locked in its session, which giving the batch up would not
 * unlock.  Caller holds the LWLock of the lock's partition.
 */
static void
check_lock(Look *look, PROCLOCK *mine, int partition)
{
	LOCK	   *lock = mine->tag.myLock;
	const LOCKMASK *conflicts = GetLocksMethodTable(lock)->conflictTab;
	LOCKMASK	in_the_way = mine->holdMask;

	/* in the order in which they came */
	for (PROCLOCK *other = bbm_next_of_lock(lock, NULL); other; other = bbm_next_of_lock(lock, other))
	{
		PGPROC	   *waiter = other->tag.myProc;
		TimestampTz since;

		if (waiter == MyProc || waiter->waitProcLock != other ||
			(conflicts[waiter->waitLockMode] & in_the_way) == 0)
			continue;
		in_the_way |= LOCKBIT_ON(waiter->waitLockMode);
		look->awaited = true;
		/* zero for the first moment */
		since = (TimestampTz) pg_atomic_read_u64(&waiter->waitStart);
		if (since >= begun && max_blocking_time > 0 &&
			look->now >= TimestampTzPlusMilliseconds(since, max_blocking_time) &&
			!is_ours(look, waiter, partition))
			look->too_long = true;
	}
}

static void
discover(Look *look)
{
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		LWLock	   *lwlock = LockHashPartitionLockByIndex(i);

		if (!LWLockConditionalAcquire(lwlock, LW_SHARED))
		{
			look->complete = false;
			continue;
		}
		for (PROCLOCK *mine = bbm_next_of_proc(MyProc, i, NULL); mine; mine = bbm_next_of_proc(MyProc, i, mine))
		{
			if (mine->holdMask != 0 && mine->tag.myLock->waitMask != 0)
				check_lock(look, mine, i);
		}
		LWLockRelease(lwlock);
	}
}

static void
stop_batch(BbmLockWatchStop why)
{
	stop = why;
	InterruptPending = true;
	QueryCancelPending = true;
}

/* Two looks are this far apart. */
static int
discovery_interval(void)
{
	return watching && max_blocking_time > 0 ? Max(Min(max_blocking_time / 10, BBM_POLL_MS), 1) : BBM_POLL_MS;
}

/* In a signal handler: see the notes above. */
static void
tick(void)
{
	Look		look = {.complete = true};

	if (!watching && !yielding)
		return;
	look.now = GetCurrentTimestamp();
	if (watching && max_batch_time > 0 && look.now >= TimestampTzPlusMilliseconds(begun, max_batch_time))
	{
		stop_batch(BBM_STOP_TIME);
		return;
	}
	/* the timer's own handler holds interrupts off once */
	if (InterruptHoldoffCount > 1 || CritSectionCount > 0)
		return;
	bbm_blockers_poll();
	if (look.now < next_poll)
		return;
	discover(&look);
	if (look.complete)
		next_poll = TimestampTzPlusMilliseconds(look.now, discovery_interval());
	if (look.too_long && watching)
		stop_batch(BBM_STOP_BLOCKING);

	/*
	 * We wait, and somebody waits for us: perhaps since after our own check
	 * for a deadlock.  Checking again makes us the victim, before the other
	 * checks.
	 */
	else if (look.awaited && MyProc->waitLock != NULL)
		CheckDeadLockAlert();
}

static void
start_ticking(void)
{
	if (ticker == MAX_TIMEOUTS)
		ticker = RegisterTimeout(USER_TIMEOUT, tick);
	/* an error may have turned it off */
	if (!get_timeout_active(ticker))
		enable_timeout_every(ticker, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_TICK_MS), BBM_TICK_MS);
}

/*
 * A transaction of ours begins: from here to bbm_yield_end a wait in it that
 * others wait for, in turn, is checked for a deadlock again and again, so that
 * we are the victim; and who is in the way of it is noted.  A batch is watched
 * for more than that.
 */
void
bbm_yield_begin(void)
{
	if (!watching)
		next_poll = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_POLL_MS);
	if (!yielding)
		bbm_blockers_begin();
	yielding = true;
	start_ticking();
}

/* It has ended, well or not.  May be called again. */
void
bbm_yield_end(void)
{
	yielding = false;
	if (!ticks_for_batches && ticker != MAX_TIMEOUTS && get_timeout_active(ticker))
		disable_timeout(ticker, false);
}

/*
 * A batch begins: from here to bbm_lock_watch_end it may be cancelled for being in
 * the way: for letting others wait longer, or taking longer itself, than so many
 * milliseconds, of which 0 is no limit.  At the beginning of its transaction,
 * before it locks anything.
 */
void
bbm_lock_watch_begin(int blocking_limit, int batch_limit)
{
	max_blocking_time = blocking_limit;
	max_batch_time = batch_limit;
	stop = BBM_STOP_NONE;
	begun = GetCurrentTimestamp();
	watching = true;
	next_poll = TimestampTzPlusMilliseconds(begun, discovery_interval());
	/* it ticks on from one batch to the next */
	ticks_for_batches = true;
	start_ticking();
}

/* Is a batch in flight in this process? */
bool
bbm_lock_watch_is_on(void)
{
	return watching;
}

/*
 * The batch has ended, well or not.  If it was stopped too late then it is
 * done, and what remains of the cancel is taken back, since it must not hit the
 * commit or what comes after.  A cancel by somebody else in the same moment is
 * lost with it.  May be called again.
 */
void
bbm_lock_watch_end(void)
{
	watching = false;
	if (stop != BBM_STOP_NONE)
		QueryCancelPending = false;
}

/* Whether the last batch was stopped, and why; once. */
BbmLockWatchStop
bbm_lock_watch_outcome(void)
{
	BbmLockWatchStop why;

	bbm_lock_watch_end();
	why = (BbmLockWatchStop) stop;
	stop = BBM_STOP_NONE;
	return why;
}

/* No batch follows at once: whoever waits now must not be woken by ticks. */
void
bbm_lock_watch_pause(void)
{
	watching = ticks_for_batches = false;
	if (!yielding && ticker != MAX_TIMEOUTS && get_timeout_active(ticker))
		disable_timeout(ticker, false);
}
