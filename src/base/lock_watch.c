/*-------------------------------------------------------------------------
 *
 * lock_watch.c
 *		Watching the batch in flight: does it block others?
 *
 * NOTES
 *	  A batch runs inside SPI and cannot check anything meanwhile, and a
 *	  session that waits for its locks wakes nobody.  So the process that runs
 *	  the batch checks by itself, from a timer: in a worker that the launcher
 *	  or bbm_launch_worker() has started and in a foreground session alike,
 *	  with or without preloading.  No other process has to be informed, so no
 *	  signal can come late and hit the wrong batch.  The timer runs only while
 *	  batches do.
 *
 *	  The check runs in the handler of SIGALRM, which must not disturb what it
 *	  interrupts.  Nothing else could make it: a batch is one statement, whose
 *	  executor has no hook that is called while it runs; and another process
 *	  would have to wake up for each batch, exists only with preloading, and
 *	  its cancel could hit the next batch.  It disturbs nothing, on 15 to 19:
 *
 *	  1. It is made only where handle_sig_alarm() alone, once, holds interrupts
 *	  off, and not in a critical section.  Each function of lwlock.c that
 *	  changes an LWLock, its queue or the list of those held does so with
 *	  interrupts held off, from before its first change until after its last,
 *	  and LWLockAcquire() keeps them so for as long as the lock is held.  So
 *	  what was interrupted holds no LWLock and is in none of these functions.
 *
 *	  2. There is one exception: errfinish() ends all holding off, and the
 *	  LWLocks stay held until LWLockReleaseAll(), which AbortTransaction() and
 *	  AbortSubTransaction() call with interrupts held off again.  Those that
 *	  are held exclusively are not free for the check.  It acquires those that
 *	  are held shared a second time, and releases only that second hold:
 *	  LWLockRelease() searches from the latest.  No error is raised in the
 *	  middle of a change of a list.
 *
 *	  3. It takes LWLocks only if they are free, and otherwise tries again a
 *	  moment later: it waits for nothing, so there is no deadlock in whatever
 *	  order it takes them.  To wake a process that waits for one it posts a
 *	  semaphore, as a signal handler may.
 *
 *	  4. The lists of locks and of waiters, and what is read of them, change
 *	  only under the LWLock of their partition, also for our own locks.  Local
 *	  structures (LOCALLOCK, resource owners), which change without, are not
 *	  read.
 *
 *	  5. It takes no spinlock, so it does not matter if what was interrupted
 *	  holds one; a process that waits for that one waits some microseconds
 *	  more.  The bit that locks an LWLock's queue is set by lwlock.c only: see
 *	  1.
 *
 *	  6. It allocates no memory, so what was interrupted may be in malloc().
 *	  It raises no error: LWLockConditionalAcquire() would if 200 were held.
 *
 *	  7. A process that exits has called proc_exit_prepare(), which holds
 *	  interrupts off for good, before its PGPROC goes.
 *
 *	  036_lock_watch makes the check at the moments of 1, 2 and 5.
 *
 *	  The check can only do what a SIGINT does: a cancel at the next
 *	  CHECK_FOR_INTERRUPTS. A job that catches it is cancelled again while it
 *	  keeps blocking others, which cannot last long: cancel.c.
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

/* A check that could not be made is tried again at the next tick. */
#define BBM_TICK_MS 20
/* The longest time between two checks, well below the deadlock_timeout of other sessions. */
#define BBM_POLL_MS 100

static TimeoutId ticker = MAX_TIMEOUTS;

/* The batch writes these, the handler reads them. */
static volatile sig_atomic_t watching = false;
static volatile sig_atomic_t yielding = false;	/* one of our transactions, batch or not, is open */
static bool ticks_for_batches = false;	/* the timer stays on from one batch to the next */
static volatile TimestampTz batch_start;
static volatile TimestampTz next_poll;
static volatile int max_blocking_time;	/* ms, 0 off */
static volatile int max_batch_time;

/* The handler writes this. */
static volatile sig_atomic_t stop = BBM_STOP_NONE;

/* What a check has found so far. */
typedef struct LockPoll
{
	TimestampTz now;
	int64		limit_us;		/* a longer wait is too long; 0: none is */
	bool		complete;		/* no lock partition was busy */
	bool		awaited;		/* somebody waits for us */
	bool		too_long;		/* ... who is not of bbm, and has waited too long */
} LockPoll;

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
 * Is this waiter a process of bbm?  The caller holds the LWLock of the
 * partition it waits in, so the waiter stays; the other LWLocks are taken one
 * by one.
 */
static bool
is_ours(LockPoll *poll, PGPROC *waiter, int partition)
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
			/* not known: treated as ours until the next check */
			poll->complete = false;
			return true;
		}
		ours = has_worker_id(proc, i);
		LWLockRelease(lwlock);
	}
	return ours;
}

/*
 * Who waits for a lock that we hold, directly or behind another waiter?  A
 * wait that began before this batch is not caused by this batch: it is for a
 * lock that a job has left in its session, which ending the batch would not
 * release.  The caller holds the LWLock of the lock's partition.
 */
static void
check_lock(LockPoll *poll, PROCLOCK *mine, int partition)
{
	LOCK	   *lock = mine->tag.myLock;
	const LOCKMASK *conflicts = GetLocksMethodTable(lock)->conflictTab;
	LOCKMASK	in_the_way = mine->holdMask;

	/* in the order of their arrival */
	for (PROCLOCK *other = bbm_next_of_lock(lock, NULL); other; other = bbm_next_of_lock(lock, other))
	{
		PGPROC	   *waiter = other->tag.myProc;
		TimestampTz since;

		if (waiter == MyProc || waiter->waitProcLock != other ||
			(conflicts[waiter->waitLockMode] & in_the_way) == 0)
			continue;
		in_the_way |= LOCKBIT_ON(waiter->waitLockMode);
		poll->awaited = true;
		/* zero at first */
		since = (TimestampTz) pg_atomic_read_u64(&waiter->waitStart);
		if (since >= batch_start && poll->limit_us > 0 && poll->now >= since + poll->limit_us &&
			!is_ours(poll, waiter, partition))
			poll->too_long = true;
	}
}

