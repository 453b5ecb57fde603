/*
 * Properties of base/rates.c, which computes sizes and delays.
 */
#include "properties.h"

#include "utils/timestamp.h"

#include "base/rates.h"

/* never longer than the limit, never shorter than the first delay less a third */
static bool
backoff_is_bounded(const uint32 *n)
{
	int64		first = n[1] % 100000;
	int64		most = first + n[2] % 1000000;
	int64		delay = bbm_backoff_ms(1 + n[0] % 200, first, most, (n[3] % 1000) / 1000.0);

	return delay >= first * 2 / 3 - 1 && delay <= most;
}

/* the next try never waits for less, with the same luck */
static bool
backoff_grows(const uint32 *n)
{
	int			attempt = 1 + n[0] % 200;
	int64		first = n[1] % 100000;
	int64		most = n[2] % 1000000;
	double		luck = (n[3] % 1000) / 1000.0;

	return bbm_backoff_ms(attempt, first, most, luck) <= bbm_backoff_ms(attempt + 1, first, most, luck);
}

/* whoever waits until the debt is paid uses, over any number of batches, no more than the rate */
static bool
bucket_keeps_rate(const uint32 *n)
{
	BbmBucket	bucket = {0};
	double		rate = 1 + n[0] % 1000;
	TimestampTz now = USECS_PER_SEC;
	TimestampTz begin = now;
	double		used = 0;

	for (int i = 0; i < (int) (n[1] % 20); i++)
	{
		double		amount = (n[2] + 7919 * i * n[3]) % 5000;
		TimestampTz since = now;

		now += (TimestampTz) ((n[4] + 104729 * i * n[5]) % 2000000);
		bbm_bucket_spend(&bucket, since, now, rate, amount);
		used += amount;
		if (bbm_bucket_due(&bucket, rate) > now)
			now = bbm_bucket_due(&bucket, rate);
	}
	/* a microsecond per batch is rounded away */
	return used <= rate * ((double) (now - begin + 20) / USECS_PER_SEC);
}

/* of several who use it without waiting, nothing is forgotten: all of it is paid at the rate, from the first one on */
static bool
bucket_forgets_nothing(const uint32 *n)
{
	BbmBucket	bucket = {0};
	double		rate = 1 + n[0] % 1000;
	TimestampTz now = USECS_PER_SEC;
	double		used = 0;

	for (int i = 0; i < (int) (n[1] % 20); i++)
	{
		double		amount = (n[2] + 7919 * i * n[3]) % 5000;
		TimestampTz since = now;

		now += (TimestampTz) ((n[4] + 104729 * i * n[5]) % 20000);
		bbm_bucket_spend(&bucket, since, now, rate, amount);
		used += amount;
	}
	/* a microsecond per batch is rounded away; no debt is of more than a day */
	return bbm_bucket_due(&bucket, rate) + 20 >=
		USECS_PER_SEC + (TimestampTz) (Min(used / rate, SECS_PER_DAY) * USECS_PER_SEC) || n[1] % 20 == 0;
}

/* sizes stay within their limits, at most double what was tried, and never grow beyond what the time allows */
static bool
size_adapts(const uint32 *n)
{
	BbmSizeLimits limits = {.target_ms = n[0] % 1000, .max_wal = n[1] % 1000, .min_size = 1 + n[2] % 100};
	BbmSizing	sizing;
	int			before;
	int64		keys;

	limits.max_size = limits.min_size + n[3] % 10000;
	bbm_sizing_start(&sizing, &limits, n[4] % 20000);
	if (sizing.size < limits.min_size || sizing.size > limits.max_size)
		return false;
	before = sizing.size;
	keys = 1 + n[5] % before;
	bbm_sizing_adapt(&sizing, &limits, keys, n[4] % 3000, n[0] % 3000);
	if (sizing.size < limits.min_size || sizing.size > limits.max_size || sizing.size > 2 * before)
		return false;
	/* the first measure counts in full: as many keys as fit, or the least */
	return limits.target_ms == 0 || sizing.size == limits.min_size ||
		sizing.size * ((n[4] % 3000) / (double) keys) <= limits.target_ms * 1.000001;
}

/* a reduced size halves down to the least one, and from there it grows back to the full size */
static bool
size_comes_back(const uint32 *n)
{
	int			full = 2 + n[0] % 100000;
	int			size = bbm_size_after_requeue(2 + n[1] % full, 1);

	for (int i = 0; i < 200; i++)
	{
		int			next = bbm_size_after_success(size, full);

		if (next == 0)
			return true;
		if (next <= size || next >= full)
			return false;
		size = next;
	}
	return false;
}

/* the least of those that are set */
static bool
sub_batch_is_least(const uint32 *n)
{
	int			size = bbm_size_of_sub_batch(n[0] % 50, n[1] % 50, n[2] % 50);
	int			least = 0;

	for (int i = 0; i < 3; i++)
	{
		if (n[i] % 50 != 0 && (least == 0 || (int) (n[i] % 50) < least))
			least = n[i] % 50;
	}
	return size == least;
}

