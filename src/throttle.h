/*-------------------------------------------------------------------------
 *
 * throttle.h
 *		From what happened to a delay: pure functions with the clock as an
 *		argument.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_H
#define BBM_THROTTLE_H

#include "bbm.h"

extern int64 bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random);

/* What was used beyond a rate and is to be waited for; zeroed it is empty. */
typedef struct BbmBucket
{
	TimestampTz at;				/* when "debt" was true */
	double		debt;			/* in units of the rate */
} BbmBucket;

extern void bbm_bucket_spend(BbmBucket *bucket, TimestampTz now, double rate, double amount);
extern TimestampTz bbm_bucket_due(const BbmBucket *bucket, double rate);

/*
 * How far something has come, and when: positions that only grow.  Tells since
 * when a follower is behind.  Zeroed it is empty.
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

/* How long to leave alone what has held for so long. */
extern int64 bbm_look_again_ms(int64 held_ms, int64 first_ms);

#endif							/* BBM_THROTTLE_H */
