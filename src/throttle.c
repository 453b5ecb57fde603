/*-------------------------------------------------------------------------
 *
 * throttle.c
 *		From what happened to a delay: pure functions, without clock or state.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle.h"

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

/*
 * How many keys a commit may have: "full" is the migration's (0 all of the
 * job), the others are what a job or this process has been cut down to (0 not).
 */
int
bbm_size_of_part(int full, int job, int process)
{
	int			size = full;

	if (job > 0 && (size == 0 || job < size))
		size = job;
	if (process > 0 && (size == 0 || process < size))
		size = process;
	return size;
}

/* The size to try next, after a batch of this size was in the way. */
int
bbm_size_after_give_back(int size, int min)
{
	return Max(size / 2, min);
}

/*
 * ... and after one that was not: an eighth more, since trying a size that is
 * too large again costs others their time.  0 when nothing is cut down any more.
 */
int
bbm_size_after_success(int size, int full)
{
	if (size == 0 || size >= full - Max(size / 8, 1))
		return 0;
	return size + Max(size / 8, 1);
}
