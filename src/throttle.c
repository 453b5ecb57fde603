/*-------------------------------------------------------------------------
 *
 * throttle.c
 *		From what happened to a delay: pure functions with the clock as an
 *		argument.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle.h"

#include "utils/timestamp.h"

/* Between two samples of a trace. */
#define BBM_TRACE_GAP_MS 100

#define BBM_LAST_LOOK_MS (30 * 1000)

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

/* Time passes: the debt shrinks with the rate.  A clock that went back repays nothing. */
static double
debt_at(const BbmBucket *bucket, TimestampTz now, double rate)
{
	double		seconds = now > bucket->at ? (double) (now - bucket->at) / USECS_PER_SEC : 0;

	return Max(bucket->debt - seconds * rate, 0);
}

/* So much was used, at "rate" a second; nothing is saved up while nothing is used. */
void
bbm_bucket_spend(BbmBucket *bucket, TimestampTz now, double rate, double amount)
{
	bucket->debt = debt_at(bucket, now, rate) + amount;
	bucket->at = now;
}

/* When the debt is paid; after that the next may begin. */
TimestampTz
bbm_bucket_due(const BbmBucket *bucket, double rate)
{
	double		seconds = bucket->debt / rate;

	/* more than a day would be for another rate */
	return bucket->at + (TimestampTz) (Min(seconds, SECS_PER_DAY) * USECS_PER_SEC);
}

/*
 * It is at "position" now.  A trace that is full loses every other sample of
 * its older half, so that it gets coarser the further it reaches back.
 */
void
bbm_trace_note(BbmTrace *trace, TimestampTz now, uint64 position)
{
	/* the clock went back: what lies in the future was not then */
	while (trace->n > 0 && trace->samples[trace->n - 1].at > now)
		trace->n--;
	if (trace->n > 0 && (position <= trace->samples[trace->n - 1].position ||
						 now < TimestampTzPlusMilliseconds(trace->samples[trace->n - 1].at, BBM_TRACE_GAP_MS)))
		return;
	if (trace->n == BBM_TRACE_SAMPLES)
	{
		int			kept = 0;

		for (int i = 0; i < BBM_TRACE_SAMPLES; i++)
		{
			if (i % 2 == 0 || i >= BBM_TRACE_SAMPLES / 2)
				trace->samples[kept++] = trace->samples[i];
		}
		trace->n = kept;
	}
	trace->samples[trace->n].at = now;
	trace->samples[trace->n].position = position;
	trace->n++;
}

/* Since when something lies beyond "position", as far as the trace reaches; 0 when nothing does. */
TimestampTz
bbm_trace_behind_since(const BbmTrace *trace, uint64 position)
{
	for (int i = 0; i < trace->n; i++)
	{
		if (trace->samples[i].position > position)
			return trace->samples[i].at;
	}
	return 0;
}

/*
 * A quarter of the time it has held already: what ends soon is seen soon, and
 * what lasts for hours costs little.
 */
int64
bbm_look_again_ms(int64 held_ms, int64 first_ms)
{
	return Min(Max(held_ms / 4, first_ms), BBM_LAST_LOOK_MS);
}
