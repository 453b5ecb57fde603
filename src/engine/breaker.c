/*-------------------------------------------------------------------------
 *
 * breaker.c
 *		max_failed_share: pauses a migration when too many of its newest jobs
 *		fail.
 *
 * NOTES
 *	  This is checked after each job that has failed, once that is recorded.
 *	  The count begins anew when the migration is started: what had failed
 *	  before counts only if it fails again.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/breaker.h"

#include "access/xact.h"

#include "base/cancel.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/slots.h"
#include "base/txn.h"
#include "catalog/migrations.h"
#include "catalog/recent.h"

/* How many of the newest jobs are checked, and how many of these have to have ended. */
#define BBM_BREAKER_JOBS 100
#define BBM_BREAKER_FEWEST 20

typedef struct Breaker
{
	const BbmMigration *migration;
	int64		jobs;
	int64		failed;
	ErrorData  *reason;
	bool		paused;
} Breaker;

static void
count_jobs(void *arg)
{
	Breaker    *breaker = arg;

	bbm_recent_jobs(breaker->migration->id, BBM_BREAKER_JOBS, &breaker->jobs, &breaker->failed);
}

/*
 * Between the count and the row's lock a user may have paused or changed the
 * migration, or another process may have paused it for the same reason: then
 * this does nothing, and the next job that fails is counted again.  The lock
 * keeps other changes out until we commit.  Batches in flight end as after any
 * pause.
 */
static void
pause_it(void *arg)
{
	Breaker    *breaker = arg;
	BbmStatus	status;

	BBM_POINT("breaker-begin");
	breaker->paused = bbm_migration_lock_as_read(breaker->migration, &status) && status == BBM_RUNNING;
	if (!breaker->paused)
		return;
	bbm_migration_pause(breaker->migration->id, breaker->reason);
	/* as when it fails: see engine/outcome.c */
	ForceSyncCommit();
}

/*
 * A job of the migration has failed with this error, which is recorded.  Is the
 * migration paused because of it?  An error of the check is returned in *error
 * if it is a cancel, which was meant for this process; any other only means
 * that the next failure is checked.
 */
bool
bbm_breaker_trips(const BbmMigration *migration, const ErrorData *last, ErrorData **error)
{
	Breaker		breaker = {.migration = migration};

	if (migration->max_failed_share < 0)
		return false;
	*error = bbm_txn_run(count_jobs, &breaker, false);
	if (*error == NULL && (breaker.jobs < BBM_BREAKER_FEWEST ||
						   breaker.failed <= migration->max_failed_share * breaker.jobs))
		return false;
	if (*error == NULL)
	{
		breaker.reason = bbm_make_error(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
										psprintf(INT64_FORMAT " of the last " INT64_FORMAT " jobs failed",
												 breaker.failed, breaker.jobs),
										"bbm_jobs shows them. Correct the cause, then start the migration: it counts anew. Or raise max_failed_share.");
		breaker.reason->detail = psprintf("max_failed_share is %g. The last error was: %s", migration->max_failed_share,
										  last->message);
		*error = bbm_txn_run(pause_it, &breaker, migration->synchronous);
	}
	if (*error)
	{
		if (!bbm_error_is_cancel(*error))
			*error = NULL;
		return false;
	}
	if (!breaker.paused)
		return false;
	ereport(LOG,
			(errmsg("migration \"%s\" is paused: %s", bbm_printable(migration->name), breaker.reason->message),
			 errdetail_internal("%s", bbm_printable(breaker.reason->detail)),
			 errhint("%s", breaker.reason->hint)));
	bbm_state_changed();
	return true;
}
