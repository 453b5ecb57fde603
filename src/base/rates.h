/*-------------------------------------------------------------------------
 *
 * rates.h
 *		Computing delays and sizes from measurements: pure functions
 *		with the clock as an argument.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_RATES_H
#define BBM_BASE_RATES_H

#include "base/bbm.h"

extern int	bbm_commits_of_claim(double commit_ms);
extern int	bbm_size_of_last_claims(int64 left, int commit, int workers);
extern int	bbm_size_of_sub_batch(int full, int job, int process);
extern int	bbm_size_after_requeue(int size, int min);
extern int	bbm_size_after_success(int size, int full);
extern bool bbm_time_has_come(TimestampTz now, TimestampTz when, int64 ahead_ms);
extern int64 bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random);

/* What was used beyond a rate and has to be waited for; empty when zeroed. */
typedef struct BbmBucket
{
	TimestampTz at;				/* when "debt" was true */
	double		debt;			/* in units of the rate */
} BbmBucket;

extern PGDLLEXPORT void bbm_bucket_spend(BbmBucket *bucket, TimestampTz since, TimestampTz now, double rate,
										 double amount);
extern PGDLLEXPORT TimestampTz bbm_bucket_due(const BbmBucket *bucket, double rate);

/*
 * Positions that only grow, with their times.  It shows since when a follower
 * is behind.  Empty when zeroed.
 */
#define BBM_TRACE_SAMPLES 64

typedef struct BbmTrace
{
	int			n;
	struct
	{
		TimestampTz at;
		uint64		position;
	}			samples[BBM_TRACE_SAMPLES];
} BbmTrace;

extern void bbm_trace_note(BbmTrace *trace, TimestampTz now, uint64 position);
extern TimestampTz bbm_trace_behind_since(const BbmTrace *trace, uint64 position);

/* No poll is further off. */
#define BBM_LAST_POLL_MS (30 * 1000)

/* How long to wait before the next poll, when throttled for throttled_ms. */
extern int64 bbm_next_poll_ms(int64 throttled_ms, int64 first_ms);
extern int	bbm_poll_when_done_ms(int64 left, int64 done, int64 in_us, int soonest_ms, int usual_ms);
extern int	bbm_poll_less_often_ms(int times, int soonest_ms, int usual_ms);

/* Measurements of a migration's batches, and the size they lead to. */
typedef struct BbmSizing
{
	int			size;			/* of the next batch; 0 until the first */
	double		ms_per_key;		/* weighted towards the last batches; 0: unknown */
	double		wal_per_key;
} BbmSizing;

typedef struct BbmSizeLimits
{
	double		target_ms;		/* 0: none */
	double		max_wal;		/* bytes; 0: none */
	int			min_size;
	int			max_size;
} BbmSizeLimits;

extern PGDLLEXPORT void bbm_sizing_start(BbmSizing *sizing, const BbmSizeLimits *limits, int size);
extern PGDLLEXPORT void bbm_sizing_adapt(BbmSizing *sizing, const BbmSizeLimits *limits, int64 keys, double ms,
										  double wal);

#endif							/* BBM_BASE_RATES_H */
