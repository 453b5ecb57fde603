/*-------------------------------------------------------------------------
 *
 * outcome.h
 *		What becomes of a migration or a job, and recording it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_OUTCOME_H
#define BBM_ENGINE_OUTCOME_H

#include "base/bbm.h"

#include "base/lock_watch.h"
#include "target/target.h"

/* What happens to a status that a user sets. */
typedef enum BbmTransition
{
	BBM_CHANGE,					/* as asked */
	BBM_KEEP,					/* nothing to do */
	BBM_KEEP_FINISHED,			/* finished stays finished, with a WARNING */
	BBM_REFUSE					/* users may not set it */
} BbmTransition;

extern BbmTransition bbm_transition(BbmStatus from, int to);

/* What is determined about a migration before it is started. */
typedef struct BbmStart
{
	int64		estimate;		/* keys to do */
	BbmBound	min;			/* of a key that is not an integer, if no bounds were given */
	BbmBound	max;
} BbmStart;

extern void bbm_prepare_start(BbmTarget *target, BbmStart *start);
extern void bbm_record_started(const BbmTarget *target, const BbmStart *start);

/*
 * A job that is requeued again and again, without progress in between, has a
 * problem of its own, and from then on each time counts as an attempt.  A lock
 * that was not acquired may be due to another session's long transaction, so
 * that takes a thousand times, which with their delays is hours.  A batch that
 * blocks others or is too slow even though it cannot be made any smaller is
 * itself the cause: twenty times.
 */
#define BBM_MAX_NO_PROGRESS 1000
#define BBM_NO_PROGRESS_BY_ITSELF (BBM_MAX_NO_PROGRESS / 20)

extern bool bbm_record_failure(BbmTarget *target, BbmJob *job, BbmLockWatchStop stop, ErrorData *error, int step_code);
extern void bbm_record_release_unstarted(BbmTarget *target, BbmJob *job);
extern void bbm_record_stale(BbmTarget *target, BbmJob *job);
extern bool bbm_record_migration_failed(const BbmMigration *migration, int code, ErrorData *error);
extern ErrorData *bbm_stop_error(BbmLockWatchStop stop, ErrorData *error, bool whole);

#endif							/* BBM_ENGINE_OUTCOME_H */