/* a claim lasts about 50 ms where that is within the bounds, and is not longer for slower commits */
static bool
claim_is_bounded(const uint32 *n)
{
	double		ms = (n[0] % 200000) / 1000.0;
	int			commits = bbm_commits_of_claim(ms);

	if (commits < 10 || commits > 200 || bbm_commits_of_claim(-ms) != 10)
		return false;
	/* not known */
	if (ms == 0)
		return commits == 10;
	if (commits < bbm_commits_of_claim(ms + n[1] % 1000))
		return false;
	return commits == 10 || commits == 200 || (commits * ms <= 50 && (commits + 1) * ms > 50);
}

/* what is left is shared: each takes a part, one commit at least, and all together come to an end of it */
static bool
last_claims_end(const uint32 *n)
{
	int			commit = 1 + n[1] % 10000;
	int			workers = 1 + n[2] % 256;
	int64		left = n[0];

	for (int claims = 0; left > 0; claims++)
	{
		int			size = bbm_size_of_last_claims(left, commit, workers);

		if (size < commit || (size > commit && size > left) || (workers > 1 && size > commit && size > left / 2) ||
			claims > 100000)
			return false;
		left -= size;
		/* the tail is one commit each */
		if (size == commit)
			break;
	}
	return bbm_size_of_last_claims(PG_INT64_MAX, commit, 1) == PG_INT32_MAX;
}

/* with the times when a follower was behind: never later than the first position beyond its own */
static bool
trace_is_not_late(const uint32 *n)
{
	BbmTrace	trace = {0};
	TimestampTz at = 1;
	uint64		position = 0;
	uint64		reached = n[2] % 1000;
	TimestampTz since = 0;
	TimestampTz found;

	for (int i = 0; i < (int) (n[0] % 300); i++)
	{
		at += INT64CONST(100000) + (n[1] + 31 * i * n[3]) % 1000000;
		position += 1 + (n[4] + 17 * i * n[5]) % 50;
		bbm_trace_note(&trace, at, position);
		if (position > reached && since == 0)
			since = at;
	}
	found = bbm_trace_behind_since(&trace, reached);
	/* a full trace is coarser: it may then be later, but not be silent */
	return trace.n == 0 ? found == 0 : (since == 0) == (found == 0) && found >= since;
}

/* it is polled when it is done, if it goes on as it did; never later than usual, nor sooner than is allowed */
static bool
poll_meets_end(const uint32 *n)
{
	int64		left = n[0] % 1000000;
	int64		done = n[1] % 1000000;
	int64		in_us = n[2] % 5000000;
	int			soonest = 1 + n[3] % 500;
	int			usual = soonest + n[4] % 2000;
	int			ms = bbm_poll_when_done_ms(left, done, in_us, soonest, usual);
	double		done_then = left == 0 ? 0 : (double) done * ms * 1000 / in_us;

	if (left == 0 || done == 0 || in_us == 0)
		return ms == usual;
	return ms >= soonest && ms <= usual && (ms == soonest || done_then <= left * 1.001) &&
		(ms == usual || done_then * (ms + 1) >= left * 0.999 * ms);
}

/* what takes longer than was thought is not polled more often for that */
static bool
poll_does_not_hurry(const uint32 *n)
{
	return bbm_poll_when_done_ms(-(int64) (n[0] % 1000), n[1] % 1000, n[2] % 1000000, 100, 1000) == 1000;
}

/* the first one is soon; within twice the usual time there are no more than so many, and then they are as usual */
static bool
poll_backs_off(const uint32 *n)
{
	int			soonest = 1 + n[0] % 500;
	int			usual = soonest + n[1] % 5000;
	int			before = soonest;
	int64		all = 0;

	for (int i = 0; i < 40; i++)
	{
		int			ms = bbm_poll_less_often_ms(i, soonest, usual);

		if (ms < before || ms > usual || (i == 0 && ms != soonest) || (ms < usual && all > 2 * (int64) usual))
			return false;
		before = ms;
		all += ms;
	}
	return before == usual;
}

const Property rates_properties[] = {
	{"backoff_is_bounded", backoff_is_bounded},
	{"backoff_grows", backoff_grows},
	{"bucket_keeps_rate", bucket_keeps_rate},
	{"bucket_forgets_nothing", bucket_forgets_nothing},
	{"size_adapts", size_adapts},
	{"size_comes_back", size_comes_back},
	{"sub_batch_is_least", sub_batch_is_least},
	{"claim_is_bounded", claim_is_bounded},
	{"last_claims_end", last_claims_end},
	{"trace_is_not_late", trace_is_not_late},
	{"poll_meets_end", poll_meets_end},
	{"poll_does_not_hurry", poll_does_not_hurry},
	{"poll_backs_off", poll_backs_off},
	{0}
};
