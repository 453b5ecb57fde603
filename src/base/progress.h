/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How fast a migration advances, by the clock: pure functions with the
 *		time as an argument.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_PROGRESS_H
#define BBM_BASE_PROGRESS_H

#include "base/bbm.h"

#define BBM_MINUTE_MS (60.0 * 1000)

/* What has been done up to a moment. All counts and times begin with the migration and only grow. */
typedef struct BbmSample
{
	double		at_ms;			/* the clock, since an arbitrary start */
	double		keys;
	double		rows;
	double		worked_ms;		/* time in batches, of all workers */
	double		paced_ms;		/* time in which a worker paced itself */
	double		left_out_ms;	/* time that does not count: throttled, paused, or without a worker */
	double		begins;			/* 1: not the end of a batch, but somebody began to work; else 0 */
} BbmSample;

/* How many numbers a sample has, and at most how many samples are kept: enough for five minutes. */
#define BBM_SAMPLE_NUMBERS 7
#define BBM_SAMPLES 33

/* The oldest sample comes first; empty when zeroed. */
typedef struct BbmHistory
{
	int			n;
	BbmSample	samples[BBM_SAMPLES];
} BbmHistory;

typedef struct BbmRate
{
	bool		known;
	double		seconds;		/* measured over so long */
	double		keys;			/* done in that time */
	double		keys_per_second;
	double		rows_per_second;
	double		pace;			/* share of the time in which it works; negative: unknown */
} BbmRate;

extern bool bbm_nobody_works(const BbmSample *now, double last_at_ms, double start_ms);
extern PGDLLEXPORT void bbm_history_resume(BbmHistory *history, BbmSample *now, bool idle, double done_at_ms,
										   double start_ms);
extern PGDLLEXPORT void bbm_history_note(BbmHistory *history, const BbmSample *now);
extern PGDLLEXPORT BbmRate bbm_history_rate(const BbmHistory *history, const BbmSample *live, double done_at_ms,
											double batch_keys, double window_ms);

extern PGDLLEXPORT BbmRate bbm_rate_for_rest(const BbmRate *minute, const BbmRate *five, double batch_keys);

/* What is known about how much there is to do. */
typedef struct BbmWhole
{
	double		done;			/* keys done */
	double		allocated;		/* keys in all ranges that were allocated, done or not */
	double		estimate;		/* of all keys, before the first range was allocated; negative: unknown */
	double		first;			/* has_ends: the key is an integer, and these are the ends of the range, ... */
	double		last;
	double		allocated_to;	/* ... and the last key for which a range was allocated; all count from any key */
	bool		has_ends;
	bool		complete;		/* all ranges were allocated */
} BbmWhole;

extern double bbm_whole_keys(const BbmWhole *whole);
extern PGDLLEXPORT double bbm_whole_percent(const BbmWhole *whole);

#endif							/* BBM_BASE_PROGRESS_H */
