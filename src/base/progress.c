/*-------------------------------------------------------------------------
 *
 * progress.c
 *		How far a migration is, and how fast it advances by the clock.
 *
 * NOTES
 *	  A rate is what was done in the last minute, divided by the time that has
 *	  passed: the time of claims, commits and pauses between batches is part of
 *	  it, as it will be part of the time to come.  Only the time in which the
 *	  migration was throttled, paused or without a worker is left out.
 *
 *-------------------------------------------------------------------------
 */
#include "base/progress.h"

/* Samples that are kept are so far apart; the newest may be closer to the one before it. */
#define BBM_SAMPLE_GAP_MS (10.0 * 1000)

/* If the last minute has fewer batches than this, the remaining time is estimated from the last five. */
#define BBM_ENOUGH_BATCHES 10

/* When nobody has recorded progress for so long, and no job runs, nobody was at work. */
#define BBM_NOBODY_MS (15.0 * 1000)

/* The clock of the migration, which stands still in the time that is left out. */
static double
clock_of(const BbmSample *sample)
{
	return sample->at_ms - sample->left_out_ms;
}

/* The clock went back: samples of the future are dropped. */
static void
drop_future(BbmHistory *history, double at_ms)
{
	while (history->n > 0 && history->samples[history->n - 1].at_ms > at_ms)
		history->n--;
}

/*
 * When no job runs: has nobody been at work since something was last done or
 * recorded?  That is so when it is long ago, or when the server, or a migration
 * that was paused, was started since, at start_ms.
 */
bool
bbm_nobody_works(const BbmSample *now, double last_at_ms, double start_ms)
{
	return now->at_ms - last_at_ms > BBM_NOBODY_MS || (last_at_ms < start_ms && start_ms <= now->at_ms);
}

/*
 * A process begins to work on the migration.  *now has the counts; its times
 * that are left out are those up to the last sample, plus what is known to
 * have been left out since.  With "idle" no process runs a job: if nobody was
 * there for a while, nobody has worked since the last batch, which was done at
 * done_at_ms (0: not known).
 */
void
bbm_history_resume(BbmHistory *history, BbmSample *now, bool idle, double done_at_ms, double start_ms)
{
	drop_future(history, now->at_ms);
	if (history->n == 0)
		now->begins = 1;
	else if (idle)
	{
		const BbmSample *last = &history->samples[history->n - 1];
		double		last_at = Min(Max(last->at_ms, done_at_ms), now->at_ms);

		if (bbm_nobody_works(now, last_at, start_ms))
		{
			now->left_out_ms = Max(now->left_out_ms, last->left_out_ms + (now->at_ms - last_at));
			now->begins = 1;
		}
	}
	bbm_history_note(history, now);
}

/* Records what has been done up to now. */
void
bbm_history_note(BbmHistory *history, const BbmSample *now)
{
	drop_future(history, now->at_ms);
	/* the newest sample only stays if it is far enough from the one before it, or a beginning or the first after one */
	if (history->n > 1 && !history->samples[history->n - 1].begins && !history->samples[history->n - 2].begins &&
		clock_of(&history->samples[history->n - 1]) - clock_of(&history->samples[history->n - 2]) < BBM_SAMPLE_GAP_MS)
		history->n--;
	if (history->n == BBM_SAMPLES)
	{
		memmove(&history->samples[0], &history->samples[1], (BBM_SAMPLES - 1) * sizeof(BbmSample));
		history->n--;
	}
	history->samples[history->n++] = *now;
}

/*
 * The rate over the last window_ms of the migration's clock, or over as much
 * of it as there is.  "live" is what is known now; the last batch was done at
 * done_at_ms (0: not known).
 *
 * A batch that runs has done nothing so far that counts: so the time is
 * measured up to the end of the last batch, unless that is long ago, by the
 * number of keys in a batch.
 */
BbmRate
bbm_history_rate(const BbmHistory *history, const BbmSample *live, double done_at_ms, double batch_keys,
				 double window_ms)
{
	BbmRate		rate = {.pace = -1};
	BbmSample	end = *live;
	const BbmSample *start = NULL;
	double		ms;
	double		busy;

	/* what was left out since the last sample was left out after the last batch */
	if (done_at_ms > 0 && done_at_ms < live->at_ms)
	{
		end.at_ms = done_at_ms;
		if (history->n > 0 && done_at_ms >= history->samples[history->n - 1].at_ms)
			end.left_out_ms = Max(history->samples[history->n - 1].left_out_ms,
								  live->left_out_ms - (live->at_ms - done_at_ms));
	}
	for (int i = history->n - 1; i >= 0; i--)
	{
		const BbmSample *sample = &history->samples[i];

		if (sample->at_ms >= end.at_ms)
			continue;
		start = sample;
		if (clock_of(&end) - clock_of(sample) >= window_ms)
			break;
	}
	if (start == NULL)
		return rate;
	/* from the end of one batch to that of another, there are as many pauses as batches */
	if (start->begins && start + 1 < history->samples + history->n && start[1].at_ms < end.at_ms &&
		start[1].keys < end.keys)
		start++;
	/* no batch has ended for much longer than usual: the silence counts */
	ms = clock_of(&end) - clock_of(start);
	if (clock_of(live) - clock_of(&end) > Max(ms / 4, 2 * ms * batch_keys / Max(end.keys - start->keys, 1)))
		end = *live;
	ms = clock_of(&end) - clock_of(start);
	if (ms <= 0 || end.keys < start->keys)
		return rate;
	rate.known = true;
	rate.seconds = ms / 1000;
	rate.keys = end.keys - start->keys;
	rate.keys_per_second = rate.keys * 1000 / ms;
	rate.rows_per_second = Max(end.rows - start->rows, 0) * 1000 / ms;
	busy = Max(end.worked_ms - start->worked_ms, 0);
	if (busy > 0)
		rate.pace = busy / (busy + Max(end.paced_ms - start->paced_ms, 0));
	return rate;
}

/*
 * The rate by which the remaining time is estimated: that of the last minute,
 * unless it had so few batches that one more or less makes a difference.
 */
BbmRate
bbm_rate_for_rest(const BbmRate *minute, const BbmRate *five, double batch_keys)
{
	return minute->known && minute->keys >= BBM_ENOUGH_BATCHES * batch_keys ? *minute : *five;
}

/* How many keys there are to do in all, by everything that is known; negative: unknown. */
double
bbm_whole_keys(const BbmWhole *whole)
{
	double		beyond = Max(whole->last - whole->allocated_to, 0);
	double		keys;

	if (whole->complete)
		return whole->allocated;
	if (whole->estimate < 0 || (whole->estimate == 0 && whole->allocated > 0))
	{
		/* as dense in what is still to be allocated as in what was */
		double		covered = whole->allocated_to - whole->first + 1;

		if (!whole->has_ends || covered <= 0 || whole->allocated <= 0)
			return -1;
		return whole->allocated + whole->allocated / covered * beyond;
	}
	keys = Max(whole->estimate, whole->allocated);
	/* an integer key is there at most once */
	return whole->has_ends ? Min(keys, whole->allocated + beyond) : keys;
}

/* The share of the keys that are done, in percent. */
double
bbm_whole_percent(const BbmWhole *whole)
{
	double		keys = bbm_whole_keys(whole);

	/* nothing is known but what was allocated so far */
	if (keys < 0)
		keys = whole->allocated;
	return keys > 0 ? Min(100 * whole->done / keys, 100) : 0;
}
