/*-------------------------------------------------------------------------
 *
 * hooks.c
 *		Commands of the server that our processes must know of.
 *
 * NOTES
 *	  DROP DATABASE and its like need a database that nobody is connected to.
 *	  While one runs, the launcher starts no worker there, and those at work
 *	  give their batch back and leave.  They come back when it is over, if the
 *	  database is still there.
 *
 *	  A COMMIT of ours is told to the launcher from a transaction callback.
 *	  COMMIT PREPARED runs in another session than the one whose callback would
 *	  tell, so it asks for a look.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "storage/condition_variable.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"

#include "compat.h"
#include "hooks.h"
#include "shmem.h"

/* How long a command waits for our workers to leave; CountOtherDBBackends adds its five seconds. */
#define BBM_LEAVE_MS 10000

#define BBM_MAX_WAKES 16

static ProcessUtility_hook_type previous_utility = NULL;

static Oid	to_wake[BBM_MAX_WAKES];
static int	n_to_wake = 0;
static bool wake_overflow = false;
static bool to_tell = false;
static bool blocked = false;	/* some database, by this transaction */

/* A notification to send at commit, and the savepoint it belongs to. */
typedef struct Notification
{
	int			level;
	char	   *json;
} Notification;

static List *to_notify = NIL;	/* in TopTransactionContext */

/* Something of this owner's may be runnable once this transaction has committed. */
void
bbm_wake_at_commit(Oid owner)
{
	for (int i = 0; i < n_to_wake; i++)
	{
		if (to_wake[i] == owner)
			return;
	}
	if (n_to_wake < BBM_MAX_WAKES)
		to_wake[n_to_wake++] = owner;
	else
		wake_overflow = true;
	to_tell = true;
}

/*
 * Sends a notification, and wakes those who wait for a state, once this
 * transaction has committed.  Kept until the commit, since a transaction that
 * has executed NOTIFY cannot be prepared; one that is prepared sends none.
 */
void
bbm_notify_at_commit(const char *json)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Notification *notification = palloc(sizeof(Notification));

	notification->level = GetCurrentTransactionNestLevel();
	notification->json = pstrdup(json);
	to_notify = lappend(to_notify, notification);
	MemoryContextSwitchTo(old);
	to_tell = true;
}

/* A savepoint's notifications go with it, or pass to the one around it. */
static void
sort_out_notifications(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, to_notify)
	{
		Notification *notification = lfirst(cell);

		if (notification->level < level)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			to_notify = foreach_delete_current(to_notify, cell);
		else
			notification->level = level - 1;
	}
}

/* A wake too many (a savepoint was rolled back) costs a look. */
static void
tell(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (!to_tell || event == XACT_EVENT_PRE_PREPARE)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		foreach(cell, to_notify)
			Async_Notify("bbm", ((Notification *) lfirst(cell))->json);
		return;
	}
	if (event == XACT_EVENT_COMMIT)
	{
		for (int i = 0; i < n_to_wake; i++)
			bbm_demand_wake(MyDatabaseId, to_wake[i]);
		if (wake_overflow)
			bbm_look(MyDatabaseId);
		bbm_state_changed();
	}
	n_to_wake = 0;
	to_notify = NIL;
	wake_overflow = to_tell = false;
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = may || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

/* The database a command needs for itself, if the user may run it at all; else InvalidOid. */
static Oid
database_needed(Node *statement)
{
	const char *name = NULL;
	bool		template = false;
	Oid			database;
	ListCell   *cell;

	if (IsA(statement, DropdbStmt))
		name = ((DropdbStmt *) statement)->dbname;
	else if (IsA(statement, RenameStmt) && ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
		name = ((RenameStmt *) statement)->subname;
	else if (IsA(statement, AlterDatabaseStmt))
	{
		foreach(cell, ((AlterDatabaseStmt *) statement)->options)
		{
			if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
				name = ((AlterDatabaseStmt *) statement)->dbname;
		}
	}
	else if (IsA(statement, CreatedbStmt))
	{
		foreach(cell, ((CreatedbStmt *) statement)->options)
		{
			DefElem    *option = lfirst_node(DefElem, cell);

			if (strcmp(option->defname, "template") == 0 && option->arg)
				name = defGetString(option);
		}
		template = true;
	}
	if (name == NULL)
		return InvalidOid;
	database = get_database_oid(name, true);
	if (!OidIsValid(database))
		return InvalidOid;

	/* who may not run the command must not disturb anybody with it */
	if (bbm_owns_database(database, GetUserId()))
		return database;
	if (template)
	{
		HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
		bool		allowed = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate &&
			may_create_databases();

		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
		if (allowed)
			return database;
	}
	return InvalidOid;
}

static bool
drops_extension(Node *statement)
{
	ListCell   *cell;

	if (!IsA(statement, DropStmt) || ((DropStmt *) statement)->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, ((DropStmt *) statement)->objects)
	{
		if (IsA(lfirst(cell), String) && strcmp(strVal(lfirst(cell)), "bbm") == 0)
			return true;
	}
	return false;
}

/* Waits until our workers have left, or for long enough. */
static void
make_free(Oid database)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_LEAVE_MS);

	ConditionVariablePrepareToSleep(&bbm_shared->changed);
	while (bbm_database_ask_to_leave(database) > 0 && GetCurrentTimestamp() < until)
		(void) ConditionVariableTimedSleep(&bbm_shared->changed, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

static void
run_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_utility)
		previous_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

/*
 * Whatever became of the command, its transaction is over: until then another
 * session would still see the database, or the extension, as it was.
 */
static void
unblock(XactEvent event, void *arg)
{
	if (blocked && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
	{
		blocked = false;
		bbm_database_unblock();
	}
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	bool		commit_prepared = IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
	Oid			database = InvalidOid;

	/* a transaction command may run where no catalog can be read */
	if (!IsA(statement, TransactionStmt) && bbm_shared != NULL)
		database = drops_extension(statement) ? MyDatabaseId : database_needed(statement);
	if (OidIsValid(database))
	{
		blocked = true;
		bbm_database_block(database);
		make_free(database);
	}
	run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	if (commit_prepared)
		bbm_look(MyDatabaseId);
}

/* Once a process, from _PG_init.  The commands matter only where there is shared memory. */
void
bbm_hooks_install(void)
{
	RegisterXactCallback(tell, NULL);
	RegisterXactCallback(unblock, NULL);
	RegisterSubXactCallback(sort_out_notifications, NULL);
	if (process_shared_preload_libraries_in_progress)
	{
		previous_utility = ProcessUtility_hook;
		ProcessUtility_hook = utility;
	}
}
