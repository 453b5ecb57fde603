/*-------------------------------------------------------------------------
 *
 * statements.c
 *		The statements of others while a migration runs: how long each takes
 *		that begins in a window that is counted (base/impact.c).
 *
 * NOTES
 *	  What counts is what a client waits for: from the arrival of its message,
 *	  which is the statement's timestamp, to the end of the statement, and of
 *	  the commit where that is part of it.  So the timestamp also shows what is
 *	  nested: a query of a function, a trigger or a cursor's FETCH has that of
 *	  the statement that it belongs to.  If a message has several statements,
 *	  the first counts.  Parallel workers, and all other processes that are not
 *	  a client's session, do not take part, and neither do statements of bbm
 *	  itself.
 *
 *	  A statement ends
 *		- in a transaction block, when its execution ends (a query, in
 *		  ExecutorRun; a change, in ExecutorFinish, after its triggers; a
 *		  command, in ProcessUtility);
 *		- otherwise, when its transaction has committed, and so does COMMIT;
 *		- with an error, when the transaction or the savepoint is aborted.
 *	  A statement may also go on after an abort: so until the next message
 *	  arrives, each event that may be its end is taken for it.
 *
 *	  A message that arrives while the CPUs are busy is not read at once, and
 *	  its timestamp is that of the moment when the process got a CPU.  How long
 *	  it waited for that belongs to the statement, too.  The system reports how
 *	  long the process has waited for CPUs since it began (base/cpu_waits.c).
 *	  An idle process does not wait, so the wait of a statement is what was
 *	  added since the last one ended.  Where the system reports that, only
 *	  statements count for which it is known: those after another one in a
 *	  window that is counted, and after one transaction in some more, drawn by
 *	  lot.
 *
 *	  While no migration runs, a statement costs one branch on a flag in shared
 *	  memory for each hook.  While one runs, it also reads the lot of its
 *	  window; the system is asked only for the few statements that count.  There is
 *	  no PG_TRY: an error that is raised leaves a statement that has no end yet, and
 *	  the next message finds it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "server/statements.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/cpu_waits.h"
#include "base/impact_counts.h"
#include "base/next_hook.h"

static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* The statement of this session that counts; "began" is kept when it is over, so that what belongs to it is known. */
static BbmCountedStatement current;
static bool is_open = false;
static const QueryDesc *query_of = NULL;	/* NULL: a command */
static bool inside = false;		/* the command is being executed: a commit is a part of it */
static TimestampTz ended;		/* 0: nothing that may be its end has happened */
static int64 woke_us;			/* it waited for a CPU for so long when its message had arrived */

/* For how long the process had waited for CPUs when the last message was done, if that is known. */
static BbmCpuTimes times;
static bool waits_are_known = false;

/* A transaction in so many that do not count. */
#define BBM_WAITS_ODDS 32

/* A message is done.  The next one may count. */
static void
note_waits(void)
{
	waits_are_known = bbm_cpu_waits(&times);
}

/* For how long did the process wait for a CPU when the message had arrived?  Returns false when that is not known. */
static bool
read_wake_up(void)
{
	BbmCpuTimes now;
	bool		known = true;

	woke_us = 0;
	if (bbm_cpu_waits(&now))
	{
		known = waits_are_known;
		woke_us = known ? Max(now.waited_ns - times.waited_ns, 0) / 1000 : 0;
	}
	waits_are_known = false;
	return known;
}

/* It is over. */
static void
close_statement(void)
{
	is_open = false;
	inside = false;
	if (ended != 0)
		bbm_impact_count(&current, ended + woke_us);
}

/* Is this the beginning of a statement that counts? */
static bool
begins(const QueryDesc *query)
{
	TimestampTz message = GetCurrentStatementStartTimestamp();

	if (!bbm_impact_may_count(message))
	{
		waits_are_known = false;
		return false;
	}
	if (message == current.began || bbm_own_statements || MyBackendType != B_BACKEND)
		return false;
	if (is_open)
		close_statement();
	is_open = bbm_impact_hears(message, &current);
	/* it is watched in any case, for the sake of the next one */
	if (!read_wake_up())
		current.entries = 0;
	query_of = query;
	ended = 0;
	return is_open;
}

/* It has ended. */
static void
end_statement(void)
{
	ended = GetCurrentTimestamp();
	close_statement();
	note_waits();
}

/* An event that is the end of the statement if no other one follows. */
static void
may_end(void)
{
	ended = GetCurrentTimestamp();
	note_waits();
}

static void
run(BBM_RUN_PARAMETERS)
{
	bool		counts = bbm_impact_is_on() && begins(query);

	bbm_next_run(previous_run, BBM_RUN_ARGUMENTS);
	if (!counts || !is_open)
		return;
	if (IsTransactionBlock() && query->operation == CMD_SELECT && !query->plannedstmt->hasModifyingCTE)
		end_statement();
	else
		ended = GetCurrentTimestamp();
}

/* Triggers that follow a statement are executed here. */
static void
finish(QueryDesc *query)
{
	bbm_next_finish(previous_finish, query);
	if (!is_open || query_of != query || current.began != GetCurrentStatementStartTimestamp())
		return;
	if (IsTransactionBlock())
		end_statement();
	else
		ended = GetCurrentTimestamp();
}

/* Is it a command after whose execution the transaction ends? */
static bool
ends_transaction(Node *command)
{
	TransactionStmt *statement = (TransactionStmt *) command;

	return IsA(command, TransactionStmt) &&
		(statement->kind == TRANS_STMT_COMMIT || statement->kind == TRANS_STMT_ROLLBACK ||
		 statement->kind == TRANS_STMT_PREPARE);
}

static void
utility(BBM_UTILITY_PARAMETERS)
{
	/* read now, as the tree may be gone with the transaction */
	bool		ends_later = ends_transaction(pstmt->utilityStmt);
	bool		counts = bbm_impact_is_on() && begins(NULL);

	if (counts)
		inside = true;
	bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
	if (counts && is_open)
	{
		inside = false;
		if (IsTransactionBlock() && !ends_later)
			end_statement();
		else
			ended = GetCurrentTimestamp();
	}
}

/* CALL and DO may commit and go on, and roll back and go on, until they return. */
static void
transaction_ends(XactEvent event, void *arg)
{
	TimestampTz message = GetCurrentStatementStartTimestamp();

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (is_open && message == current.began)
	{
		if (!inside)
			end_statement();
		else if (event == XACT_EVENT_ABORT)
			may_end();
	}
	else if (bbm_impact_is_on() && message % BBM_WAITS_ODDS == 0 && MyBackendType == B_BACKEND)
		note_waits();
}

/* An error aborts the savepoint of the session; but a function may also have one of its own, and go on. */
static void
savepoint_ends(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && is_open && current.began == GetCurrentStatementStartTimestamp())
		may_end();
}

/* Called once per process, from _PG_init; without preloading there is nothing to count in. */
void
bbm_statements_install(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(transaction_ends, NULL);
	RegisterSubXactCallback(savepoint_ends, NULL);
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