static void
discover(LockPoll *poll)
{
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		LWLock	   *lwlock = LockHashPartitionLockByIndex(i);

		if (!LWLockConditionalAcquire(lwlock, LW_SHARED))
		{
			poll->complete = false;
			continue;
		}
		for (PROCLOCK *mine = bbm_next_of_proc(MyProc, i, NULL); mine; mine = bbm_next_of_proc(MyProc, i, mine))
		{
			if (mine->holdMask != 0 && mine->tag.myLock->waitMask != 0)
				check_lock(poll, mine, i);
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

/* The time between two checks. */
static int
discovery_interval(void)
{
	return watching && max_blocking_time > 0 ? Max(Min(max_blocking_time / 10, BBM_POLL_MS), 1) : BBM_POLL_MS;
}

/* Runs in a signal handler: see the notes above. */
static void
tick(void)
{
	LockPoll	poll = {.complete = true};

	if (!watching && !yielding)
		return;
	poll.now = GetCurrentTimestamp();
	if (watching && max_batch_time > 0 && poll.now >= TimestampTzPlusMilliseconds(batch_start, max_batch_time))
	{
		stop_batch(BBM_STOP_TIME);
		return;
	}
	/* the timer's own handler holds interrupts off once */
	if (InterruptHoldoffCount > 1 || CritSectionCount > 0)
		return;
	bbm_blockers_poll();
	if (poll.now < next_poll)
		return;
	poll.limit_us = (int64) max_blocking_time * 1000;
	discover(&poll);
	if (poll.complete)
		next_poll = TimestampTzPlusMilliseconds(poll.now, discovery_interval());
	if (poll.too_long && watching)
		stop_batch(BBM_STOP_BLOCKING);

	/*
	 * We wait, and somebody waits for us: perhaps only since our own deadlock
	 * check.  Checking again makes us the victim, before the others check.
	 */
	else if (poll.awaited && MyProc->waitLock != NULL)
		CheckDeadLockAlert();
}

static void
start_ticking(void)
{
	TimestampTz due;

	if (ticker == MAX_TIMEOUTS)
		ticker = RegisterTimeout(USER_TIMEOUT, tick);
	due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_TICK_MS);
	/* an error may have turned it off; and a clock that was set back puts it off, as the server's timers go by it */
	if (!get_timeout_active(ticker) || get_timeout_finish_time(ticker) > due)
		enable_timeout_every(ticker, due, BBM_TICK_MS);
}

/*
 * A transaction of ours begins.  From here to bbm_yield_end, while it waits
 * and others wait for it, the check for a deadlock is repeated, so that we are
 * the victim; and its blockers are recorded.  A batch is watched for more than
 * that.
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

/* The transaction has ended, with or without an error.  May be called again. */
void
bbm_yield_end(void)
{
	yielding = false;
	if (!ticks_for_batches && ticker != MAX_TIMEOUTS && get_timeout_active(ticker))
		disable_timeout(ticker, false);
}

/*
 * A batch begins.  From here to bbm_lock_watch_end it may be cancelled for
 * letting others wait for longer than blocking_limit, or for taking longer
 * than batch_limit itself; both in milliseconds, and 0 is no limit.  Called at
 * the beginning of its transaction, before it locks anything.
 */
void
bbm_lock_watch_begin(int blocking_limit, int batch_limit)
{
	max_blocking_time = blocking_limit;
	max_batch_time = batch_limit;
	stop = BBM_STOP_NONE;
	batch_start = GetCurrentTimestamp();
	watching = true;
	next_poll = TimestampTzPlusMilliseconds(batch_start, discovery_interval());
	/* the timer stays on from one batch to the next */
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
 * The batch has ended, with or without an error.  If it was stopped too late
 * then it is done, and a cancel that is still pending is withdrawn, since it
 * must not hit the commit or what follows.  A cancel by somebody else at the
 * same moment is lost with it.  May be called again.
 */
void
bbm_lock_watch_end(void)
{
	watching = false;
	if (stop != BBM_STOP_NONE)
		QueryCancelPending = false;
}

/*
 * Does a session that is not of bbm wait for our locks, and has waited since
 * the batch began for more than so many microseconds?  Called when the batch
 * is done, while its locks are held; the timer, which checks the same,
 * may fire meanwhile.
 */
bool
bbm_lock_watch_blocks(int64 us)
{
	LockPoll		poll = {.now = GetCurrentTimestamp(), .limit_us = us, .complete = true};

	discover(&poll);
	return poll.too_long;
}

/* Returns whether the last batch was stopped, and why; resets that. */
BbmLockWatchStop
bbm_lock_watch_outcome(void)
{
	BbmLockWatchStop why;

	bbm_lock_watch_end();
	why = (BbmLockWatchStop) stop;
	stop = BBM_STOP_NONE;
	return why;
}

/* No batch follows immediately: ticks must not wake a process that waits. */
void
bbm_lock_watch_pause(void)
{
	watching = ticks_for_batches = false;
	if (!yielding && ticker != MAX_TIMEOUTS && get_timeout_active(ticker))
		disable_timeout(ticker, false);
}
