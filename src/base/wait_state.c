/*-------------------------------------------------------------------------
 *
 * wait_state.c
 *		The wait states of migrations.
 *
 * A worker that waits for long exits, and another one polls later.  Therefore
 * what it waited for, and since when, is kept here, and how much of a rate is
 * used up.  These are hints: after a restart, or if there are more migrations
 * than entries, they are lost; the rows of the newest jobs then show how much
 * of a rate is used up, and what waits is polled as seldom as if it had waited for
 * long.
 *
 *-------------------------------------------------------------------------
 */
#include "base/wait_state.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/rates.h"
#include "base/shared.h"
#include "base/shmem.h"

/* A migration that has not checked for its time slice for so long has not been waiting for it. */
#define BBM_TABLE_WAIT_FORGOTTEN_MS (60 * 1000)

/* A worker may be this late for its next poll. */
#define BBM_LATE_MS (10 * 1000)

/*
 * How many keys a migration has is counted anew so often, but for no more than
 * this share of the time: the table's pages may have to be read from a disk.
 * Sooner where it is not known.
 */
#define BBM_RECOUNT_MS 10000
#define BBM_RECOUNT_TIME 0.001
#define BBM_RECOUNT_SOON_MS 1000

static BbmWaitStates *own = NULL;

BbmWaitStates *
bbm_wait_states_lock(void)
{
	if (bbm_shared)
	{
		LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
		return &bbm_shared->wait_states;
	}
	if (own == NULL)
		own = MemoryContextAllocZero(TopMemoryContext, sizeof(BbmWaitStates));
	return own;
}

void
bbm_wait_states_unlock(void)
{
	if (bbm_shared)
		LWLockRelease(bbm_shared->lock);
}

static bool
is_of(const BbmWaitState *entry, int64 migration_id)
{
	return entry->database == MyDatabaseId && entry->migration_id == migration_id;
}

/* The migration's entry, if it has one; else NULL. */
static BbmWaitState *
find_existing(BbmWaitStates *entries, int64 migration_id)
{
	static int	last = 0;		/* most of the time it is the same again */

	if (last < entries->n && is_of(&entries->entries[last], migration_id))
		return &entries->entries[last];
	for (int i = 0; i < entries->n; i++)
	{
		if (!is_of(&entries->entries[i], migration_id))
			continue;
		last = i;
		return &entries->entries[i];
	}
	return NULL;
}

/* An entry for another migration: an unused one, or the one touched longest ago. */
static BbmWaitState *
take(BbmWaitStates *entries)
{
	BbmWaitState *oldest = &entries->entries[0];

	if (entries->n < BBM_MAX_WAIT_STATES)
		return &entries->entries[entries->n++];
	for (int i = 1; i < BBM_MAX_WAIT_STATES; i++)
	{
		if (entries->entries[i].touched < oldest->touched)
			oldest = &entries->entries[i];
	}
	return oldest;
}

/* The migration's entry, which may be a new one. */
BbmWaitState *
bbm_wait_state_find(BbmWaitStates *entries, int64 migration_id, TimestampTz now)
{
	BbmWaitState *entry = find_existing(entries, migration_id);
	bool		crowded;

	if (entry == NULL)
	{
		entry = take(entries);
		crowded = entry->since != 0;
		memset(entry, 0, sizeof(BbmWaitState));
		entry->database = MyDatabaseId;
		entry->migration_id = migration_id;
		entry->crowded = crowded;
	}
	entry->touched = now;
	return entry;
}

/*
 * A migration with this id is new.  An entry of another migration that had the
 * id, in an extension of this database that was dropped since, must not be
 * used for it.
 */
void
bbm_wait_state_forget(int64 migration_id)
{
	BbmWaitState *entry = find_existing(bbm_wait_states_lock(), migration_id);

	if (entry)
		memset(entry, 0, sizeof(BbmWaitState));
	bbm_wait_states_unlock();
}

/* The migration waits for its time slice on its table; returns for how long, in milliseconds. */
int64
bbm_table_wait_since(int64 migration_id, TimestampTz now)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, now);
	int64		ms;

	if (entry->table_wait_since == 0 || entry->table_wait_since > now ||
		now > TimestampTzPlusMilliseconds(entry->table_wait_seen, BBM_TABLE_WAIT_FORGOTTEN_MS))
		entry->table_wait_since = now;
	entry->table_wait_seen = now;
	ms = (now - entry->table_wait_since) / 1000;
	bbm_wait_states_unlock();
	return ms;
}

/* The migration has got its time slice. */
void
bbm_table_wait_end(int64 migration_id, TimestampTz now)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, now);

	entry->table_wait_since = 0;
	entry->table_wait_kept_until = 0;
	bbm_wait_states_unlock();
}

/*
 * The process that waits for the migration's time slice exits for now: until
 * then, the migration that has the table yields to it.
 */
void
bbm_table_wait_keep(int64 migration_id, TimestampTz until)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, GetCurrentTimestamp());

	entry->table_wait_kept_until = until;
	bbm_wait_states_unlock();
}

bool
bbm_table_wait_is_kept(int64 migration_id, TimestampTz now)
{
	const BbmWaitState *entry = find_existing(bbm_wait_states_lock(), migration_id);
	bool		kept = entry &&
		!bbm_time_has_come(now, entry->table_wait_kept_until, BBM_TABLE_WAIT_FORGOTTEN_MS);

	bbm_wait_states_unlock();
	return kept;
}

/*
 * Are the migration's keys to be counted anew now, by this process?  The first
 * time that is when it has been worked on for a while.  "Soon", as their number
 * is not known: at once, if that has not just been tried.
 */
