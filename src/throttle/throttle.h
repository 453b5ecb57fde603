/*-------------------------------------------------------------------------
 *
 * throttle.h
 *		Does the server have room for another batch?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_THROTTLE_H
#define BBM_THROTTLE_THROTTLE_H

#include "base/bbm.h"

#include "base/shared.h"
#include "catalog/job_record.h"
#include "target/target.h"

/* What a migration waits for, and until when. */
typedef struct BbmWait
{
	BbmReason	reason;			/* poll again when it is due */
	TimestampTz since;
	bool		begins;			/* it has not been waiting before */
	bool		of_process;		/* this process pauses, to keep its pace: nothing that a migration waits for */
	ErrorData  *cancelled;		/* the check was cancelled */
} BbmWait;

/* What a migration is shown to wait for; NULL for a pause of one of its processes, which is not shown. */
static inline const BbmReason *
bbm_wait_reason(const BbmWait *wait)
{
	return wait->of_process ? NULL : &wait->reason;
}

/* When a migration has waited for this long, the wait is reported. */
#define BBM_REPORT_WAIT_MS 1000

extern bool bbm_is_throttled(BbmTarget *target, bool may_help, BbmWait *wait);
extern bool bbm_throttle_lets_follow(BbmTarget *target);
extern void bbm_throttle_spent(const BbmTarget *target, const BbmCost *cost);

/* One signal, for display. */
typedef struct BbmThrottleRow
{
	const char *signal;			/* its word */
	const char *setting;		/* what limits it */
	bool		checked;		/* false: only workers check it, and the rest is not set */
	const char *value;			/* NULL: it cannot be measured */
	const char *limit;
	bool		has_share;
	double		share;			/* of the limit that the value is */
	const char *reason;			/* why it throttles; NULL: it does not */
	double		microseconds;	/* that the check took */
} BbmThrottleRow;

typedef void (*BbmThrottleSink) (void *arg, const BbmThrottleRow *row);

extern void bbm_throttle_show(const BbmMigration *migration, Oid relid, BbmThrottleSink sink, void *arg);

/* Gets for how long a migration was throttled by a signal, and whether it is now. */
typedef void (*BbmWaitedSink) (void *arg, int64 migration_id, const char *signal, double seconds, bool now);

extern double bbm_throttle_hours_last(const BbmMigration *migration, TimestampTz from, double seconds);
extern void bbm_throttle_waited(BbmWaitedSink sink, void *arg);

#endif							/* BBM_THROTTLE_THROTTLE_H */
