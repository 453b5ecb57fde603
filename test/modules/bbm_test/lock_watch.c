/*-------------------------------------------------------------------------
 *
 * lock_watch.c
 *		The check of base/lock_watch.c at the worst moments.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bbm_test_hold_alarm);
PG_FUNCTION_INFO_V1(bbm_test_lock_watch);

/* Longer than a check may be put off: several ticks are due then. */
#define BBM_SLEEP_US (150 * 1000)

static void
hold_alarm(bool hold)
{
	sigset_t	alarm;

	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &alarm, NULL);
}

/* From here to bbm_test_lock_watch no check is made. */
Datum
bbm_test_hold_alarm(PG_FUNCTION_ARGS)
{
	hold_alarm(true);
	PG_RETURN_VOID();
}

/*
 * Lets the timer's signal come at this very moment: it is blocked until a check is
 * due, and delivered before sigprocmask returns.  Has the check cancelled the batch?
 */
static bool
check_now(void)
{
	TimestampTz until = GetCurrentTimestamp() + BBM_SLEEP_US;
	bool		cancelled;

	hold_alarm(true);
	/* any signal ends a sleep */
	while (GetCurrentTimestamp() < until)
		pg_usleep(BBM_SLEEP_US);
	QueryCancelPending = false;
	hold_alarm(false);
	cancelled = QueryCancelPending;
	QueryCancelPending = false;
	return cancelled;
}

/* As an error leaves it until the transaction has been aborted: LWLocks held, and no interrupts held off. */
static bool
check_after_error(LWLockMode mode)
{
	uint32		held_off = InterruptHoldoffCount;
	bool		cancelled;
	bool		kept = true;

	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
		LWLockAcquire(LockHashPartitionLockByIndex(i), mode);
	InterruptHoldoffCount = held_off;
	cancelled = check_now();
	InterruptHoldoffCount = held_off + NUM_LOCK_PARTITIONS;
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		kept = kept && LWLockHeldByMeInMode(LockHashPartitionLockByIndex(i), mode);
		LWLockRelease(LockHashPartitionLockByIndex(i));
		kept = kept && !LWLockHeldByMe(LockHashPartitionLockByIndex(i));
	}
	if (!kept)
		elog(ERROR, "a check has changed which locks are held");
	return cancelled;
}

/*
 * To be called in a batch whose locks another session has been waiting for.  Logs at
 * which moments the check has cancelled the batch, and so has been made.
 */
Datum
bbm_test_lock_watch(PG_FUNCTION_ARGS)
{
	slock_t		spinlock;
	bool		plain;
	bool		held_off;
	bool		critical;
	bool		exclusive;
	bool		shared;
	bool		spinning;

	SpinLockInit(&spinlock);
	plain = check_now();

	/* so does each function of lwlock.c begin: half of what it does is done */
	HOLD_INTERRUPTS();
	held_off = check_now();
	RESUME_INTERRUPTS();

	START_CRIT_SECTION();
	critical = check_now();
	END_CRIT_SECTION();

	exclusive = check_after_error(LW_EXCLUSIVE);
	shared = check_after_error(LW_SHARED);

	SpinLockAcquire(&spinlock);
	spinning = check_now();
	SpinLockRelease(&spinlock);

	elog(LOG, "a check was made: plain %d, interrupts held off %d, critical section %d, exclusive locks %d, shared locks %d, spinlock %d",
		 plain, held_off, critical, exclusive, shared, spinning);
	PG_RETURN_VOID();
}