bool
bbm_recount_begin(int64 migration_id, TimestampTz now, bool soon)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, now);
	bool		first = entry->recounted == 0;
	int64		after_ms = soon ? BBM_RECOUNT_SOON_MS :
		Max(BBM_RECOUNT_MS, (int64) (entry->recount_ms / BBM_RECOUNT_TIME));
	bool		due = first || (soon && entry->recount_ms < 0) ? soon :
		bbm_time_has_come(now, TimestampTzPlusMilliseconds(entry->recounted, after_ms), after_ms);

	if (first || due)
		entry->recounted = now;
	if (due)
		entry->recount_ms = Max(entry->recount_ms, 0);
	else if (first)
		entry->recount_ms = -1;
	bbm_wait_states_unlock();
	return due;
}

/* They have been counted, or could not be. */
void
bbm_recount_end(int64 migration_id, TimestampTz begin)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, now);

	entry->recounted = now;
	entry->recount_ms = (int) Min(Max(now - begin, 0) / 1000, PG_INT32_MAX);
	bbm_wait_states_unlock();
}

/*
 * A claim of the migration has found nothing to do but jobs that are not due
 * before; or (0) something to do.
 */
void
bbm_idle_until(int64 migration_id, TimestampTz until)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, GetCurrentTimestamp());

	entry->idle_until = until;
	bbm_wait_states_unlock();
}

/*
 * Adds the time that the migration has waited, and that was not added yet, to
 * what its rate leaves out; or to its pacing, if it keeps to a rate of its own,
 * which its rate must show.
 */
void
bbm_idle_count(BbmWaitState *entry, TimestampTz now)
{
	TimestampTz from = Max(entry->since, entry->counted);
	/* whoever keeps to a rate comes back then; or nobody is there any more */
	TimestampTz paced_until = Min(now, TimestampTzPlusMilliseconds(entry->reason.due, BBM_LATE_MS));

	if (entry->since == 0)
		return;
	if (now > from && entry->reason.paces)
		entry->paced_us += Max(paced_until - from, 0);
	else if (now > from)
		entry->left_out_us += now - from;
	entry->counted = now;
}

/* A process has paused for pacing. */
void
bbm_idle_paced(int64 migration_id, TimestampTz since, TimestampTz now, const char *reason)
{
	BbmWaitState *entry = bbm_wait_state_find(bbm_wait_states_lock(), migration_id, now);

	entry->paced_us += Max(now - since, 0);
	strlcpy(entry->pace_reason, reason, sizeof(entry->pace_reason));
	bbm_wait_states_unlock();
}

/*
 * The time that the migration has not been at work since this was last taken;
 * "take": from here on it counts anew.
 */
void
bbm_idle_time(int64 migration_id, TimestampTz now, bool take, BbmIdleTime *idle)
{
	BbmWaitState *entry = find_existing(bbm_wait_states_lock(), migration_id);

	memset(idle, 0, sizeof(BbmIdleTime));
	if (entry)
	{
		bbm_idle_count(entry, now);
		idle->left_out_ms = entry->left_out_us / 1000.0;
		idle->paced_ms = entry->paced_us / 1000.0;
		strlcpy(idle->reason, entry->pace_reason, sizeof(idle->reason));
		if (take)
			entry->left_out_us = entry->paced_us = 0;
	}
	bbm_wait_states_unlock();
}

/*
 * The seconds of the current wait that are not in "waited" yet.  A migration
 * that was paused, or whose worker has died, has not been waiting since the
 * next poll was due.
 */
double
bbm_wait_state_uncounted(const BbmWaitState *entry, TimestampTz now)
{
	TimestampTz until = Min(now, TimestampTzPlusMilliseconds(entry->reason.due, BBM_LATE_MS));

	return entry->since != 0 && until > entry->metered ? (until - entry->metered) / 1000000.0 : 0;
}

/*
 * Counts the wait until now for the signal that has throttled so far; from now
 * on it is "signal".  Called before entry->since and entry->reason change.
 */
void
bbm_wait_state_count(BbmWaitState *entry, int signal, TimestampTz now)
{
	entry->waited[entry->signal] += bbm_wait_state_uncounted(entry, now);
	entry->metered = now;
	entry->signal = signal;
}

/* Adds a reason for waiting: of all known reasons, the one that lasts longest is kept. */
void
bbm_outlasts(BbmReason *longest, const BbmReason *reason)
{
	if (longest->text[0] == '\0' || reason->due > longest->due)
		*longest = *reason;
}

/* A reason for waiting, with as much of its text as fits. */
BbmReason
bbm_reason(const char *text, TimestampTz due)
{
	BbmReason	reason = {due};

	bbm_clip(reason.text, text, sizeof(reason.text));
	return reason;
}

/*
 * What a migration of this database waits for, whether or not a process works
 * on it now.  *idle: as of the last check, are there only jobs that are not
 * due yet?  Caller holds the lock on shared memory.
 */
void
bbm_wait_state_reason(int64 migration_id, TimestampTz now, BbmReason *longest, bool *idle)
{
	const BbmWaitState *entry = find_existing(&bbm_shared->wait_states, migration_id);

	*idle = entry && now < entry->idle_until;
	if (entry && entry->since != 0 && now < TimestampTzPlusMilliseconds(entry->reason.due, BBM_LATE_MS))
		bbm_outlasts(longest, &entry->reason);
}

/* Copies as much of a text as fits, in whole characters. */
void
bbm_clip(char *to, const char *from, size_t size)
{
	strlcpy(to, from, pg_mbcliplen(from, strlen(from), (int) size - 1) + 1);
}
