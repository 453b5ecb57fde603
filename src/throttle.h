/*-------------------------------------------------------------------------
 *
 * throttle.h
 *		From what happened to a delay or a size: pure functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_H
#define BBM_THROTTLE_H

#include "bbm.h"

extern int	bbm_size_of_part(int full, int job, int process);
extern int	bbm_size_after_give_back(int size, int min);
extern int	bbm_size_after_success(int size, int full);
extern bool bbm_time_has_come(TimestampTz now, TimestampTz when, int64 ahead_ms);
extern int64 bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random);

/* What has been measured of a migration's batches, and the size that follows. */
typedef struct BbmSizing
{
	int			size;			/* of the next batch; 0 until the first */
	double		ms_per_key;		/* weighted towards the last batches; 0 unknown */
	double		wal_per_key;
} BbmSizing;

typedef struct BbmSizeLimits
{
	double		target_ms;		/* 0: none */
	double		max_wal;		/* bytes; 0: none */
	int			min_size;
	int			max_size;
} BbmSizeLimits;

extern void bbm_sizing_start(BbmSizing *sizing, const BbmSizeLimits *limits, int size);
extern void bbm_sizing_follow(BbmSizing *sizing, const BbmSizeLimits *limits, int64 keys, double ms, double wal);

#endif							/* BBM_THROTTLE_H */
