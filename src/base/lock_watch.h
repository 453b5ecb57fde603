/*-------------------------------------------------------------------------
 *
 * lock_watch.h
 *		Watching the batch in flight: does it block others?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_LOCK_WATCH_H
#define BBM_BASE_LOCK_WATCH_H

#include "base/bbm.h"

/* Why a batch was stopped by its own process. */
typedef enum BbmLockWatchStop
{
	BBM_STOP_NONE,
	BBM_STOP_BLOCKING,			/* others waited too long for its locks */
	BBM_STOP_TIME				/* it took too long itself */
} BbmLockWatchStop;

extern void bbm_yield_begin(void);
extern void bbm_yield_end(void);
extern void bbm_lock_watch_begin(int blocking_limit, int batch_limit);
extern bool bbm_lock_watch_is_on(void);
extern void bbm_lock_watch_end(void);
extern bool bbm_lock_watch_blocks(int64 us);
extern BbmLockWatchStop bbm_lock_watch_outcome(void);
extern void bbm_lock_watch_pause(void);

#endif							/* BBM_BASE_LOCK_WATCH_H */
