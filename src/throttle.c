/*-------------------------------------------------------------------------
 *
 * throttle.c
 *		From what happened to a delay: pure functions, without clock or state.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle.h"

/*
 * Has it come, a time that was set at most so far ahead?  When it is further
 * off than that, the clock was set back since, and nobody is to wait until it
 * has caught up.
 */
bool
bbm_time_has_come(TimestampTz now, TimestampTz when, int64 ahead_ms)
{
	return now >= when || when - now > ahead_ms * 1000;
}

/*
 * The delay before the next try after "attempt" (1, 2, …) that did not
 * succeed: it doubles, is capped, and is spread by a third either way so that
 * jobs that failed together do not come back together.  "random" is in [0, 1).
 */
int64
bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random)
{
	double		delay = (double) first_ms;

	for (int i = 1; i < attempt && delay < max_ms; i++)
		delay *= 2;
	if (delay > max_ms)
		delay = max_ms;
	return (int64) (delay * (1.0 + (2.0 * random - 1.0) / 3.0));
}
