/*-------------------------------------------------------------------------
 *
 * txn.c
 *		The transaction envelope of the engine.
 *
 * NOTES
 *	  The engine is a set of functions that each do the work of one
 *	  transaction.  This file runs such a function in a transaction of its own
 *	  and returns an error as a value.  A background worker starts and ends
 *	  transactions itself.  CALL bbm_run() is already inside one: the function
 *	  runs in a subtransaction of it, which an error rolls back cleanly, and
 *	  SPI_commit ends the outer one.
 *
 *	  Between two calls a worker is outside any transaction.  A foreground
 *	  session has an open one, but without snapshot, transaction id or lock.
 *
 *-------------------------------------------------------------------------
 */
#include "base/txn.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "optimizer/cost.h"
#include "pgstat.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "base/blockers.h"
#include "base/cancel.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/point.h"
#include "base/shared.h"
#include "base/user.h"

/* How this process commits. */
typedef enum BbmDriver
{
	BBM_DRIVER_WORKER,			/* a background worker owns its transactions */
	BBM_DRIVER_FOREGROUND		/* inside CALL, through SPI_commit */
} BbmDriver;

int			bbm_failing_code = 0;

static BbmDriver current_driver = BBM_DRIVER_FOREGROUND;
static int	own_lock_timeout = -1;	/* of the current migration, ms; -1: the server's */
static bool trying = false;		/* in bbm_txn_try */
static bool flushes = false;	/* must the current transaction be flushed? */

static int
lock_timeout(void)
{
	return own_lock_timeout >= 0 ? own_lock_timeout : bbm_lock_timeout;
}

/*
 * Sets how long what follows waits for locks, in milliseconds.  With our
 * deadlock_timeout each wait would be logged repeatedly.
 */
void
bbm_txn_lock_limits(int ms, bool local)
{
	char		number[32];

	bbm_guc_set("log_lock_waits", "off", local);
	snprintf(number, sizeof(number), "%d", BBM_DEADLOCK_TIMEOUT);
	bbm_guc_set("deadlock_timeout", number, local);
	snprintf(number, sizeof(number), "%d", ms);
	bbm_guc_set("lock_timeout", number, local);
}

/* A worker's session has our settings, whatever the owner's role or database sets. */
static void
pin_session(void)
{
	bbm_guc_set("role", "none", false);
	bbm_guc_set("search_path", BBM_SEARCH_PATH, false);
	bbm_guc_set("enable_seqscan", "off", false);
	bbm_guc_set("jit", "off", false);
	bbm_guc_set("synchronous_commit", "off", false);
	bbm_guc_set("idle_in_transaction_session_timeout", "0", false);
	bbm_guc_set("client_min_messages", "error", false);
	bbm_guc_set("session_replication_role", "origin", false);
	/* an error of a batch is not the end of its worker */
	bbm_guc_set("exit_on_error", "off", false);
	if (BBM_HAS_TRANSACTION_TIMEOUT)
		bbm_guc_set("transaction_timeout", "0", false);
	bbm_txn_lock_limits(lock_timeout(), false);
}

/*
 * Restores settings that have changed: bbm.lock_timeout may have changed, and
 * the owner's code can run at a commit (a cursor WITH HOLD) and set what it
 * likes.
 */
static void
pin_session_again(void)
{
	if (LockTimeout != lock_timeout() || DeadlockTimeout != BBM_DEADLOCK_TIMEOUT || log_lock_waits ||
		enable_seqscan || jit_enabled || synchronous_commit != SYNCHRONOUS_COMMIT_OFF ||
		IdleInTransactionSessionTimeout != 0 || client_min_messages != ERROR ||
		SessionReplicationRole != SESSION_REPLICATION_ROLE_ORIGIN || ExitOnAnyError ||
		strcmp(namespace_search_path, BBM_SEARCH_PATH) != 0 ||
		GetCurrentRoleId() != InvalidOid)
		pin_session();
}

/*
 * Sets the lock timeout of transactions from here on, until called with -1: a
 * migration may have its own bbm.lock_timeout.  Called between transactions.
 */
void
bbm_txn_lock_timeout(int ms)
{
	own_lock_timeout = ms;
	if (current_driver == BBM_DRIVER_WORKER)
		pin_session_again();
}

/*
 * Makes this process a worker: it controls its transactions, and its session
 * has our settings except while a statement of the owner runs.  Called once,
 * outside a transaction.
 */
void
bbm_txn_become_worker(void)
{
	current_driver = BBM_DRIVER_WORKER;
	bbm_settings_remember();
	pin_session();
	QueryCancelHoldoffCount = 1;
}

/*
 * The owner may have defaults for new transactions that the protocol does not
 * work with: a claim must see what committed before it got its lock.
 */
static void
force_read_committed(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
}

