/*-------------------------------------------------------------------------
 *
 * trouble.c
 *		The transient errors that are not over yet.
 *
 * A full disk, an I/O error, lack of memory or a lock that is not granted is
 * nobody's fault, and the process that meets such a transient error tries
 * again.  Meanwhile it may be impossible to write to a table, so the error is
 * recorded here, where users see it: in waiting_on and last_error of
 * bbm_status(), and in the log, at a rate that does not depend on the number
 * of tries.  The longer the error lasts, the less often it is tried.  These
 * are hints: they are lost at a restart.
 *
 *-------------------------------------------------------------------------
 */
#include "base/trouble.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/blockers.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/shmem.h"
#include "base/wait_state.h"

#define BBM_FIRST_TRY_MS 200
/* A lock that is not granted is reported only after this time. */
#define BBM_REPORT_LOCK_MS 1000
/* A transient error is logged at most this often. */
#define BBM_LOG_TROUBLE_MS (60 * 1000)
/* A process may be this late for its next try. */
#define BBM_LATE_MS (10 * 1000)
/* After this time we assume that nobody tries any more. */
#define BBM_ABANDONED_MS (10 * 60 * 1000)

static BbmTransients *own = NULL;

static BbmTransients *
lock_troubles(LWLockMode mode)
{
	if (bbm_shared)
	{
		LWLockAcquire(bbm_shared->lock, mode);
		return &bbm_shared->troubles;
	}
	if (own == NULL)
		own = MemoryContextAllocZero(TopMemoryContext, sizeof(BbmTransients));
	return own;
}

static void
unlock_troubles(void)
{
	if (bbm_shared)
		LWLockRelease(bbm_shared->lock);
}

static bool
any_trouble(void)
{
	return bbm_shared ? bbm_shared->troubles.current > 0 : own && own->current > 0;
}

/* Caller holds the lock.  Returns NULL when there is no entry. */
static BbmTransient *
find(BbmTransients *troubles, int64 migration_id, Oid owner)
{
	for (int i = 0; i < troubles->n; i++)
	{
		BbmTransient *trouble = &troubles->entries[i];

		if (trouble->database == MyDatabaseId && OidIsValid(trouble->database) &&
			trouble->migration_id == migration_id && (migration_id != 0 || trouble->owner == owner))
			return trouble;
	}
	return NULL;
}

/* Caller holds the lock. */
static BbmTransient *
find_or_make(BbmTransients *troubles, int64 migration_id, Oid owner)
{
	BbmTransient *trouble = find(troubles, migration_id, owner);

	if (trouble)
		return trouble;
	trouble = &troubles->entries[troubles->n < BBM_MAX_TROUBLES ? troubles->n++ : 0];
	for (int i = 1; i < troubles->n; i++)
	{
		if (troubles->entries[i].touched < trouble->touched)
			trouble = &troubles->entries[i];
	}
	if (trouble->since != 0)
		troubles->current--;
	memset(trouble, 0, sizeof(BbmTransient));
	trouble->database = MyDatabaseId;
	trouble->owner = owner;
	trouble->migration_id = migration_id;
	return trouble;
}

/* Formats an error for users, with the lock that it waited for; in the current memory context. */
char *
bbm_error_to_string(const ErrorData *error)
{
	const char *lock = bbm_blockers_of(error);

	return psprintf("%s: %s%s%s%s", unpack_sql_state(error->sqlerrcode),
					bbm_shortened(error->message ? error->message : "", BBM_LONGEST_LOGGED),
					lock ? " (" : "", lock ? lock : "", lock ? ")" : "");
}

/* Formats what a migration waits for because of this error. */
static const char *
wait_to_string(const BbmTransient *trouble)
{
	return trouble->lock[0] != '\0' ? trouble->lock :
		trouble->is_lock && !trouble->in_batch ? "a lock on the migration" : trouble->text;
}

/* Records that the error was met now, again.  Caller holds the lock. */
static void
note(BbmTransients *troubles, BbmTransient *trouble, const ErrorData *error, const char *string, TimestampTz now)
{
	const char *lock = bbm_blockers_of(error);

	if (trouble->since == 0)
		troubles->current++;
	/* also after the clock was set back */
	if (trouble->since == 0 || trouble->since > now)
	{
		trouble->since = now;
		trouble->count = 0;
	}
	trouble->count++;
	trouble->touched = now;
	trouble->pid = MyProcPid;
	bbm_clip(trouble->text, string, sizeof(trouble->text));
	bbm_clip(trouble->lock, lock ? lock : "", sizeof(trouble->lock));
}

