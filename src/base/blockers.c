/*-------------------------------------------------------------------------
 *
 * blockers.c
 *		The lock that a process of bbm waits for, and its blockers.
 *
 * NOTES
 *	  The blockers of a lock are known only while a process waits for it, and
 *	  no longer when the wait has ended with an error.  Therefore the waiting
 *	  process records them itself, from the timer that runs in each of our
 *	  transactions (base/lock_watch.c): in its slot, where bbm_status() reads
 *	  them, and here, for the error that the wait may end with.  The code that
 *	  formats them as text looks up the names of tables and the states of
 *	  sessions, in a transaction.
 *
 *	  As in pg_blocking_pids(), a blocker is a process that holds the lock in a
 *	  mode that conflicts with ours, or that has waited for such a mode for
 *	  longer than we have.
 *
 *-------------------------------------------------------------------------
 */
#include "base/blockers.h"

#include "lib/stringinfo.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/shared.h"
#include "base/slots.h"

/* The blockers may change while we wait: they are read again at this interval. */
#define BBM_POLL_MS 100

static int64 working_on = 0;

/* The signal handler writes these while a transaction of ours is open; they are read after it. */
static BbmBlockers seen;
static TimestampTz next_poll;

/* From here on, this process waits on behalf of that migration, or (0) of any. */
void
bbm_blockers_work_on(int64 migration_id)
{
	working_on = migration_id;
	BBM_POINT_WORKS_ON(migration_id);
}

/*
 * A transaction begins; called before the timer reads locks.  The slot keeps
 * what it has about the last error.
 */
void
bbm_blockers_begin(void)
{
	seen.count = 0;
	next_poll = 0;
}

/* This process has obtained the lock it waited for, or does not need it any more. */
void
bbm_blockers_over(void)
{
	seen.count = 0;
	(void) bbm_slot_blocked(NULL, true);
}

static void
add_blocker(BbmBlockers *blockers, PGPROC *proc)
{
	PGPROC	   *leader = proc->lockGroupLeader ? proc->lockGroupLeader : proc;

	for (int i = 0; i < Min(blockers->count, BBM_MAX_BLOCKERS); i++)
	{
		if (blockers->blocker[i].pid == leader->pid && leader->pid != 0)
			return;
	}
	if (blockers->count < BBM_MAX_BLOCKERS)
	{
		blockers->blocker[blockers->count].pid = leader->pid;
		blockers->blocker[blockers->count].xid = proc->xid;
	}
	blockers->count++;
}

/* Caller holds the LWLock of the lock's partition. */
static void
check_awaited_lock(BbmBlockers *blockers, PROCLOCK *mine)
{
	LOCK	   *lock = mine->tag.myLock;
	LOCKMASK	conflicts = GetLocksMethodTable(lock)->conflictTab[MyProc->waitLockMode];
	TimestampTz since = (TimestampTz) pg_atomic_read_u64(&MyProc->waitStart);

	blockers->tag = lock->tag;
	for (PROCLOCK *other = bbm_next_of_lock(lock, NULL); other; other = bbm_next_of_lock(lock, other))
	{
		PGPROC	   *proc = other->tag.myProc;
		TimestampTz waits_since;

		if (proc == MyProc || (MyProc->lockGroupLeader && proc->lockGroupLeader == MyProc->lockGroupLeader))
			continue;
		waits_since = proc->waitProcLock == other ? (TimestampTz) pg_atomic_read_u64(&proc->waitStart) : 0;
		if ((other->holdMask & conflicts) != 0 ||
			(waits_since != 0 && waits_since < since && (LOCKBIT_ON(proc->waitLockMode) & conflicts) != 0))
			add_blocker(blockers, proc);
	}
}

/*
 * Called by the timer's handler, where it may take LWLocks only if they are
 * free: see the notes in lock_watch.c.  What cannot be read now is read at the
 * next tick.  A process that waits for a row waits for a transaction, and
 * holds the row's own lock meanwhile.
 */
void
bbm_blockers_poll(void)
{
	BbmBlockers found = {.migration_id = working_on};
	TimestampTz now;
	bool		complete = true;

	if (MyProc->waitLock == NULL)
	{
		if (seen.count > 0 && bbm_slot_blocked(NULL, false))
			seen.count = 0;
		return;
	}
	now = GetCurrentTimestamp();
	/* also after the clock was set back */
	if (now < next_poll && now >= next_poll - BBM_POLL_MS * INT64CONST(1000))
		return;
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		LWLock	   *lwlock = LockHashPartitionLockByIndex(i);

		if (!LWLockConditionalAcquire(lwlock, LW_SHARED))
		{
			complete = false;
			continue;
		}
		for (PROCLOCK *mine = bbm_next_of_proc(MyProc, i, NULL); mine; mine = bbm_next_of_proc(MyProc, i, mine))
		{
			if (mine == MyProc->waitProcLock)
				check_awaited_lock(&found, mine);
			else if (mine->tag.myLock->tag.locktag_type == LOCKTAG_TUPLE && mine->holdMask != 0)
				found.row_of = mine->tag.myLock->tag.locktag_field2;
		}
		LWLockRelease(lwlock);
	}
	if (found.count == 0)
		return;
	seen = found;
	if (bbm_slot_blocked(&found, false) && complete)
		next_poll = TimestampTzPlusMilliseconds(now, BBM_POLL_MS);
}

