/*-------------------------------------------------------------------------
 *
 * impact.c
 *		What migrations cost the statements of others: windows of time, and the
 *		durations of the statements that start in them.
 *
 * NOTES
 *	  Only an experiment shows whether statements are slower because of a
 *	  migration, or because there is more to do at the moment.  Time is divided
 *	  into windows of equal length.  A draw of lots that depends on nothing but
 *	  the number of the window makes some of them silent: no process of bbm
 *	  begins a batch in these.  As many others, drawn with the same chance, are
 *	  counted in the same way; they differ only in that bbm works in them, in
 *	  the pulses and pauses of its pace.  So the difference between the
 *	  statements that start in windows of these two kinds is what bbm does to
 *	  statements, whatever the load does meanwhile.
 *
 *	  A window is much longer than a pulse of about a millisecond.  A pulse
 *	  also delays statements that start after it: they find a queue.  Windows
 *	  as short as a pulse would count them as not affected, and find hardly a
 *	  difference on a machine that is busy; in one of 33 ms, whose first
 *	  quarter is not counted, that queue is gone.  Its last quarter is not
 *	  counted either, so that a statement of up to 8 ms is in its window from
 *	  its begin to its end.  A part of a statement that takes much longer than
 *	  a window runs in windows of another kind, so less of the impact shows.
 *
 *	  All processes that know the seed agree on the windows by the clock alone.
 *
 *-------------------------------------------------------------------------
 */
#include "base/impact.h"

#include <math.h>

#include "port/pg_bitutils.h"

/* A window is so many times longer than a pulse, at least. */
#define BBM_WINDOW_PULSES 4

/* ----------------------------------------------------------------
 * Windows
 * ----------------------------------------------------------------
 */

/* As in splitmix64: each bit of the result depends on each of the argument. */
static uint64
mix(uint64 x)
{
	x += UINT64CONST(0x9E3779B97F4A7C15);
	x = (x ^ (x >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return x ^ (x >> 31);
}

BbmWindowKind
bbm_window_kind(uint64 seed, int64 at_us, int shift)
{
	uint64		lot = mix(seed ^ ((uint64) at_us >> (BBM_WINDOW_BITS + shift))) % BBM_WINDOW_ODDS;

	return lot < BBM_WINDOW_KINDS ? (BbmWindowKind) lot : BBM_WINDOW_OTHER;
}

/* The group of a window, which is drawn by lot as well, whatever its kind. */
int
bbm_window_group(uint64 seed, int64 at_us, int shift)
{
	/* its kind is in the lower bits */
	return (mix(seed ^ ((uint64) at_us >> (BBM_WINDOW_BITS + shift))) >> 32) % BBM_IMPACT_GROUPS;
}

/* Is a statement counted that starts at that moment?  Not near the ends of its window. */
bool
bbm_window_counts(int64 at_us, int shift)
{
	int			quarter = ((uint64) at_us >> (BBM_WINDOW_BITS + shift - 2)) & 3;

	return quarter == 1 || quarter == 2;
}

/* When the window ends that this moment is in. */
int64
bbm_window_end(int64 at_us, int shift)
{
	return (int64) ((((uint64) at_us >> (BBM_WINDOW_BITS + shift)) + 1) << (BBM_WINDOW_BITS + shift));
}

/* How much longer windows have to be where pulses last for up to so long. */
int
bbm_window_shift(double longest_us)
{
	int			shift = 0;

	while (shift < BBM_WINDOW_MOST_SHIFT && BBM_WINDOW_PULSES * longest_us > (double) (1 << (BBM_WINDOW_BITS + shift)))
		shift++;
	return shift;
}

/* ----------------------------------------------------------------
 * Durations
 * ----------------------------------------------------------------
 */

/* The bucket of a duration; -1: it is not counted. */
int
bbm_impact_bucket(int64 us)
{
	int			bits;

	if (us < 0 || us >= INT64CONST(1) << BBM_IMPACT_LONGEST_BITS)
		return -1;
	if (us < 1 << BBM_IMPACT_BITS)
		return (int) us;
	bits = pg_leftmost_one_pos32((uint32) us) - BBM_IMPACT_BITS;
	/* the leading bit of what is left counts the doubling */
	return (bits << BBM_IMPACT_BITS) + (int) (us >> bits);
}

/* The shortest duration of a bucket; of the one after the last, what is not counted any more. */
double
bbm_impact_bucket_begin(int bucket)
{
	int			bits = Max((bucket >> BBM_IMPACT_BITS) - 1, 0);

	return ldexp(bucket - (bits << BBM_IMPACT_BITS), bits);
}

void
bbm_histogram_add(BbmHistogram *histogram, int group, int64 us)
{
	int			bucket = bbm_impact_bucket(us);

	if (bucket < 0)
		return;
	histogram->counts[bucket]++;
	histogram->n++;
	histogram->groups[group].n++;
	histogram->groups[group].us += us;
}

/* Leaves what was added since these were the groups; only the groups and the number are right then. */
void
bbm_histogram_since(BbmHistogram *histogram, const BbmImpactGroup *before)
{
	histogram->n = 0;
	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		histogram->groups[i].n -= before[i].n;
		histogram->groups[i].us -= before[i].us;
		histogram->n += histogram->groups[i].n;
	}
}

/* All groups together. */
static BbmImpactGroup
all_groups(const BbmHistogram *histogram)
{
	BbmImpactGroup all = {0};

	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		all.n += histogram->groups[i].n;
		all.us += histogram->groups[i].us;
	}
	return all;
}

