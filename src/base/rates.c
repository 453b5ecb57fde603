/*-------------------------------------------------------------------------
 *
 * rates.c
 *		Computing delays and sizes from measurements: pure functions,
 *		without clock or state of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "base/rates.h"

#include "utils/timestamp.h"

/* The shortest time between two samples of a trace. */
#define BBM_TRACE_GAP_MS 100

/* The weight of the last batch against all before it. */
#define BBM_WEIGHT 0.3

/* The most that a size grows from one batch to the next. */
#define BBM_GROWTH 2.0

/* A claim is worth as many commits as last so long, within these bounds. */
#define BBM_CLAIM_MS 50
#define BBM_LEAST_COMMITS 10
#define BBM_MOST_COMMITS 200

/*
 * Has a time come that was set at most ahead_ms in advance?  If it is further
 * off than that, the clock has been set back since, and nobody should wait
 * until it has caught up.
 */
bool
bbm_time_has_come(TimestampTz now, TimestampTz when, int64 ahead_ms)
{
	return now >= when || when - now > ahead_ms * 1000;
}

/*
 * The delay before the next try after the failed try "attempt" (1, 2, ...): it
 * doubles, and is varied by a third either way, so that jobs that failed
 * together are not retried together.  It is never longer than max_ms.  "random"
 * is in [0, 1).
 */
int64
bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random)
{
	double		delay = (double) first_ms;
	double		least;

	for (int i = 1; i < attempt && delay < max_ms; i++)
		delay *= 2;
	delay = Min(delay, max_ms);
	least = delay * 2 / 3;
	return (int64) (least + random * (Min(delay * 4 / 3, max_ms) - least));
}

/* The debt shrinks with time, at the rate.  A clock that went back repays nothing. */
static double
debt_at(const BbmBucket *bucket, TimestampTz now, double rate)
{
	double		seconds = now > bucket->at ? (double) (now - bucket->at) / USECS_PER_SEC : 0;

	return Max(bucket->debt - seconds * rate, 0);
}

/*
 * Records that "amount" was used from "since" until now, at "rate" a second.
 * The time that the use took counts towards repaying it; unused capacity is
 * not saved up.
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

/* The time when the debt is paid; the next batch may begin after that. */
TimestampTz
bbm_bucket_due(const BbmBucket *bucket, double rate)
{
	double		seconds = bucket->debt / rate;

	/* more than a day would mean another rate */
	return bucket->at + (TimestampTz) (Min(seconds, SECS_PER_DAY) * USECS_PER_SEC);
}

/*
 * Records the position at "now".  A full trace drops every other sample of its
 * older half, so it gets coarser the further it reaches back.
 */
void
bbm_trace_note(BbmTrace *trace, TimestampTz now, uint64 position)
{
	/* the clock went back: drop samples from the future */
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

/* The time since when something lies beyond "position", as far as the trace reaches; 0 when nothing does. */
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
 * The time until the next poll is a quarter of the time it has been throttled:
 * a short throttle is noticed soon, and one of hours costs little.
 */
int64
bbm_next_poll_ms(int64 throttled_ms, int64 first_ms)
{
	return Min(Max(throttled_ms / 4, first_ms), BBM_LAST_POLL_MS);
}

/*
 * The time until the next poll of what others do: as usual, or sooner if, at the
 * rate of the last time, it is going to be done before that.  Where there is more
 * to do than was thought, nothing is left by that estimate, which says nothing
 * about when the rest is done; so polls are then as usual.
 */
int
bbm_poll_when_done_ms(int64 left, int64 done, int64 in_us, int soonest_ms, int usual_ms)
{
	if (left <= 0 || done <= 0 || in_us <= 0)
		return usual_ms;
	return (int) Min(Max((double) left / done * in_us / 1000, soonest_ms), usual_ms);
}

/* The same where the end is near, or nobody knows: soon at first, and later each time, up to the usual. */
int
bbm_poll_less_often_ms(int times, int soonest_ms, int usual_ms)
{
	return (int) Min((int64) soonest_ms << Min(times, 20), usual_ms);
}

static int
within(const BbmSizeLimits *limits, double size)
{
	/* NaN is no reason to grow */
	if (!(size > limits->min_size))
		return limits->min_size;
	return size >= limits->max_size ? limits->max_size : (int) size;
}

/* Starts with this size, before anything is known. */
void
bbm_sizing_start(BbmSizing *sizing, const BbmSizeLimits *limits, int size)
{
	sizing->size = within(limits, size);
	sizing->ms_per_key = sizing->wal_per_key = 0;
}

/*
 * Returns the weighted mean of a measure.  A value above the previous mean
 * counts in full, since a batch that is too long does harm now and one that is
 * too short does not.  "share" is the batch's share of a full batch: with the
 * few keys at the end of a range, most of the time is not caused by the keys.
 */
static double
weigh(double before, double now, double share)
{
	/* nothing known yet, or NaN */
	if (!(before > 0))
		return now;
	return before + (now > before ? 1 : BBM_WEIGHT) * share * (now - before);
}

/*
 * Computes the size of the next batch, after a batch of so many keys took so
 * long and wrote so much WAL. It is at most twice what has been tried, and as
 * much smaller as necessary.  A batch without keys is ignored.
 */
void
bbm_sizing_adapt(BbmSizing *sizing, const BbmSizeLimits *limits, int64 keys, double ms, double wal)
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
 * How many commits a claim is worth, each of which takes so long (0: not
 * known).  A claim costs about as much as a small commit, and neighbouring
 * claims of two workers meet in the same pages; but a claim is what a worker
 * keeps for itself, however long it takes.
 */
int
bbm_commits_of_claim(double commit_ms)
{
	/* also for NaN */
	if (!(commit_ms > 0))
		return BBM_LEAST_COMMITS;
	return (int) Max(BBM_LEAST_COMMITS, Min(BBM_CLAIM_MS / commit_ms, BBM_MOST_COMMITS));
}

/*
 * The size of a claim that would be all that is left, so that it is shared by
 * so many workers: half of what each would get, as they are not equally fast,
 * but at least one commit.
 */
int
bbm_size_of_last_claims(int64 left, int commit, int workers)
{
	if (workers <= 1)
		return (int) Min(Max(left, commit), PG_INT32_MAX);
	return (int) Min(Max(left / (2 * (int64) workers), commit), PG_INT32_MAX);
}

/*
 * The number of keys per commit: "full" is the migration's setting (0: the
 * whole job), the others are the reduced sizes of the job and of this process
 * (0: not reduced).
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

/* The size to try next, after a batch of this size blocked others. */
int
bbm_size_after_requeue(int size, int min)
{
	return Max(size / 2, min);
}

/*
 * ... and after one that did not: an eighth more, since retrying a size that
 * is too large costs others their time. 0 when the size is not reduced any
 * more.
 */
int
bbm_size_after_success(int size, int full)
{
	if (size == 0 || size >= full - Max(size / 8, 1))
		return 0;
	return size + Max(size / 8, 1);
}