/*
 * Did the last transaction end with this error while it waited for a lock?
 * True only for the server's own error of a wait that took too long or was
 * cancelled.  An error that a job has raised, or that occurs without waiting,
 * explains itself.
 */
bool
bbm_blockers_caused(const ErrorData *error, BbmBlockers *blockers)
{
	*blockers = seen;
	return seen.count > 0 && error->detail == NULL && error->filename &&
		(error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || error->sqlerrcode == ERRCODE_QUERY_CANCELED) &&
		strcmp(error->filename, "postgres.c") == 0;
}

static void
append_relation(StringInfo text, Oid relid)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = name ? get_namespace_name(get_rel_namespace(relid)) : NULL;

	appendStringInfoString(text, schema ? quote_qualified_identifier(schema, name) : "a table that is gone");
}

static void
append_lock(StringInfo text, const BbmBlockers *blockers)
{
	const LOCKTAG *tag = &blockers->tag;
	Oid			table = InvalidOid;

	switch ((LockTagType) tag->locktag_type)
	{
		case LOCKTAG_RELATION:
		case LOCKTAG_RELATION_EXTEND:
		case LOCKTAG_PAGE:
			appendStringInfoString(text, "a lock on ");
			append_relation(text, tag->locktag_field2);
			break;
		case LOCKTAG_TUPLE:
		case LOCKTAG_TRANSACTION:
		case LOCKTAG_SPECULATIVE_TOKEN:
			appendStringInfoString(text, "a lock on a row");
			table = tag->locktag_type == LOCKTAG_TUPLE ? tag->locktag_field2 : blockers->row_of;
			if (OidIsValid(table))
			{
				appendStringInfoString(text, " of ");
				append_relation(text, table);
			}
			break;
		case LOCKTAG_ADVISORY:
			appendStringInfoString(text, "an advisory lock");
			break;
		default:
			if (bbm_lock_is_for_claims(tag, &table))
			{
				appendStringInfoString(text, "a lock on the claims of ");
				append_relation(text, table);
			}
			else
				appendStringInfoString(text, bbm_lock_is_of_migration(tag) ? "a lock on the migration" : "a lock");
	}
}

/* A timestamp in the session's time zone, without fractions of a second. */
static const char *
moment(TimestampTz at)
{
	return timestamptz_to_str(at - at % USECS_PER_SEC);
}

static void
append_state(StringInfo text, const PgBackendStatus *status)
{
	switch (status->st_state)
	{
		case STATE_IDLEINTRANSACTION:
		case STATE_IDLEINTRANSACTION_ABORTED:
			appendStringInfo(text, ", idle in transaction since %s", moment(status->st_state_start_timestamp));
			break;
		case STATE_IDLE:
			appendStringInfo(text, ", idle since %s", moment(status->st_state_start_timestamp));
			break;
		default:
			if (status->st_xact_start_timestamp != 0)
				appendStringInfo(text, ", in a transaction since %s", moment(status->st_xact_start_timestamp));
	}
}

static void
append_blocker(StringInfo text, const BbmBlocker *blocker)
{
	const PgBackendStatus *status;

	if (blocker->pid == 0)
	{
		appendStringInfo(text, "prepared transaction with id %u", blocker->xid);
		return;
	}
	appendStringInfo(text, "process %d", blocker->pid);
	status = bbm_status_of_process(blocker->pid);
	if (status)
		append_state(text, status);
}

/*
 * Returns a description for users, in the current memory context; needs a
 * transaction.  A session that has ended is shown without its state, and a
 * table that has been dropped without its name.
 */
char *
bbm_blockers_to_string(const BbmBlockers *blockers)
{
	StringInfoData text;
	int			named = Min(blockers->count, BBM_MAX_BLOCKERS);

	initStringInfo(&text);
	append_lock(&text, blockers);
	for (int i = 0; i < named; i++)
	{
		appendStringInfoString(&text, i == 0 ? ": " : "; ");
		append_blocker(&text, &blockers->blocker[i]);
	}
	if (blockers->count > named)
		appendStringInfo(&text, "; and %d more", blockers->count - named);
	return text.data;
}

/* Sets the error's DETAIL. detail_log, which no SQL can set, marks it as ours. */
void
bbm_blockers_name(ErrorData *error, const char *string)
{
	error->detail = pstrdup(string);
	error->detail_log = pstrdup(string);
}

/*
 * Returns which lock the transaction that ended with this error waited for,
 * and who blocked it; NULL when that is not known.
 */
const char *
bbm_blockers_of(const ErrorData *error)
{
	return error->detail && error->detail_log && strcmp(error->detail, error->detail_log) == 0 ? error->detail : NULL;
}