/* Is a log line due?  Caller holds the lock. */
static bool
is_to_be_reported(BbmTransient *trouble, TimestampTz now)
{
	if (!bbm_time_has_come(now, TimestampTzPlusMilliseconds(trouble->logged, BBM_LOG_TROUBLE_MS), BBM_LOG_TROUBLE_MS))
		return false;
	trouble->logged = now;
	return true;
}

/*
 * A transient error was met, of a migration, or (0, name NULL) before one was
 * known.  Returns when to try again: a lock soon, anything else after growing
 * delays.  "in_batch": only a finished batch will show that it is over.
 */
TimestampTz
bbm_trouble_met(int64 migration_id, Oid owner, const char *name, const ErrorData *error, bool is_lock, bool in_batch)
{
	TimestampTz now = GetCurrentTimestamp();
	char	   *string = bbm_error_to_string(error);
	BbmTransients *troubles = lock_troubles(LW_EXCLUSIVE);
	BbmTransient *trouble = find_or_make(troubles, migration_id, owner);
	TimestampTz due;
	int64		lasted_ms;
	int			count;
	bool		report;

	note(troubles, trouble, error, string, now);
	lasted_ms = (now - trouble->since) / 1000;
	count = trouble->count;
	due = trouble->due = TimestampTzPlusMilliseconds(now, is_lock ? BBM_FIRST_TRY_MS :
													 bbm_next_poll_ms(lasted_ms, BBM_FIRST_TRY_MS));
	trouble->is_lock = is_lock;
	trouble->in_batch = in_batch;
	report = (!is_lock || lasted_ms >= BBM_REPORT_LOCK_MS) && is_to_be_reported(trouble, now);
	unlock_troubles();

	if (report)
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 name ? errmsg("migration \"%s\" cannot go on just now: %s", bbm_printable(name), bbm_printable(string)) :
				 errmsg("cannot run migrations in database with OID %u just now: %s", MyDatabaseId, bbm_printable(string)),
				 count > 1 ? errdetail("It has been so %d times in %.1f s.", count, lasted_ms / 1000.0) : 0,
				 error->hint ? errhint("%s", bbm_printable(error->hint)) : 0));
	pfree(string);
	return due;
}

/*
 * A batch has waited for a lock in vain, and its blockers are known.  Nobody
 * waits because of this entry, since the job is requeued, and other jobs may
 * not need the lock.  True when it should be logged.
 */
bool
bbm_trouble_blocked(int64 migration_id, Oid owner, const ErrorData *error)
{
	TimestampTz now = GetCurrentTimestamp();
	char	   *string = bbm_error_to_string(error);
	BbmTransients *troubles = lock_troubles(LW_EXCLUSIVE);
	BbmTransient *trouble = find_or_make(troubles, migration_id, owner);
	bool		report;

	note(troubles, trouble, error, string, now);
	trouble->due = now;
	trouble->is_lock = trouble->in_batch = true;
	report = is_to_be_reported(trouble, now);
	unlock_troubles();
	pfree(string);
	return report;
}

/*
 * Ends entries that nobody tries any more, since the migration was paused or
 * dropped.  Caller holds the lock.
 */
static void
forget_abandoned(BbmTransients *troubles)
{
	TimestampTz long_ago = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), -BBM_ABANDONED_MS);

	for (int i = 0; i < troubles->n; i++)
	{
		BbmTransient *trouble = &troubles->entries[i];

		if (trouble->since == 0 || trouble->due > long_ago)
			continue;
		trouble->since = 0;
		troubles->current--;
	}
}

/* A migration with this id is new: see bbm_wait_state_forget. */
void
bbm_trouble_forget(int64 migration_id)
{
	BbmTransients *troubles = lock_troubles(LW_EXCLUSIVE);
	BbmTransient *trouble = find(troubles, migration_id, InvalidOid);

	if (trouble && trouble->since != 0)
		troubles->current--;
	if (trouble)
		memset(trouble, 0, sizeof(BbmTransient));
	unlock_troubles();
}

