/*-------------------------------------------------------------------------
 *
 * batch_counts.h
 *		How many batches of a job took how long: the histogram of the metrics.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_BATCH_COUNTS_H
#define BBM_CATALOG_BATCH_COUNTS_H

#include "base/bbm.h"

#define BBM_BATCH_BOUNDS 10
/* the last bucket counts them all */
#define BBM_BATCH_BUCKETS 11

/* The upper bounds, in seconds, of all buckets but the last, which has none. */
extern const double bbm_batch_bounds[BBM_BATCH_BOUNDS];

extern int	bbm_batch_bucket(double ms);

/*
 * batch_counts of a job in SQL, with one more batch in a bucket, a parameter.
 * Like Prometheus's, the buckets are cumulative.  It is NULL for a job of one
 * batch: its run_ms shows the bucket.
 */
#define BBM_BATCH_COUNT(i, bucket) \
	"least(coalesce(batch_counts[" #i "], 0), 2147483646) + (" bucket " <= " #i ")::integer"
/* clang-format off */
#define BBM_BATCH_COUNTED(bucket) \
	"ARRAY[" BBM_BATCH_COUNT(1, bucket) ", " BBM_BATCH_COUNT(2, bucket) ", " BBM_BATCH_COUNT(3, bucket) ", " \
	BBM_BATCH_COUNT(4, bucket) ", " BBM_BATCH_COUNT(5, bucket) ", " BBM_BATCH_COUNT(6, bucket) ", " \
	BBM_BATCH_COUNT(7, bucket) ", " BBM_BATCH_COUNT(8, bucket) ", " BBM_BATCH_COUNT(9, bucket) ", " \
	BBM_BATCH_COUNT(10, bucket) ", " BBM_BATCH_COUNT(11, bucket) "]"
/* clang-format on */

#endif							/* BBM_CATALOG_BATCH_COUNTS_H */
