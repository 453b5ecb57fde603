/*-------------------------------------------------------------------------
 *
 * batch_counts.c
 *		How many batches of a job took how long: the histogram of the metrics.
 *
 * It costs no write of its own: a job of one batch, as most are, needs no
 * histogram, and that of a job of several batches is written with its cursor.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/batch_counts.h"

const double bbm_batch_bounds[BBM_BATCH_BOUNDS] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60};

/* The first bucket, from 1, that counts a batch. */
int
bbm_batch_bucket(double ms)
{
	int			bucket = 0;

	while (bucket < BBM_BATCH_BOUNDS && ms / 1000 > bbm_batch_bounds[bucket])
		bucket++;
	return bucket + 1;
}
