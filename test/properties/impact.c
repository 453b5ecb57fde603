/*
 * Properties of base/impact.c: windows that are drawn by lot, and durations.
 */
#include "properties.h"

#include <math.h>
#include <stdlib.h>

#include "base/impact.h"

#define DURATIONS 300

static int64
a_duration(uint64 *series)
{
	uint32		size = property_draw(series) % (BBM_IMPACT_LONGEST_BITS + 1);

	return property_draw(series) % (1U << size);
}

/* a bucket has the duration that it is for, is as wide as a 32nd of it at most, and the next one begins where it ends */
static bool
buckets_are_narrow(const uint32 *n)
{
	int64		us = n[0] % (1 << BBM_IMPACT_LONGEST_BITS);
	int			bucket = bbm_impact_bucket(us);
	double		begin = bbm_impact_bucket_begin(bucket);
	double		next = bbm_impact_bucket_begin(bucket + 1);

	return bucket >= 0 && bucket < BBM_IMPACT_BUCKETS && begin <= us && us < next &&
		next - begin <= Max(us / 32.0, 1) &&
		bbm_impact_bucket((int64) next) == (next < 1 << BBM_IMPACT_LONGEST_BITS ? bucket + 1 : -1);
}

static int
by_size(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* a mean is that of the durations, and so is a quantile, but for the width of a bucket */
static bool
figures_are_close(const uint32 *n)
{
	static BbmHistogram histogram;
	static int64 us[DURATIONS];
	uint64		series = n[0];
	int			count = 1 + n[1] % DURATIONS;
	double		share = (1 + n[2] % 99) / 100.0;
	double		sum = 0;
	double		quantile;
	double		low;
	double		high;

	memset(&histogram, 0, sizeof(histogram));
	for (int i = 0; i < count; i++)
	{
		us[i] = a_duration(&series);
		sum += us[i];
		bbm_histogram_add(&histogram, i % BBM_IMPACT_GROUPS, us[i]);
	}
	qsort(us, count, sizeof(int64), by_size);
	/* which one it is when the share is just that of a number of durations depends on how it is rounded */
	quantile = bbm_histogram_quantile(&histogram, share);
	low = us[Max((int) ceil(share * count - 1e-9), 1) - 1];
	high = us[Min((int) ceil(share * count + 1e-9), count) - 1];
	return histogram.n == count && fabs(bbm_histogram_mean(&histogram) - sum / count) <= 1e-9 * sum &&
		quantile >= low - low / 32 - 1 && quantile <= high + high / 32 + 1;
}

/* statements that take so many times as long: the impact says how many */
static bool
impact_is_what_was_added(const uint32 *n)
{
	static BbmHistogram silent;
	static BbmHistogram worked;
	uint64		series = n[0];
	int			count = BBM_IMPACT_ENOUGH_P99 + n[1] % 500;
	int			times = 1 + n[2] % 8;
	BbmImpact	impact;

	memset(&silent, 0, sizeof(silent));
	memset(&worked, 0, sizeof(worked));
	for (int i = 0; i < count; i++)
	{
		int64		us = 100 + property_draw(&series) % (1 << (7 + n[3] % 10));

		bbm_histogram_add(&silent, i % BBM_IMPACT_GROUPS, us);
		bbm_histogram_add(&worked, i % BBM_IMPACT_GROUPS, us * times);
	}
	impact = bbm_impact_between(&silent, &worked);
	return impact.statements == 2 * count && impact.has_mean && impact.has_p99 &&
		fabs(impact.mean - (times - 1)) <= times * 0.05 && fabs(impact.p99 - (times - 1)) <= times * 0.07 &&
		impact.has_error && impact.mean_error >= 0;
}

/* the kind of a window is the same from its begin to its end, whose middle half counts */
static bool
windows_are_whole(const uint32 *n)
{
	uint64		seed = ((uint64) n[0] << 32) | n[1];
	int64		at = ((int64) n[2] << 20) + n[3];
	int			shift = n[4] % (BBM_WINDOW_MOST_SHIFT + 1);
	int64		length = INT64CONST(1) << (BBM_WINDOW_BITS + shift);
	int64		end = bbm_window_end(at, shift);
	int64		begin = end - length;
	int64		other = begin + n[5] % length;

	return begin <= at && at < end && bbm_window_end(other, shift) == end && bbm_window_end(end, shift) == end + length &&
		bbm_window_kind(seed, at, shift) == bbm_window_kind(seed, other, shift) &&
		bbm_window_counts(other, shift) == (other - begin >= length / 4 && other - begin < length - length / 4);
}

/* of many windows in a row, silent ones are as many as those that are counted with work, about, and one in BBM_WINDOW_ODDS */
static bool
chances_are_equal(const uint32 *n)
{
	uint64		seed = ((uint64) n[0] << 32) | n[1];
	int64		at = ((int64) n[2] << 20) + n[3];
	int			shift = n[4] % (BBM_WINDOW_MOST_SHIFT + 1);
	int			found[BBM_WINDOW_OTHER + 1] = {0};
	int			windows = 200 * BBM_WINDOW_ODDS;

	for (int i = 0; i < windows; i++)
	{
		found[bbm_window_kind(seed, at, shift)]++;
		at = bbm_window_end(at, shift);
	}
	/* 200 each; a standard deviation is 14, and this is seven of them */
	return abs(found[BBM_WINDOW_SILENT] - 200) < 98 && abs(found[BBM_WINDOW_WORKED] - 200) < 98;
}

/* of many windows in a row, each group has as many, about, and a window is in one group */
static bool
groups_are_equal(const uint32 *n)
{
	uint64		seed = ((uint64) n[0] << 32) | n[1];
	int64		at = ((int64) n[2] << 20) + n[3];
	int			shift = n[4] % (BBM_WINDOW_MOST_SHIFT + 1);
	int			found[BBM_IMPACT_GROUPS] = {0};
	int			windows = 100 * BBM_IMPACT_GROUPS;

	for (int i = 0; i < windows; i++)
	{
		int			group = bbm_window_group(seed, at, shift);

		if (group < 0 || group >= BBM_IMPACT_GROUPS)
			return false;
		at = bbm_window_end(at, shift);
		if (bbm_window_group(seed, at - 1, shift) != group)
			return false;
		found[group]++;
	}
	/* a standard deviation is 10, and this is seven of them */
	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		if (abs(found[i] - 100) >= 70)
			return false;
	}
	return true;
}

/* windows are four pulses long, unless they are as long as they can be, and never longer than they have to be */
static bool
windows_are_long_enough(const uint32 *n)
{
	double		pulse_us = n[0] % 5000000;
	int			shift = bbm_window_shift(pulse_us);

	return shift >= 0 && shift <= BBM_WINDOW_MOST_SHIFT &&
		(shift == BBM_WINDOW_MOST_SHIFT || 4 * pulse_us <= 1 << (BBM_WINDOW_BITS + shift)) &&
		(shift == 0 || 4 * pulse_us > 1 << (BBM_WINDOW_BITS + shift - 1));
}

const Property impact_properties[] = {
	{"buckets_are_narrow", buckets_are_narrow},
	{"figures_are_close", figures_are_close},
	{"impact_is_what_was_added", impact_is_what_was_added},
	{"windows_are_whole", windows_are_whole},
	{"chances_are_equal", chances_are_equal},
	{"groups_are_equal", groups_are_equal},
	{"windows_are_long_enough", windows_are_long_enough},
	{0}
};
