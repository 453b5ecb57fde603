/*-------------------------------------------------------------------------
 *
 * throttle.h
 *		From what happened to a delay: pure functions, without clock or state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_H
#define BBM_THROTTLE_H

#include "bbm.h"

extern bool bbm_time_has_come(TimestampTz now, TimestampTz when, int64 ahead_ms);
extern int64 bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random);

#endif							/* BBM_THROTTLE_H */
