/*-------------------------------------------------------------------------
 *
 * wait_event.h
 *		What our processes wait for, as pg_stat_activity.wait_event shows it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_WAIT_EVENT_H
#define BBM_BASE_WAIT_EVENT_H

#include "base/bbm.h"

/* wait_event.c has their names. */
typedef enum BbmWaitEvent
{
	BBM_WAIT_LAUNCHER,			/* the launcher, for a request or the next poll */
	BBM_WAIT_WORKER,			/* a worker without work, until work is due */
	BBM_WAIT_THROTTLE,			/* whoever runs batches, until it is no longer throttled or its pacing pause ends */
	BBM_WAIT_RECORD,			/* whoever runs batches, before it tries again to record the end of a job */
	BBM_WAIT_OTHERS,			/* bbm_run, until others have finished or a retry is due */
	BBM_WAIT_STATE,				/* bbm_wait, bbm_pause and others, for a migration's state */
	BBM_WAIT_EXIT				/* DROP DATABASE and similar commands, until our workers have exited */
} BbmWaitEvent;

#define BBM_WAIT_EVENTS (BBM_WAIT_EXIT + 1)

extern uint32 bbm_wait_event(BbmWaitEvent event);
extern void bbm_sleep(int64 ms, BbmWaitEvent event);

#endif							/* BBM_BASE_WAIT_EVENT_H */
