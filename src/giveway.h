/*-------------------------------------------------------------------------
 *
 * giveway.h
 *		Watching the batch in flight: is it in anybody's way?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_GIVEWAY_H
#define BBM_GIVEWAY_H

#include "bbm.h"

/* Why a batch was stopped by its own process. */
typedef enum BbmStop
{
	BBM_STOP_NONE,
	BBM_STOP_BLOCKING,			/* others waited too long for its locks */
	BBM_STOP_TIME				/* it took too long itself */
} BbmStop;

extern void bbm_yield_begin(void);
extern void bbm_yield_end(void);
extern void bbm_watch_begin(int blocking_limit, int batch_limit);
extern bool bbm_watch_is_on(void);
extern void bbm_watch_end(void);
extern BbmStop bbm_watch_outcome(void);
extern void bbm_watch_rest(void);

#endif							/* BBM_GIVEWAY_H */
