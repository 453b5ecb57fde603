/*-------------------------------------------------------------------------
 *
 * stalled.c
 *		Reports migrations without progress, and why.
 *
 * NOTES
 *	  Discovery, which checks the database every bbm.naptime anyway, calls
 *	  this.  There is no polling for this alone.
 *
 *-------------------------------------------------------------------------
 */
#include "server/stalled.h"

#include "miscadmin.h"

#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/stalled.h"
#include "catalog/tables.h"
#include "engine/event.h"
#include "throttle/throttle.h"

typedef struct WatchArgs
{
	MemoryContext context;
	List	   *stalled;		/* BbmStalled */
} WatchArgs;

/*
 * Makes the check, without those that are not to move.  It locks nothing: another
 * session may change a migration meanwhile.
 */
static void
watch(void *arg)
{
	WatchArgs  *args = arg;
	const BbmCatalog *catalog = bbm_catalog_find();
	TimestampTz long_ago = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -INT64CONST(1000) * bbm_stalled_after);
	ListCell   *cell;

	bbm_ours_begin();
	if (catalog == NULL || !bbm_catalog_matches(catalog))
		return;
	args->stalled = bbm_migrations_stalled(args->context);
	foreach(cell, args->stalled)
	{
		const BbmStalled *stalled = lfirst(cell);
		const BbmMigration *migration = bbm_migration_by_id(stalled->id, CurrentMemoryContext);

		/* by its hours alone: what it waited for is not known after a restart of the server */
		if (stalled->status != BBM_PAUSED && migration &&
			bbm_throttle_hours_last(migration, long_ago, bbm_stalled_after) != bbm_stalled_after)
			args->stalled = foreach_delete_current(args->stalled, cell);
	}
}

/*
 * Adds an event for each stalled migration, with its state at the check; only
 * one discovery runs at a time, so none is reported twice.  This is not done
 * in the transaction of the check, so that if nothing can be written, since
 * the disk is full, the log still has it.
 */
static void
write_events(void *arg)
{
	WatchArgs  *args = arg;
	ListCell   *cell;

	BBM_POINT("stalled-found");
	foreach(cell, args->stalled)
	{
		BbmStalled *stalled = lfirst(cell);

		bbm_report_event(stalled->id, stalled->name, "stalled", stalled->status, stalled->owner,
						 stalled->status == BBM_PAUSED ? psprintf("paused, and nothing has happened since %s", stalled->since) :
						 psprintf("no progress since %s; waits for: %s%s%s", stalled->since, stalled->waiting_on,
								  stalled->last_error ? "; last error: " : "",
								  stalled->last_error ? stalled->last_error : ""));
	}
}

/* Called between transactions of discovery. */
void
bbm_report_stalled(void)
{
	WatchArgs	args = {CurrentMemoryContext, NIL};
	ErrorData  *error = bbm_txn_run(watch, &args, false);
	ListCell   *cell;

	if (error)
	{
		/* the next check will follow */
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not check for stalled migrations in database with OID %u: %s",
						MyDatabaseId, bbm_printable(error->message))));
		return;
	}
	if (args.stalled != NIL && (error = bbm_txn_run(write_events, &args, false)) != NULL)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not record stalled migrations in database with OID %u: %s",
						MyDatabaseId, bbm_printable(error->message))));
	foreach(cell, args.stalled)
	{
		BbmStalled *stalled = lfirst(cell);
		const char *name = bbm_printable(stalled->name);

		if (stalled->status == BBM_PAUSED)
			ereport(WARNING,
					(errmsg("migration \"%s\" is paused, and nothing has happened to it since %s", name, stalled->since),
					 errhint("Start it or drop it; \"bbm.stale_pause_after\" is the limit.")));
		else
			ereport(WARNING,
					(errmsg("migration \"%s\" has made no progress since %s", name, stalled->since),
					 stalled->last_error ?
					 errdetail("It waits for: %s. The last error was: %s", bbm_printable(stalled->waiting_on),
							   bbm_printable(stalled->last_error)) :
					 errdetail("It waits for: %s.", bbm_printable(stalled->waiting_on)),
					 errhint("\"bbm.stalled_after\" is the limit.")));
	}
}
