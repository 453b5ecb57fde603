/*-------------------------------------------------------------------------
 *
 * clock.c
 *		The clock that batches are measured with; tests can replace it.
 *
 *-------------------------------------------------------------------------
 */
#include "base/clock.h"

#include "portability/instr_time.h"

/* The time that a test has set; negative: the real clock is used. */
static double simulated_ms = -1;

/* Milliseconds since an arbitrary start. */
double
bbm_clock_ms(void)
{
	instr_time	now;

	if (simulated_ms >= 0)
		return simulated_ms;
	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* From the first call on, only calls advance the clock of this process. */
void
bbm_clock_advance(double ms)
{
	simulated_ms = Max(simulated_ms, 0) + ms;
}
