/*-------------------------------------------------------------------------
 *
 * wait_event.c
 *		What our processes wait for, as pg_stat_activity.wait_event shows it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/wait_event.h"

#include "miscadmin.h"
#include "storage/latch.h"

#include "base/compat.h"

static const char *const names[BBM_WAIT_EVENTS] = {
	[BBM_WAIT_LAUNCHER] = "BbmLauncherMain",
	[BBM_WAIT_WORKER] = "BbmWorkerMain",
	[BBM_WAIT_THROTTLE] = "BbmThrottle",
	[BBM_WAIT_RECORD] = "BbmRecordRetry",
	[BBM_WAIT_OTHERS] = "BbmRunOthers",
	[BBM_WAIT_STATE] = "BbmStateChange",
	[BBM_WAIT_EXIT] = "BbmWorkerExit"
};

/*
 * Returns the wait event for WaitLatch and its like.  The server allocates it
 * when a process first waits for it, which takes LWLocks: call it where a
 * process may wait.  Before 17 extensions have no events of their own.
 */
uint32
bbm_wait_event(BbmWaitEvent event)
{
	static uint32 allocated[BBM_WAIT_EVENTS];

	if (allocated[event] == 0)
		allocated[event] = bbm_wait_event_allocate(names[event]);
	return allocated[event];
}

/* Waits until somebody sets this process's latch, or for so long. */
void
bbm_sleep(int64 ms, BbmWaitEvent event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) Max(ms, 1),
					 bbm_wait_event(event));
	ResetLatch(MyLatch);
}