/*
 * What was tried has succeeded; "batch_done" when that was a batch, or the
 * whole.  Costs almost nothing when there are no transient errors.
 */
void
bbm_trouble_over(int64 migration_id, Oid owner, const char *name, bool batch_done)
{
	BbmTransients *troubles;
	BbmTransient *trouble;
	BbmTransient was = {InvalidOid};

	if (!any_trouble())
		return;
	troubles = lock_troubles(LW_EXCLUSIVE);
	forget_abandoned(troubles);
	trouble = find(troubles, migration_id, owner);
	if (trouble && trouble->since != 0 && (batch_done || !trouble->in_batch))
	{
		was = *trouble;
		/* the time of the last log line is kept for the next error */
		trouble->since = 0;
		troubles->current--;
	}
	unlock_troubles();
	if (was.since == 0 || was.logged < was.since)
		return;
	if (name)
		ereport(LOG,
				(errmsg("migration \"%s\" goes on after %d errors in %.1f s", bbm_printable(name), was.count,
						(GetCurrentTimestamp() - was.since) / 1000000.0)));
	else
		ereport(LOG,
				(errmsg("migrations in database with OID %u go on after %d errors in %.1f s", MyDatabaseId, was.count,
						(GetCurrentTimestamp() - was.since) / 1000000.0)));
}

/* Has this process met an error, and must not try again before the reason is due? */
bool
bbm_trouble_waits(int64 migration_id, Oid owner, BbmReason *reason, TimestampTz *since)
{
	const BbmTransient *trouble;
	bool		waits;

	if (!any_trouble())
		return false;
	trouble = find(lock_troubles(LW_SHARED), migration_id, owner);
	waits = trouble && trouble->since != 0 && trouble->pid == MyProcPid &&
		!bbm_time_has_come(GetCurrentTimestamp(), trouble->due, BBM_LAST_POLL_MS);
	if (waits)
	{
		*reason = bbm_reason(wait_to_string(trouble), trouble->due);
		*since = trouble->since;
	}
	unlock_troubles();
	return waits;
}

/*
 * The transient error of a migration, of its owner, or of this whole database
 * whose next try is not before "since"; NULL when there is none.  Caller holds
 * the lock.
 */
static const BbmTransient *
current_error(BbmTransients *troubles, int64 migration_id, Oid owner, TimestampTz since)
{
	const BbmTransient *candidates[] = {
		find(troubles, migration_id, owner), find(troubles, 0, owner), find(troubles, 0, InvalidOid)
	};

	for (int i = 0; i < lengthof(candidates); i++)
	{
		if (candidates[i] && candidates[i]->since != 0 && candidates[i]->due > since)
			return candidates[i];
	}
	return NULL;
}

/* That error, for last_error; or NULL. */
char *
bbm_trouble_now(int64 migration_id, Oid owner)
{
	char		text[BBM_WAITING_LENGTH] = "";
	const BbmTransient *trouble;

	if (!any_trouble())
		return NULL;
	trouble = current_error(lock_troubles(LW_SHARED), migration_id, owner, DT_NOBEGIN);
	if (trouble)
		strlcpy(text, trouble->text, sizeof(text));
	unlock_troubles();
	return text[0] != '\0' ? pstrdup(text) : NULL;
}

/*
 * What a migration waits for because of such an error, if the next try is still
 * to come, or about to be; and (of_batch) the lock that its last batch did not
 * get, if no other batch has been done since: waiting_on shows it also while
 * the next batch begins.  Caller holds the lock on shared memory.
 */
void
bbm_trouble_reasons(int64 migration_id, Oid owner, TimestampTz now, BbmReason *longest, BbmReason *of_batch)
{
	BbmTransients *troubles = &bbm_shared->troubles;
	const BbmTransient *trouble = current_error(troubles, migration_id, owner,
												TimestampTzPlusMilliseconds(now, -BBM_LATE_MS));

	if (trouble)
	{
		BbmReason	reason = bbm_reason(wait_to_string(trouble), trouble->due);

		bbm_outlasts(longest, &reason);
	}
	trouble = find(troubles, migration_id, InvalidOid);
	if (trouble && trouble->since != 0 && trouble->in_batch)
		*of_batch = bbm_reason(trouble->lock, trouble->due);
}