/* After an error: ends the transaction, and leaves no cancel or timeout of it pending. */
static void
clean_up_after_error(void)
{
	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/*
 * Fires triggers that are deferred to the commit, and those that they queue in
 * turn. bbm_txn_try runs inside of a user's statement, whose own events have
 * to be there again when the try is undone: the server keeps them only for SET
 * CONSTRAINTS.
 */
void
bbm_txn_fire_deferred(void)
{
	ConstraintsSetStmt *immediate;

	if (!trying)
	{
		AfterTriggerFireDeferred();
		return;
	}
	immediate = makeNode(ConstraintsSetStmt);
	AfterTriggerSetState(immediate);
}

/*
 * The current transaction must not be lost once it has committed, even if the
 * server crashes.  Called before it ends, within bbm_txn_run.  It waits for a
 * standby if the session's own commits do.
 */
void
bbm_txn_flush(void)
{
	flushes = true;
}

/*
 * Commits with the synchronous_commit of the server, the database or the role,
 * and not with that of a batch.
 */
static void
commit_as_session(void)
{
	(void) set_config_option("synchronous_commit", GetConfigOptionResetString("synchronous_commit"), PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Ends what the owner's statement would leave in the session, so that it
 * cannot affect the next job: cursors (those WITH HOLD would run on at the
 * commit, with our settings), prepared statements, temporary tables.
 * Session-level advisory locks cannot be distinguished from our own, and end
 * with the worker.  A foreground session belongs to the user, who may want to
 * keep them.  Called in the transaction of the batch.
 */
void
bbm_txn_discard(void)
{
	if (current_driver != BBM_DRIVER_WORKER)
		return;
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	ResetTempTableNamespace();
}

static ErrorData *
run_in_worker(BbmTxnFn fn, void *arg, bool synchronous, bool bare)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	BbmCancelGuard guard = {false};

	flushes = false;
	PG_TRY();
	{
		bbm_cancel_guard_begin(&guard);
		(void) bbm_settings_are_ours(!bare);
		QueryCancelHoldoffCount = 0;
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		BBM_POINT_BEGIN();
		bbm_yield_begin();
		force_read_committed();
		if (bare)
			fn(arg);
		else
		{
			SPI_connect();
			PushActiveSnapshot(GetTransactionSnapshot());
			fn(arg);
			PopActiveSnapshot();
			SPI_finish();
		}
		/* none of our statements runs from here to the end of the commit */
		(void) bbm_settings_are_ours(false);
		bbm_cancel_guard_end(&guard);
		if (synchronous || flushes)
			commit_as_session();
		if (flushes)
			ForceSyncCommit();
		BBM_POINT_OF_TXN("commit");
		CommitTransactionCommand();
		BBM_POINT_AFTER_TXN("committed");
		bbm_yield_end();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		bbm_lock_watch_end();
		bbm_yield_end();
		bbm_cancel_guard_end(&guard);
		error = bbm_copy_error();
		clean_up_after_error();
		BBM_POINT_AFTER_TXN("aborted");
	}
	PG_END_TRY();

	/* between transactions a cancel has nothing to cancel, and must not end the process */
	QueryCancelHoldoffCount = 1;
	MemoryContextSwitchTo(caller);
	return error;
}

/* Runs the function in a subtransaction, which is rolled back when it fails, or when "keep" is false. */
static ErrorData *
run_in_subtransaction(BbmTxnFn fn, void *arg, bool keep)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		ours_before;
	ErrorData  *volatile error = NULL;
	BbmCancelGuard guard = {false};

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	ours_before = bbm_settings_are_ours(true);
	PG_TRY();
	{
		int			nest_level = NewGUCNestLevel();

		bbm_yield_begin();
		bbm_cancel_guard_begin(&guard);
		bbm_settings_pin();
		bbm_txn_lock_limits(lock_timeout(), true);
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		fn(arg);
		PopActiveSnapshot();
		SPI_finish();
		(void) bbm_settings_are_ours(ours_before);
		bbm_cancel_guard_end(&guard);
		AtEOXact_GUC(false, nest_level);
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
		bbm_yield_end();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		/* a batch that is being rolled back must not be cancelled again */
		bbm_lock_watch_end();
		bbm_yield_end();
		bbm_cancel_guard_end(&guard);
		error = bbm_copy_error();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		(void) bbm_settings_are_ours(ours_before);
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_END_TRY();
	return error;
}

/*
 * Runs fn in a subtransaction of the caller's, with the settings of the engine,
 * which stays unless there is an error.  Returns that, in the caller's context.
 */
ErrorData *
bbm_txn_part(BbmTxnFn fn, void *arg)
{
	bbm_settings_remember();
	return run_in_subtransaction(fn, arg, true);
}

/*
 * Runs fn in a subtransaction of the caller's with the settings of the engine,
 * and rolls it back in any case.  Returns its error, in the caller's context.
 */
ErrorData *
bbm_txn_try(BbmTxnFn fn, void *arg)
{
	bool		trying_before = trying;
	ErrorData  *error;

	bbm_settings_remember();
	trying = true;
	PG_TRY();
	{
		error = run_in_subtransaction(fn, arg, false);
	}
	PG_FINALLY();
	{
		trying = trying_before;
	}
	PG_END_TRY();
	return error;
}

/*
 * Runs fn in a subtransaction of the current transaction and takes back what
 * it has done: its changes, and its locks.  Its error is raised again.  For use
 * within bbm_txn_try, whose settings apply.
 */
void
bbm_txn_take_back(BbmTxnFn fn, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		fn(arg);
		PopActiveSnapshot();
		SPI_finish();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		/* a batch that is being rolled back must not be cancelled again */
		bbm_lock_watch_end();
		error = bbm_copy_error();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		/* it has its whole context already */
		ReThrowError(error);
	}
	PG_END_TRY();
}

static ErrorData *
run_in_foreground(BbmTxnFn fn, void *arg, bool synchronous)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	flushes = false;
	/* CALL itself has taken a snapshot of that level: its transaction, which has done nothing, ends as it began */
	if (IsolationUsesXactSnapshot())
		SPI_commit();
	SetCurrentStatementStartTimestamp();
	force_read_committed();
	BBM_POINT_BEGIN();
	bbm_settings_remember();
	error = run_in_subtransaction(fn, arg, true);
	if (error)
	{
		SPI_rollback();
		BBM_POINT_AFTER_TXN("aborted");
		MemoryContextSwitchTo(caller);
		return error;
	}

	PG_TRY();
	{
		/* the record that the batch is done is lost with its data, so losing both in a crash is harmless */
		if (!synchronous && !flushes)
			(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
		if (flushes)
			ForceSyncCommit();
		BBM_POINT_OF_TXN("commit");
		SPI_commit();
		BBM_POINT_AFTER_TXN("committed");
	}
	PG_CATCH();
	{
		/* SPI_commit has aborted the transaction and started the next */
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return error;
}

typedef struct NameArgs
{
	BbmBlockers blockers;
	MemoryContext context;
	char	   *string;
} NameArgs;

static void
make_string(void *arg)
{
	NameArgs   *args = arg;

	BBM_POINT("blockers_known");
	args->string = MemoryContextStrdup(args->context, bbm_blockers_to_string(&args->blockers));
}

/*
 * Adds a DETAIL to an error that has ended a wait for a lock: which lock, and
 * who blocks it.  That needs a transaction of its own, which only reads, since
 * the one that waited is gone.  A blocker may end meanwhile: then it is still
 * named as it was.  If the names cannot be found now, the error stays as it
 * is.
 */
static void
name_blockers(ErrorData *error)
{
	NameArgs	args = {.context = CurrentMemoryContext};
	ErrorData  *trouble;

	/* what is known of a cancel that was caught belongs to the last transaction */
	if (bbm_cancel_enforced() || !bbm_blockers_caused(error, &args.blockers))
		return;
	trouble = current_driver == BBM_DRIVER_WORKER ? run_in_worker(make_string, &args, false, false) :
		run_in_foreground(make_string, &args, false);
	if (args.string)
		bbm_blockers_name(error, args.string);
	/* a user's cancel is meant for what follows */
	if (trouble && trouble->sqlerrcode == ERRCODE_QUERY_CANCELED && current_driver == BBM_DRIVER_FOREGROUND)
		InterruptPending = QueryCancelPending = true;
}

/* The same for both drivers, after each transaction. */
static void
collect_blockers(ErrorData *error)
{
	if (error)
		name_blockers(error);
	else
		bbm_blockers_over();
}

/*
 * Runs fn(arg) in a transaction and commits it.  Returns NULL, or the error
 * that rolled it back, copied into the caller's memory context.  The function
 * finds SPI connected and a snapshot active; results must be allocated in a
 * context that outlives the transaction.
 */
ErrorData *
bbm_txn_run(BbmTxnFn fn, void *arg, bool synchronous)
{
	ErrorData  *error;

	bbm_failing_code = 0;
	if (current_driver == BBM_DRIVER_WORKER)
	{
		error = run_in_worker(fn, arg, synchronous, false);
		collect_blockers(error);
		pin_session_again();
		/* otherwise autovacuum never sees our dead tuples */
		pgstat_report_stat(false);
	}
	else
	{
		error = run_in_foreground(fn, arg, synchronous);
		collect_blockers(error);
	}
	return error;
}

/*
 * The same for a function that commits by itself, as VACUUM does: it is called
 * in a transaction, without SPI or snapshot, and returns in another.  In a
 * worker only.
 */
ErrorData *
bbm_txn_run_bare(BbmTxnFn fn, void *arg)
{
	ErrorData  *error = run_in_worker(fn, arg, false, true);

	collect_blockers(error);
	pin_session_again();
	pgstat_report_stat(false);
	return error;
}

/* Does this process control its own transactions? */
bool
bbm_txn_in_worker(void)
{
	return current_driver == BBM_DRIVER_WORKER;
}
