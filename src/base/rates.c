/*-------------------------------------------------------------------------
 *
 * rates.c
 *		From what happened to a delay or a size: pure functions, without clock
 *		or state of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "base/rates.h"

#include "utils/timestamp.h"

/* Between two samples of a trace. */
#define BBM_TRACE_GAP_MS 100

#define BBM_LAST_POLL_MS (30 * 1000)

/* How much the last batch says beside all before it. */
#define BBM_WEIGHT 0.3

/* The share of its time that a process waits for a CPU on a machine with room. */
#define BBM_USUAL_DELAY 0.1

/* How many batches a rest goes by. */
#define BBM_REST_SAMPLES 64

/* The most that a size grows from one batch to the next. */
#define BBM_GROWTH 2.0

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

/* Time passes: the debt shrinks with the rate.  A clock that went back repays nothing. */
static double
debt_at(const BbmBucket *bucket, TimestampTz now, double rate)
{
	double		seconds = now > bucket->at ? (double) (now - bucket->at) / USECS_PER_SEC : 0;

	return Max(bucket->debt - seconds * rate, 0);
}

/*
 * So much was used from "since" until now, at "rate" a second.  The time that
 * took is part of it; nothing is saved up while nothing is used.
 */
void
bbm_bucket_spend(BbmBucket *bucket, TimestampTz since, TimestampTz now, double rate, double amount)
{
	/* another process may have spent meanwhile; or the clock went back */
	if (bucket->at > since && bucket->at <= now)
		since = bucket->at;
	bucket->debt = debt_at(bucket, since, rate) + amount;
	bucket->at = since;
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
bbm_next_poll_ms(int64 held_ms, int64 first_ms)
{
	return Min(Max(held_ms / 4, first_ms), BBM_LAST_POLL_MS);
}

/*
 * A rest of so many times the delay that there was in a time.  A little of that
 * is everywhere and not rested for; nor is what would be over before it began.
 * Rests go by the mean of many batches, so that these come at even distances,
 * and not several in a row before a long rest.
 */
int64
bbm_pacing_us(BbmPacing *rests, int64 delay_us, int64 elapsed_us, double factor)
{
	double		rest = (delay_us - BBM_USUAL_DELAY * Max(elapsed_us, 0)) * factor;

	rest = Max(Min(rest, BBM_LONGEST_REST_MS * 1000.0), 0);
	/* the mean of all up to there, after that a weighted one */
	rests->n = Min(rests->n + 1, BBM_REST_SAMPLES);
	rest = rests->us + (rest - rests->us) / rests->n;
	rests->us = rest;
	return rest < BBM_SHORTEST_REST_US ? 0 : (int64) rest;
}

static int
within(const BbmSizeLimits *limits, double size)
{
	/* what is not a number is no reason to grow */
	if (!(size > limits->min_size))
		return limits->min_size;
	return size >= limits->max_size ? limits->max_size : (int) size;
}

/* Begins with this size, knowing nothing yet. */
void
bbm_sizing_start(BbmSizing *sizing, const BbmSizeLimits *limits, int size)
{
	sizing->size = within(limits, size);
	sizing->ms_per_key = sizing->wal_per_key = 0;
}

/*
 * A measure, weighted; one that is above those before it counts in full, as a
 * batch that is too long hurts now and one that is too short does not.  "share"
 * is how much of a batch it was: of the few keys that are left at the end of a
 * range most of the time is not the keys'.
 */
static double
weigh(double before, double now, double share)
{
	/* nothing known yet, or nothing that is a number */
	if (!(before > 0))
		return now;
	return before + (now > before ? 1 : BBM_WEIGHT) * share * (now - before);
}

/*
 * A batch of so many keys took so long and wrote so much: the size of the next
 * one.  It is at most twice what has been tried, and as much smaller as it must
 * be.  A batch without keys says nothing.
 */
void
bbm_sizing_follow(BbmSizing *sizing, const BbmSizeLimits *limits, int64 keys, double ms, double wal)
{
	double		tried = Min((double) keys, sizing->size);
	double		share = tried / sizing->size;
	double		want = Max(sizing->size, BBM_GROWTH * tried);

	if (keys <= 0)
		return;
	sizing->ms_per_key = weigh(sizing->ms_per_key, Max(ms, 0) / keys, share);
	sizing->wal_per_key = weigh(sizing->wal_per_key, Max(wal, 0) / keys, share);
	if (limits->target_ms > 0 && sizing->ms_per_key > 0)
		want = Min(want, limits->target_ms / sizing->ms_per_key);
	if (limits->max_wal > 0 && sizing->wal_per_key > 0)
		want = Min(want, limits->max_wal / sizing->wal_per_key);
	sizing->size = within(limits, want);
}

/*
 * How many keys a commit may have: "full" is the migration's (0 all of the
 * job), the others are what a job or this process has been cut down to (0 not).
 */
int
bbm_size_of_sub_batch(int full, int job, int process)
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
bbm_size_after_requeue(int size, int min)
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
