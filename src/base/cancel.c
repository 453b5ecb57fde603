/*-------------------------------------------------------------------------
 *
 * cancel.c
 *		Enforcing a cancel that the owner's code catches.
 *
 * NOTES
 *	  Whatever stops a batch from outside is in the end a cancel: a limit of
 *	  its own process (base/lock_watch.c), bbm_cancel, a pause, DROP DATABASE
 *	  and similar commands, Ctrl-C. A cancel is an error, which a function may
 *	  catch, even in a loop, and then those who wait for the batch to end would
 *	  wait forever.  The same applies to everything else in our transactions
 *	  that runs the owner's code: a condition, a deferred trigger, a row filter
 *	  in a claim.
 *
 *	  So each of our transactions watches for cancels that are raised in it.
 *	  1. For the first second they are the server's own: code that catches one
 *		 has the time to clean up and to end.
 *	  2. Then the process cancels itself repeatedly, with a SQLSTATE that
 *		 neither "query_canceled" nor "others" catches in PL/pgSQL.
 *	  3. Code that catches that as well (other languages do) can continue for
 *		 four more seconds.  Then its process is terminated: a worker as well
 *		 as the session of CALL bbm_run, since somebody waits for either.
 *
 *	  An error context callback changes the SQLSTATE before anybody can catch
 *	  the error; a caller that takes the error as a value, through
 *	  bbm_copy_error, sees the original cancel.  The timer runs only after a
 *	  cancel was raised, until the transaction is over.
 *
 *-------------------------------------------------------------------------
 */
#include "base/cancel.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* Both counted from the first cancel; documented in doc/operations.md. */
#define BBM_MAY_CATCH_MS 1000
#define BBM_TERMINATE_MS 5000
#define BBM_AGAIN_MS 50

/* PL/pgSQL's "others" does not catch it, and only a failed assertion raises it. */
#define UNCATCHABLE ERRCODE_ASSERT_FAILURE

/* The function that raises the errors of cancels and timeouts. */
#define CANCEL_FUNCTION "ProcessInterrupts"

static TimeoutId timer = MAX_TIMEOUTS;	/* not registered */
static int	depth = 0;			/* nesting depth of guards */
static volatile TimestampTz cancelled_at = 0;	/* the first cancel of this transaction; 0 none */
static bool enforced = false;	/* it was raised so that it cannot be caught */
static volatile sig_atomic_t sent_again = false;

/* Runs in a signal handler: does what SIGINT does, and finally what SIGTERM does. */
static void
cancel_again(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (depth == 0 || cancelled_at == 0 || now < TimestampTzPlusMilliseconds(cancelled_at, BBM_MAY_CATCH_MS))
		return;
	if (now >= TimestampTzPlusMilliseconds(cancelled_at, BBM_TERMINATE_MS))
		ProcDiePending = true;
	else
	{
		sent_again = true;
		QueryCancelPending = true;
	}
	InterruptPending = true;
}

static bool
is_cancel(const ErrorData *error)
{
	return error->elevel == ERROR && error->funcname && strcmp(error->funcname, CANCEL_FUNCTION) == 0;
}

/*
 * Is the error that is being raised a cancel of this process?  An error that
 * came from another server, or that a function has raised itself, is left to
 * the job.
 */
static bool
cancel_is_raised(void)
{
	MemoryContext old;
	ErrorData  *error;
	bool		yes;

	if (geterrcode() != ERRCODE_QUERY_CANCELED)
		return false;
	/* not into the context that the error itself is in */
	old = MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	yes = is_cancel(error);
	FreeErrorData(error);
	MemoryContextSwitchTo(old);
	return yes;
}

/* An error context callback, the first to see an error of the transaction; adds no context text. */
static void
see_error(void *arg)
{
	TimestampTz now;

	if (!cancel_is_raised())
		return;
	now = GetCurrentTimestamp();
	if (cancelled_at == 0)
	{
		cancelled_at = now;
		if (timer == MAX_TIMEOUTS)
			timer = RegisterTimeout(USER_TIMEOUT, cancel_again);
		enable_timeout_every(timer, TimestampTzPlusMilliseconds(now, BBM_AGAIN_MS), BBM_AGAIN_MS);
		return;
	}
	if (now < TimestampTzPlusMilliseconds(cancelled_at, BBM_MAY_CATCH_MS))
		return;
	errcode(UNCATCHABLE);
	if (!enforced)
		ereport(LOG,
				(errmsg("a statement caught the cancel that was to end it, and goes on"),
				 errdetail("It is cancelled again in a way that PL/pgSQL does not catch. If that has no effect, the process is terminated."),
				 errhidestmt(true), errhidecontext(true)));
	enforced = true;
}

/*
 * From here to bbm_cancel_guard_end, what runs in this transaction cannot
 * continue for long after a cancel.  Nested guards are part of the outermost.
 */
void
bbm_cancel_guard_begin(BbmCancelGuard *guard)
{
	if (depth++ == 0)
	{
		cancelled_at = 0;
		enforced = false;
		sent_again = false;
	}
	guard->on = true;
	guard->callback = (ErrorContextCallback) {.previous = error_context_stack, .callback = see_error};
	error_context_stack = &guard->callback;
}

/*
 * Called before the commit, or after an error; may be called again.  A cancel
 * of our own that has come too late must not hit what follows.
 */
void
bbm_cancel_guard_end(BbmCancelGuard *guard)
{
	if (!guard->on)
		return;
	guard->on = false;
	error_context_stack = guard->callback.previous;
	if (--depth > 0)
		return;
	if (timer != MAX_TIMEOUTS && get_timeout_active(timer))
		disable_timeout(timer, false);
	if (sent_again)
		QueryCancelPending = false;
}

/* Returns the error that was caught, in the current memory context, with its original SQLSTATE. */
ErrorData *
bbm_copy_error(void)
{
	ErrorData  *error = CopyErrorData();

	if (error->sqlerrcode == UNCATCHABLE && is_cancel(error))
		error->sqlerrcode = ERRCODE_QUERY_CANCELED;
	return error;
}

/*
 * Was a cancel raised in this transaction, or, outside of one, in the last?
 * If no error resulted, the cancel was caught.
 */
bool
bbm_cancel_seen(void)
{
	return cancelled_at != 0;
}

/*
 * Has a cancel of this process ended the last transaction, with this error?
 * Not if another server had to end its statement, as by its
 * statement_timeout, or if a function raised the error: that may be so each
 * time.
 */
bool
bbm_error_is_cancel(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		(error->funcname == NULL || is_cancel(error) || bbm_cancel_seen());
}

/* Was a cancel caught, so that it had to be raised with another SQLSTATE? */
bool
bbm_cancel_enforced(void)
{
	return enforced;
}

/* Makes an error, in the current memory context. */
ErrorData *
bbm_make_error(int sqlstate, const char *message, const char *hint)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->sqlerrcode = sqlstate;
	error->message = pstrdup(message);
	error->hint = hint ? pstrdup(hint) : NULL;
	error->assoc_context = CurrentMemoryContext;
	return error;
}

/* The error to report when the owner's code has caught a cancel. */
ErrorData *
bbm_cancelled_by_user(void)
{
	return bbm_make_error(ERRCODE_QUERY_CANCELED, "canceling statement due to user request", NULL);
}
