/*-------------------------------------------------------------------------
 *
 * impact.h
 *		What migrations cost the statements of others: windows of time, and the
 *		durations of the statements that start in them.
 *
 * Pure functions: no clock, no state of their own.  Times are in microseconds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_IMPACT_H
#define BBM_BASE_IMPACT_H

#include "base/bbm.h"

/* What the processes of bbm do in a window. */
typedef enum BbmWindowKind
{
	BBM_WINDOW_SILENT,			/* none of them works: the control */
	BBM_WINDOW_WORKED,			/* they work as ever, and statements are counted as in a silent one */
	BBM_WINDOW_OTHER			/* they work as ever */
} BbmWindowKind;

/* The kinds that are counted. */
#define BBM_WINDOW_KINDS BBM_WINDOW_OTHER

/* One window in so many is silent, and another one is counted without being silent. */
#define BBM_WINDOW_ODDS 16

/* A window lasts for 2 to the power of so many microseconds, or of up to so many more where batches are long. */
#define BBM_WINDOW_BITS 15
#define BBM_WINDOW_MOST_SHIFT 6

/*
 * Durations: exact below 32 us, and then 32 buckets for each doubling, up to
 * 16.8 s.  What took longer is not counted: most of it ran outside of the window
 * that it started in.
 */
#define BBM_IMPACT_BITS 5
#define BBM_IMPACT_LONGEST_BITS 24
#define BBM_IMPACT_BUCKETS ((BBM_IMPACT_LONGEST_BITS - BBM_IMPACT_BITS + 1) << BBM_IMPACT_BITS)

/* So many statements of each kind make a mean, and a 99th percentile. */
#define BBM_IMPACT_ENOUGH 100
#define BBM_IMPACT_ENOUGH_P99 1000

/* Windows are divided into so many groups by lot; statements in so many of them show how much groups differ. */
#define BBM_IMPACT_GROUPS 32
#define BBM_IMPACT_ENOUGH_GROUPS 8

/* The statements in a group of windows. */
typedef struct BbmImpactGroup
{
	int64		n;
	double		us;				/* what they took together */
} BbmImpactGroup;

typedef struct BbmHistogram
{
	int64		n;
	uint32		counts[BBM_IMPACT_BUCKETS];
	BbmImpactGroup groups[BBM_IMPACT_GROUPS];
} BbmHistogram;

/* By which share of the time without work a statement takes longer: 0.1 is a tenth. */
typedef struct BbmImpact
{
	int64		statements;		/* of both kinds */
	bool		has_mean;
	double		mean;
	bool		has_error;
	double		mean_error;		/* standard error of that */
	double		mean_us;		/* of a statement, without */
	bool		has_p99;
	double		p99;
	double		p99_us;
} BbmImpact;

extern PGDLLEXPORT BbmWindowKind bbm_window_kind(uint64 seed, int64 at_us, int shift);
extern PGDLLEXPORT int bbm_window_group(uint64 seed, int64 at_us, int shift);
extern PGDLLEXPORT bool bbm_window_counts(int64 at_us, int shift);
extern PGDLLEXPORT int64 bbm_window_end(int64 at_us, int shift);
extern int	bbm_window_shift(double longest_us);

extern PGDLLEXPORT int bbm_impact_bucket(int64 us);
extern PGDLLEXPORT double bbm_impact_bucket_begin(int bucket);
extern PGDLLEXPORT void bbm_histogram_add(BbmHistogram *histogram, int group, int64 us);
extern PGDLLEXPORT double bbm_histogram_mean(const BbmHistogram *histogram);
extern PGDLLEXPORT void bbm_histogram_since(BbmHistogram *histogram, const BbmImpactGroup *before);
extern double bbm_histogram_quantile(const BbmHistogram *histogram, double share);
extern PGDLLEXPORT BbmImpact bbm_impact_between(const BbmHistogram *silent, const BbmHistogram *worked);

#endif							/* BBM_BASE_IMPACT_H */