double
bbm_histogram_mean(const BbmHistogram *histogram)
{
	BbmImpactGroup all = all_groups(histogram);

	return all.n > 0 ? all.us / all.n : 0;
}

/*
 * The variance of the mean, by what it would be without each of the groups (a
 * jackknife); negative if there are statements in too few of them.
 *
 * The statements of a window, and of windows after one another, have much in
 * common: they meet the same queue.  So the scatter of statements says little
 * about how far off their mean is.  But which windows are of which kind, and in
 * which group, is drawn by lot, one by one.  What differs between the kinds by
 * chance therefore differs between the groups in the same way, whatever windows
 * have in common.
 */
static double
variance_of_mean(const BbmHistogram *histogram)
{
	BbmImpactGroup all = all_groups(histogram);
	double		n = 0;
	double		sum = 0;
	double		squares = 0;

	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		const BbmImpactGroup *group = &histogram->groups[i];
		double		difference;

		if (group->n == 0 || group->n == all.n)
			continue;
		/* from the mean of all, lest digits get lost */
		difference = (all.us - group->us) / (all.n - group->n) - all.us / all.n;
		n++;
		sum += difference;
		squares += difference * difference;
	}
	return n < BBM_IMPACT_ENOUGH_GROUPS ? -1 : (n - 1) / n * Max(squares - sum * sum / n, 0);
}

/* The duration that this share of the statements do not exceed; within a bucket they are spread evenly. */
double
bbm_histogram_quantile(const BbmHistogram *histogram, double share)
{
	double		rank = share * histogram->n;
	double		below = 0;
	int			last = 0;

	for (int i = 0; i < BBM_IMPACT_BUCKETS; i++)
	{
		double		n = histogram->counts[i];

		if (n == 0)
			continue;
		if (below + n >= rank)
			return bbm_impact_bucket_begin(i) +
				(bbm_impact_bucket_begin(i + 1) - bbm_impact_bucket_begin(i)) * Max(rank - below, 0) / n;
		below += n;
		last = i + 1;
	}
	return bbm_impact_bucket_begin(last);
}

/* What is different in the windows in which bbm works. */
BbmImpact
bbm_impact_between(const BbmHistogram *silent, const BbmHistogram *worked)
{
	BbmImpact	impact = {.statements = silent->n + worked->n};
	int64		least = Min(silent->n, worked->n);
	double		without = bbm_histogram_mean(silent);
	double		with = bbm_histogram_mean(worked);

	impact.has_mean = least >= BBM_IMPACT_ENOUGH && without > 0;
	impact.has_p99 = least >= BBM_IMPACT_ENOUGH_P99;
	if (impact.has_mean)
	{
		double		ratio = with / without;
		double		of_silent = variance_of_mean(silent);
		double		of_worked = variance_of_mean(worked);

		impact.mean_us = without;
		impact.mean = ratio - 1;
		impact.has_error = of_silent >= 0 && of_worked >= 0;
		if (impact.has_error)
			impact.mean_error = sqrt(of_worked + ratio * ratio * of_silent) / without;
	}
	if (impact.has_p99)
	{
		impact.p99_us = bbm_histogram_quantile(silent, 0.99);
		impact.p99 = bbm_histogram_quantile(worked, 0.99) / impact.p99_us - 1;
	}
	return impact;
}
