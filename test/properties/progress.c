/*
 * Properties of base/progress.c: how far a migration is, and how fast it
 * advances.
 */
#include "properties.h"

#include <math.h>

#include "base/progress.h"

/* Whatever is recorded, and however the clock goes: the samples are in order, and the newest is there. */
static bool
history_is_in_order(const uint32 *n)
{
	BbmHistory	history = {0};
	uint64		state = n[1];
	double		now_ms = 1000000;

	for (int i = 0; i < (int) (n[0] % 300); i++)
	{
		BbmSample	sample = {0};
		bool		back = property_draw(&state) % 50 == 0;

		now_ms += back ? -(double) (property_draw(&state) % 100000) : property_draw(&state) % (1 + n[2] % 40000);
		sample.at_ms = now_ms;
		sample.left_out_ms = property_draw(&state) % (1 + n[3] % 1000);
		sample.keys = i;
		if (property_draw(&state) % 10 == 0)
			bbm_history_resume(&history, &sample, property_draw(&state) % 2, now_ms - property_draw(&state) % 60000,
							   now_ms - property_draw(&state) % 60000);
		else
			bbm_history_note(&history, &sample);
		if (history.n < 1 || history.n > BBM_SAMPLES || history.samples[history.n - 1].keys != i)
			return false;
		for (int j = 1; j < history.n; j++)
		{
			if (history.samples[j].at_ms < history.samples[j - 1].at_ms)
				return false;
		}
	}
	return true;
}

/* The rate of a migration that does so many keys in each second that counts is that, whatever is left out. */
static bool
rate_is_steady(const uint32 *n)
{
	BbmHistory	history = {0};
	uint64		state = n[1];
	double		keys_a_ms = (1 + n[2] % 10000) / 1000.0;
	BbmSample	sample = {.at_ms = 1000};
	BbmRate		rate;

	for (int i = 0; i < (int) (2 + n[0] % 200); i++)
	{
		double		worked_ms = 1 + property_draw(&state) % (1 + n[3] % 20000);
		double		paused_ms = property_draw(&state) % 4 == 0 ? property_draw(&state) % (1 + n[4] % 100000) : 0;

		sample.at_ms += worked_ms + paused_ms;
		sample.left_out_ms += paused_ms;
		sample.keys += keys_a_ms * worked_ms;
		sample.rows = sample.keys / 2;
		bbm_history_note(&history, &sample);
	}
	rate = bbm_history_rate(&history, &sample, sample.at_ms, 1 + n[5] % 1000, BBM_MINUTE_MS * (1 + n[5] % 5));
	return rate.known && fabs(rate.keys_per_second / (keys_a_ms * 1000) - 1) < 1e-6 &&
		fabs(rate.rows_per_second * 2 / rate.keys_per_second - 1) < 1e-6;
}

/* Whatever the clock and the counts do, no rate is negative, and no share of the time more than all of it. */
static bool
rate_is_possible(const uint32 *n)
{
	BbmHistory	history = {0};
	uint64		state = n[1];
	BbmSample	sample = {.at_ms = 1000000};
	BbmRate		rate;

	for (int i = 0; i < (int) (n[0] % 100); i++)
	{
		sample.at_ms += (double) (property_draw(&state) % 30000) - (property_draw(&state) % 20 == 0 ? 50000 : 0);
		sample.keys += (double) (property_draw(&state) % 100) - (property_draw(&state) % 30 == 0 ? 200 : 0);
		sample.rows = sample.keys - property_draw(&state) % 10;
		sample.worked_ms += property_draw(&state) % 1000;
		sample.paced_ms += property_draw(&state) % 1000;
		sample.left_out_ms += property_draw(&state) % 3 == 0 ? property_draw(&state) % 40000 : 0;
		sample.begins = property_draw(&state) % 10 == 0;
		bbm_history_note(&history, &sample);
	}
	sample.at_ms += n[2] % 100000;
	rate = bbm_history_rate(&history, &sample, n[3] % 2 ? sample.at_ms - n[3] % 50000 : 0, n[4] % 1000,
							BBM_MINUTE_MS * (1 + n[5] % 5));
	if (!rate.known)
		return rate.keys == 0 && rate.seconds == 0;
	return rate.keys >= 0 && rate.seconds > 0 && rate.keys_per_second >= 0 && rate.rows_per_second >= 0 &&
		rate.pace <= 1 && (rate.pace >= 0 || rate.pace == -1);
}

/* What is known of a migration whose counts fit together. */
static BbmWhole
draw_whole(const uint32 *n)
{
	BbmWhole	whole = {.allocated = n[1] % 100000, .first = (double) (n[2] % 1000) - 500, .has_ends = n[0] % 2,
		.complete = n[0] / 2 % 4 == 0};

	whole.estimate = n[0] / 8 % 3 == 0 ? -1 : n[3] % 200000;
	whole.done = whole.allocated > 0 ? n[4] % ((uint32) whole.allocated + 1) : 0;
	/* an integer key is there at most once */
	whole.allocated_to = whole.first - 1 + whole.allocated + n[5] % 1000;
	whole.last = whole.allocated_to + (whole.complete ? 0 : n[5] / 1000 % 100000);
	return whole;
}

/* a share of all, which only grows with what is done, and is all of it in the end alone */
static bool
percent_is_a_share(const uint32 *n)
{
	BbmWhole	whole = draw_whole(n);
	double		percent = bbm_whole_percent(&whole);
	double		before = percent;

	if (!(percent >= 0 && percent <= 100))
		return false;
	if (percent == 100 && whole.done < whole.allocated)
		return false;
	if (whole.done > 0)
	{
		whole.done--;
		before = bbm_whole_percent(&whole);
	}
	if (before > percent)
		return false;
	whole.done = whole.allocated;
	whole.complete = true;
	return whole.allocated == 0 || bbm_whole_percent(&whole) == 100;
}

/* not fewer keys than have been found, nor more than there can be; all are known in the end */
static bool
whole_is_possible(const uint32 *n)
{
	BbmWhole	whole = draw_whole(n);
	double		keys = bbm_whole_keys(&whole);

	if (whole.complete)
		return keys == whole.allocated;
	if (keys < 0)
		return keys == -1 && whole.estimate <= 0;
	return keys >= whole.allocated &&
		(!whole.has_ends || keys <= whole.allocated + Max(whole.last - whole.allocated_to, 0) + 1e-6);
}

const Property progress_properties[] = {
	{"history_is_in_order", history_is_in_order},
	{"rate_is_steady", rate_is_steady},
	{"rate_is_possible", rate_is_possible},
	{"percent_is_a_share", percent_is_a_share},
	{"whole_is_possible", whole_is_possible},
	{0}
};
