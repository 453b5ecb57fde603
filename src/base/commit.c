/*-------------------------------------------------------------------------
 *
 * commit.c
 *		Actions at commit: requesting workers and sending notifications.
 *
 * NOTES
 *	  COMMIT PREPARED may run in another session than the one whose callback
 *	  would wake the launcher, so it requests discovery (server/hooks.c).
 *
 *-------------------------------------------------------------------------
 */
#include "base/commit.h"

#include "access/xact.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/requests.h"
#include "base/slots.h"

#define BBM_MAX_WAKING 16

static Oid	to_wake[BBM_MAX_WAKING];
static int	n_to_wake = 0;
static bool wake_overflow = false;
static bool wakes_anybody = false;

/* A notification to send at commit, a line to log then, and the savepoint they belong to. */
typedef struct Notification
{
	int			level;
	char	   *json;
	char	   *line;			/* or NULL */
} Notification;

static List *to_notify = NIL;	/* in TopTransactionContext */

/* This owner may have runnable work once this transaction has committed. */
void
bbm_wake_at_commit(Oid owner)
{
	for (int i = 0; i < n_to_wake; i++)
	{
		if (to_wake[i] == owner)
			return;
	}
	if (n_to_wake < BBM_MAX_WAKING)
		to_wake[n_to_wake++] = owner;
	else
		wake_overflow = true;
	wakes_anybody = true;
}

/*
 * Sends a notification, logs the line if there is one, and wakes the sessions
 * that wait for a state, once this transaction has committed.  They are kept
 * until then, since a transaction that has executed NOTIFY cannot be prepared,
 * and what is rolled back must leave no line.  A prepared transaction sends
 * none, and logs none.
 */
void
bbm_notify_at_commit(const char *json, const char *line)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Notification *notification = palloc(sizeof(Notification));

	notification->level = GetCurrentTransactionNestLevel();
	notification->json = pstrdup(json);
	notification->line = line ? pstrdup(line) : NULL;
	to_notify = lappend(to_notify, notification);
	MemoryContextSwitchTo(old);
	wakes_anybody = true;
}

/* An unnecessary wake-up (a savepoint was rolled back) costs one poll. */
static void
wake(XactEvent event, void *arg)
{
	ListCell   *cell;

	if (!wakes_anybody || event == XACT_EVENT_PRE_PREPARE)
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
			bbm_request_announce(MyDatabaseId, to_wake[i]);
		if (wake_overflow)
			bbm_request_discovery(MyDatabaseId);
		bbm_state_changed();
		foreach(cell, to_notify)
		{
			const char *line = ((Notification *) lfirst(cell))->line;

			if (line)
				ereport(LOG, (errmsg_internal("%s", line), errhidestmt(true), errhidecontext(true)));
		}
	}
	n_to_wake = 0;
	to_notify = NIL;
	wake_overflow = wakes_anybody = false;
}

/* A savepoint that is rolled back drops its notifications; one that is released passes them to its parent. */
static void
end_savepoint(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id, void *arg)
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

/* Registers the callbacks; called once per process, from _PG_init. */
void
bbm_commit_install(void)
{
	RegisterXactCallback(wake, NULL);
	RegisterSubXactCallback(end_savepoint, NULL);
}
