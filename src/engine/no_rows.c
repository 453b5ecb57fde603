/*-------------------------------------------------------------------------
 *
 * no_rows.c
 *		Reports a migration whose first batches change no row.
 *
 * NOTES
 *	  That is no error: the rows may be done already, or the job may write
 *	  another table.  But a filter or a function that never finds anything
 *	  looks like success, too, and users should know early.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/no_rows.h"

#include "utils/snapmgr.h"

#include "base/cancel.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/txn.h"
#include "catalog/claims.h"
#include "catalog/events.h"
#include "catalog/extension.h"
#include "catalog/totals.h"
#include "engine/event.h"

/* After so many batches of one process: a job may be worth many, and a table may have few jobs. */
#define BBM_FIRST_BATCHES 10

#define BBM_NO_ROWS "no_rows"

typedef struct NoRows
{
	const BbmMigration *migration;
	bool		checked;		/* out: the lock was free */
	bool		reported;
} NoRows;

/*
 * The migration's lock keeps another process from reporting it as well, and a
 * user who pauses the migration from changing its jobs meanwhile.  A batch that
 * ends after our snapshot and changes rows is not seen: then the report was
 * true a moment ago.
 */
static void
check(void *arg)
{
	NoRows	   *check = arg;
	int64		id = check->migration->id;
	BbmClaimState state;
	BbmTotals	totals;
	Snapshot	snapshot;

	if (!bbm_lock_migration_at_once(bbm_lock_class(), id))
		return;
	check->checked = true;
	if (!bbm_claim_state(id, &state) || state.status != BBM_RUNNING)
		return;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	bbm_totals_read(id, snapshot, &totals);
	UnregisterSnapshot(snapshot);
	if (bbm_totals_rows(&totals) > 0 || bbm_event_exists(id, BBM_NO_ROWS))
		return;
	BBM_POINT("no-rows-read");
	bbm_report_event(id, check->migration->name, BBM_NO_ROWS, BBM_RUNNING, check->migration->owner,
					 psprintf("the first batches have changed no row (keys: " INT64_FORMAT ", jobs: " INT64_FORMAT ")",
							  bbm_totals_keys(&totals), totals.finished.jobs));
	check->reported = true;
}

/* A batch was done, which is one commit, and changed so many rows. */
void
bbm_no_rows_note(BbmTarget *target, int64 rows)
{
	if (rows > 0)
		target->batches_without_rows = -1;
	else if (target->batches_without_rows >= 0 && !target->migration->phase.verifies)
		target->batches_without_rows++;
}

/*
 * Called between transactions, when a job is done.  An error means that it is
 * checked after the next job; if it is a cancel, which was meant for the
 * process, it is returned.
 */
ErrorData *
bbm_no_rows_check(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	NoRows		args = {.migration = migration};
	ErrorData  *error;

	if (target->batches_without_rows < BBM_FIRST_BATCHES)
		return NULL;
	error = bbm_txn_run(check, &args, false);
	if (error)
		return bbm_error_is_cancel(error) ? error : NULL;
	if (args.checked)
		target->batches_without_rows = -1;
	if (args.reported)
		ereport(WARNING,
				(errmsg("migration \"%s\" has changed no row in its first batches", bbm_printable(migration->name)),
				 errhint("If rows were to be changed, pause it and see what its job finds: bbm_preview shows it.")));
	return NULL;
}
