/*-------------------------------------------------------------------------
 *
 * hooks.c
 *		Commands of the server that affect our processes.
 *
 * NOTES
 *	  DROP DATABASE and similar commands need a database that nobody is
 *	  connected to.  While one runs, the launcher starts no worker there, and
 *	  those at work requeue their batch and exit.  They are started again when
 *	  it is over, if the database still exists. ddl.c knows which commands
 *	  these are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "server/hooks.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/commit.h"
#include "base/locks.h"
#include "base/next_hook.h"
#include "base/requests.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/wait_event.h"
#include "catalog/extension.h"
#include "server/ddl.h"
#include "server/ended.h"
#include "server/handover.h"

/*
 * How long a command waits for our workers to exit; CountOtherDBBackends adds
 * its five seconds.  A job that catches cancels has lost its process by then
 * (base/cancel.c); one whose process does not even cancel itself is terminated
 * here.
 */
#define BBM_EXIT_MS 10000
#define BBM_TERMINATE_AFTER_MS 7000

static ProcessUtility_hook_type previous_utility = NULL;

/* A database that this transaction keeps our workers out of, and the savepoint that did so. */
typedef struct Blocked
{
	int			level;
	Oid			database;
} Blocked;

static List *blocked = NIL;		/* in TopTransactionContext; one for each database */

/* Workers may be started again, and discovery finds out whether there is work for them. */
static void
unblock(Blocked *entry)
{
	bbm_unlock_database_for_us(entry->database);
	bbm_request_discovery(entry->database);
}

/*
 * A savepoint that is rolled back drops its blocks; one that is released
 * passes them to its parent.  After the rollback it has no lock on the
 * database, or the extension, any more, so nothing else keeps our workers out.
 */
static void
end_savepoint(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, blocked)
	{
		Blocked    *entry = lfirst(cell);

		if (entry->level < level)
			continue;
		entry->level = level - 1;
		if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			blocked = foreach_delete_current(blocked, cell);
			unblock(entry);
		}
	}
}

/*
 * Releases the snapshot that the server has taken for the command, if that is
 * the session's only one: held while we wait, it would keep dead rows from being
 * vacuumed.  Nothing has been read with it, and the command gets another one.
 */
static bool
release_snapshot(void)
{
	if (ActivePortal == NULL || ActivePortal->portalSnapshot == NULL || !ActiveSnapshotSet() ||
		ActivePortal->portalSnapshot != GetActiveSnapshot())
		return false;
	PopActiveSnapshot();
	ActivePortal->portalSnapshot = NULL;
	InvalidateCatalogSnapshot();
	return true;
}

/* Waits until our workers have exited, or until the time is up. */
static void
make_free(Oid database)
{
	/* not the time of day, which may be set back meanwhile */
	double		start = bbm_clock_ms();
	double		now = start;
	bool		released = false;

	ConditionVariablePrepareToSleep(&bbm_shared->changed);
	while (bbm_database_ask_to_exit(database, now >= start + BBM_TERMINATE_AFTER_MS) > 0 && now < start + BBM_EXIT_MS)
	{
		released |= release_snapshot();
		(void) ConditionVariableTimedSleep(&bbm_shared->changed, 100, bbm_wait_event(BBM_WAIT_EXIT));
		now = bbm_clock_ms();
	}
	ConditionVariableCancelSleep();
	if (released)
		EnsurePortalSnapshotExists();
}

/*
 * The transaction is over, whatever the command's result: until then another
 * session would still see the database, or the extension, as it was.  After
 * PREPARE TRANSACTION the server's own lock keeps workers out.
 */
static void
unblock_all(XactEvent event, void *arg)
{
	List	   *list = blocked;
	ListCell   *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	blocked = NIL;
	foreach(cell, list)
		unblock(lfirst(cell));
}

/*
 * Makes our workers exit from a database, and starts none there until the
 * current savepoint is rolled back, or the transaction ends.  The entry is
 * made first, so that a lock that was taken is released whatever happens.
 */
static void
block(Oid database)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Blocked    *entry;
	ListCell   *cell;
	bool		known = false;

	foreach(cell, blocked)
		known = known || ((Blocked *) lfirst(cell))->database == database;
	if (!known)
	{
		entry = palloc(sizeof(Blocked));
		entry->level = GetCurrentTransactionNestLevel();
		entry->database = database;
		blocked = lappend(blocked, entry);
	}
	MemoryContextSwitchTo(old);
	if (!known)
		bbm_lock_database_for_us(database);
	make_free(database);
}

/*
 * COMMIT PREPARED: it may start a migration, and then the session that has
 * prepared it is not here to say so.  But most of these transactions are others'; with
 * distributed tables, each write to several nodes is one on each of them.  One
 * that creates the extension may have defined migrations in it.
 */
static void
commit_prepared(BBM_UTILITY_PARAMETERS)
{
	const BbmCatalog *catalog = IsTransactionState() ? bbm_catalog_find() : NULL;
	bool		known = catalog != NULL;
	bool		writes = known && bbm_table_is_written(catalog->migrations);

	bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
	if (writes || (!known && OidIsValid(get_extension_oid("bbm", true))))
		bbm_request_discovery(MyDatabaseId);
}

static void
utility(BBM_UTILITY_PARAMETERS)
{
	Node	   *statement = pstmt->utilityStmt;
	Oid			database = InvalidOid;
	Oid			owner = InvalidOid;

	if (IsA(statement, TransactionStmt) && ((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED &&
		bbm_shared != NULL)
	{
		commit_prepared(BBM_UTILITY_ARGUMENTS);
		return;
	}
	/* a transaction command may run where no catalog can be read */
	if (!IsA(statement, TransactionStmt) && bbm_shared != NULL)
	{
		database = bbm_ddl_database_needed(statement, context == PROCESS_UTILITY_TOPLEVEL);
		owner = bbm_handover_begin(statement);
	}
	/* if it needs this database, the extension is to be dropped */
	if (OidIsValid(database) && IsA(statement, DropStmt))
		bbm_report_ended();
	if (OidIsValid(database))
		block(database);
	bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
	if (OidIsValid(owner))
		bbm_handover_end(owner);
}

/* Called once per process, from _PG_init.  The commands matter only with shared memory. */
void
bbm_hooks_install(void)
{
	bbm_commit_install();
	RegisterXactCallback(unblock_all, NULL);
	RegisterSubXactCallback(end_savepoint, NULL);
	if (process_shared_preload_libraries_in_progress)
	{
		previous_utility = ProcessUtility_hook;
		ProcessUtility_hook = utility;
	}
}
