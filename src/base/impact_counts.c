/*-------------------------------------------------------------------------
 *
 * impact_counts.c
 *		What migrations cost the statements of others, in shared memory.
 *
 * NOTES
 *	  A session knows in which database it is, and not which migration it
 *	  meets: so a statement counts for each migration that runs in its database
 *	  when it begins.  The windows are the same for all: a silent one is silent
 *	  in the whole server.
 *
 *	  Nobody waits for anybody here.  A session reads the entries without a
 *	  lock, and adds to counts with an atomic operation; if an entry becomes
 *	  another migration's meanwhile, its generation shows that, but for a moment
 *	  in which a statement may count for the wrong one.
 *
 *	  To be silent costs a migration some of its time, so no process is silent
 *	  where there are no statements.  A statement therefore says that it is
 *	  there, and counts only after others have said so for long enough that
 *	  each process knows.
 *
 *	  Without preloading there is no shared memory, and nothing is counted.
 *
 *-------------------------------------------------------------------------
 */
#include "base/impact_counts.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "base/point.h"

/*
 * Statements are there for so long after the last one that said so.  Processes
 * of bbm are silent for longer than statements rely on it.
 */
#define BBM_HEARD_US (INT64CONST(10) * USECS_PER_SEC)
#define BBM_SILENT_US (INT64CONST(12) * USECS_PER_SEC)
/* They say it so often. */
#define BBM_HEARD_AGAIN_US USECS_PER_SEC
/* ... and count from so long after the first. */
#define BBM_HEARD_FIRST_US (2 * USECS_PER_SEC)

/* When nobody has worked for so long, sessions need not search for an entry any more. */
#define BBM_OFF_US (INT64CONST(10) * USECS_PER_SEC)

/* Windows are no longer than anybody has needed them for so long, which is longer than any pause. */
#define BBM_SHIFT_US (INT64CONST(30) * USECS_PER_SEC)

/* A process that pauses begins its next pulse at most so much later than planned. */
#define BBM_LATE_US (INT64CONST(50) * 1000)

/* The older counts are dropped when so many statements are in the newer ones, or after so long. */
#define BBM_MANY_STATEMENTS 100000
#define BBM_FORGET_US (INT64CONST(600) * USECS_PER_SEC)
/* That is checked so often. */
#define BBM_CHECK_US USECS_PER_SEC

/* What this session executes now is bbm's own. */
bool		bbm_own_statements = false;

/* Of this process. */
static int	mine = -1;			/* the entry of the migration that it works on; -1: none */
static int64 mine_of = 0;		/* that migration; 0: none */
static uint32 mine_generation;	/* of that entry when it was taken, for that one migration */
static bool in_pulse = false;	/* counted in the entry's pulses */
static bool is_first = true;	/* its next pulse */
static double usual_us = 0;		/* how long its pulses last, about; 0: not known */
static TimestampTz searched = 0;	/* when an entry was last searched for */
static TimestampTz checked = 0; /* whether counts are to begin anew */
static TimestampTz left_out = 0;	/* the message whose statement does not count */

/* ----------------------------------------------------------------
 * Entries
 * ----------------------------------------------------------------
 */

static bool
is_at_work(BbmImpactEntry *entry, TimestampTz at)
{
	return pg_atomic_read_u32(&entry->pulses) > 0 ||
		(TimestampTz) pg_atomic_read_u64(&entry->works_until) >= at;
}

static void
clear_counts(BbmImpactEntry *entry, int which)
{
	for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
	{
		BbmImpactCounts *counts = &entry->counts[which][kind];

		for (int i = 0; i < BBM_IMPACT_BUCKETS; i++)
			pg_atomic_write_u32(&counts->counts[i], 0);
		for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
		{
			pg_atomic_write_u32(&counts->statements[i], 0);
			pg_atomic_write_u64(&counts->us[i], 0);
		}
	}
}

/* Adds what was counted. */
static void
add_counts(BbmImpactCounts *counts, BbmHistogram *histogram)
{
	for (int i = 0; i < BBM_IMPACT_BUCKETS; i++)
	{
		uint32		n = pg_atomic_read_u32(&counts->counts[i]);

		histogram->counts[i] += n;
		histogram->n += n;
	}
	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		histogram->groups[i].n += pg_atomic_read_u32(&counts->statements[i]);
		histogram->groups[i].us += (double) pg_atomic_read_u64(&counts->us[i]);
	}
}

/* Caller holds the lock exclusively. */
static void
take_entry(BbmImpactEntry *entry, int64 migration_id, TimestampTz now)
{
	pg_atomic_write_u32(&entry->database, InvalidOid);
	pg_atomic_fetch_add_u32(&entry->generation, 1);
	entry->migration_id = migration_id;
	entry->began = now;
	pg_atomic_write_u64(&entry->works_until, 0);
	clear_counts(entry, 0);
	clear_counts(entry, 1);
	pg_write_barrier();
	pg_atomic_write_u32(&entry->database, MyDatabaseId);
}

/*
 * The entry of a migration of this database, or one for it: of a migration that
 * nobody works on, the one longest ago; -1 when there is none.  Caller holds the
 * lock exclusively.
 */
static int
find_entry(int64 migration_id, TimestampTz now)
{
	BbmImpactState *state = &bbm_shared->impact;
	int			unused = -1;

	for (int i = 0; i < BBM_MAX_IMPACTS; i++)
	{
		BbmImpactEntry *entry = &state->entries[i];

		if (pg_atomic_read_u32(&entry->database) == MyDatabaseId && entry->migration_id == migration_id)
			return i;
		if (is_at_work(entry, now))
			continue;
		if (unused < 0 || pg_atomic_read_u64(&entry->works_until) <
			pg_atomic_read_u64(&state->entries[unused].works_until))
			unused = i;
	}
	if (unused >= 0)
		take_entry(&state->entries[unused], migration_id, now);
	return unused;
}

/* ----------------------------------------------------------------
 * The processes of bbm
 * ----------------------------------------------------------------
 */

static void
stop_on_exit(int code, Datum arg)
{
	bbm_impact_stops();
}

/* This process works on a migration from now on.  It leaves another one with no pulse counted there. */
static void
work_on(int64 migration_id, TimestampTz now)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(stop_on_exit, (Datum) 0);
	registered = true;
	bbm_impact_stops();
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	mine = find_entry(migration_id, now);
	/* nobody else takes the entry while it has a pulse */
	if (mine >= 0)
	{
		pg_atomic_fetch_add_u32(&bbm_shared->impact.entries[mine].pulses, 1);
		in_pulse = true;
		mine_generation = pg_atomic_read_u32(&bbm_shared->impact.entries[mine].generation);
	}
	LWLockRelease(bbm_shared->lock);
	mine_of = migration_id;
	usual_us = 0;
	searched = now;
}

/* Is the entry still that of the migration?  Another one may have taken it while this one did not work. */
static bool
is_still_mine(int64 migration_id)
{
	return mine_of == migration_id && mine >= 0 &&
		pg_atomic_read_u32(&bbm_shared->impact.entries[mine].generation) == mine_generation;
}

/* A process begins to work; the pulse that it has begun before, if any, goes on. */
void
bbm_impact_pulse_begins(int64 migration_id, TimestampTz now)
{
	if (bbm_shared == NULL)
		return;
	if (in_pulse && mine_of == migration_id)
		return;
	/* there was no entry a moment ago */
	if (mine_of == migration_id && mine < 0 && now >= searched && now < searched + BBM_CHECK_US)
		return;
	if (is_still_mine(migration_id))
	{
		pg_atomic_fetch_add_u32(&bbm_shared->impact.entries[mine].pulses, 1);
		in_pulse = true;
		/* it was taken at this very moment */
		if (!is_still_mine(migration_id))
			work_on(migration_id, now);
	}
	else
		work_on(migration_id, now);
	if (mine >= 0 && pg_atomic_read_u32(&bbm_shared->impact.on) == 0)
		pg_atomic_write_u32(&bbm_shared->impact.on, 1);
}

/* This process does not work any more, or may not any more, until its next pulse begins. */
void
bbm_impact_stops(void)
{
	if (in_pulse)
		pg_atomic_fetch_sub_u32(&bbm_shared->impact.entries[mine].pulses, 1);
	in_pulse = false;
}

/* It pauses until then, and then goes on. */
void
bbm_impact_works_until(TimestampTz until)
{
	pg_atomic_uint64 *works_until;
	uint64		old;

	if (bbm_shared == NULL || !is_still_mine(mine_of))
		return;
	works_until = &bbm_shared->impact.entries[mine].works_until;
	until += BBM_LATE_US;
	old = pg_atomic_read_u64(works_until);
	/* another process of the migration pauses for longer, unless the clock went back */
	while (((TimestampTz) old < until || (TimestampTz) old > until + BBM_HEARD_US) &&
		   !pg_atomic_compare_exchange_u64(works_until, &old, (uint64) until))
		;
}

/* New counts replace those of some time ago. */
static void
renew_counts(TimestampTz now)
{
	BbmImpactEntry *entry = &bbm_shared->impact.entries[mine];
	int			newer;
	int64		n = 0;

	checked = now;
	LWLockAcquire(bbm_shared->lock, LW_EXCLUSIVE);
	newer = (int) pg_atomic_read_u32(&entry->newer) & 1;
	for (int i = 0; i < BBM_IMPACT_BUCKETS; i++)
		n += pg_atomic_read_u32(&entry->counts[newer][BBM_WINDOW_SILENT].counts[i]);
	if (is_still_mine(mine_of) &&
		(n >= BBM_MANY_STATEMENTS || (n >= BBM_IMPACT_ENOUGH_P99 && now > entry->began + BBM_FORGET_US)))
	{
		clear_counts(entry, 1 - newer);
		pg_atomic_write_u32(&entry->newer, 1 - newer);
		entry->began = now;
		mine_generation = pg_atomic_add_fetch_u32(&entry->generation, 1);
	}
	LWLockRelease(bbm_shared->lock);
}

/*
 * Windows are as long as the pulses of this process need them, and those of the
 * others: as long as the longest that anybody has needed lately.
 */
static void
set_shift(TimestampTz now)
{
	BbmImpactState *state = &bbm_shared->impact;
	int			shift = bbm_window_shift(usual_us);

	pg_atomic_write_u64(&state->shift_needed[shift], (uint64) now);
	for (int i = BBM_WINDOW_MOST_SHIFT; i > shift; i--)
	{
		int64		age = now - (TimestampTz) pg_atomic_read_u64(&state->shift_needed[i]);

		/* not if the clock went back */
		if (age >= 0 && age < BBM_SHIFT_US)
			shift = i;
	}
	if (shift != (int) pg_atomic_read_u32(&state->shift))
		pg_atomic_write_u32(&state->shift, shift);
}

/* The pulse is over, which has lasted for so long. */
void
bbm_impact_pulse_ends(TimestampTz now, double elapsed_us)
{
	bool		due;

	if (!in_pulse)
		return;
	/* the first one of a process prepares what all others use, and is longer */
	if (!is_first)
		usual_us = usual_us > 0 ? usual_us + (elapsed_us - usual_us) / 16 : elapsed_us;
	is_first = false;
	due = now >= checked + BBM_CHECK_US || now < checked;
	if (usual_us > 0 &&
		(due || bbm_window_shift(usual_us) > (int) pg_atomic_read_u32(&bbm_shared->impact.shift)))
		set_shift(now);
	if (due)
		renew_counts(now);
	bbm_impact_works_until(now);
	bbm_impact_stops();
}

/* Must no pulse begin now?  Then *until says when the silence is over. */
bool
bbm_impact_is_silent(TimestampTz now, TimestampTz *until)
{
	BbmImpactState *state;
	int			shift;

	if (bbm_shared == NULL)
		return false;
	state = &bbm_shared->impact;
	shift = (int) pg_atomic_read_u32(&state->shift);
	if (bbm_window_kind(state->seed, now, shift) != BBM_WINDOW_SILENT ||
		now - (TimestampTz) pg_atomic_read_u64(&state->heard) > BBM_SILENT_US)
		return false;
	*until = bbm_window_end(now, shift);
	return true;
}

/* ----------------------------------------------------------------
 * Sessions
 * ----------------------------------------------------------------
 */

/* A statement says that it is there.  Does it rely on that bbm knows that there are some? */
static bool
is_expected(TimestampTz began)
{
	BbmImpactState *state = &bbm_shared->impact;
	TimestampTz heard = (TimestampTz) pg_atomic_read_u64(&state->heard);

	/* the clock may have gone back */
	if (began - heard > BBM_HEARD_US || heard - began > BBM_HEARD_US)
		pg_atomic_write_u64(&state->heard_since, (uint64) began);
	if (began - heard > BBM_HEARD_AGAIN_US || heard - began > BBM_HEARD_US)
		pg_atomic_write_u64(&state->heard, (uint64) began);
	return began >= (TimestampTz) pg_atomic_read_u64(&state->heard_since) + BBM_HEARD_FIRST_US;
}

/*
 * A statement begins in a window that is counted (bbm_impact_may_count).
 * Returns false when it does not count.
 */
bool
bbm_impact_hears(TimestampTz began, BbmCountedStatement *statement)
{
	BbmImpactState *state = &bbm_shared->impact;
	bool		in_a_pulse = false;
	bool		anybody = false;
	int			shift = (int) pg_atomic_read_u32(&state->shift);

	statement->began = began;
	statement->kind = bbm_window_kind(state->seed, began, shift);
	statement->group = bbm_window_group(state->seed, began, shift);
	statement->entries = 0;
	for (int i = 0; i < BBM_MAX_IMPACTS; i++)
	{
		BbmImpactEntry *entry = &state->entries[i];
		Oid			database = pg_atomic_read_u32(&entry->database);

		if (!OidIsValid(database))
			continue;
		in_a_pulse = in_a_pulse || pg_atomic_read_u32(&entry->pulses) > 0;
		anybody = anybody || is_at_work(entry, began - BBM_OFF_US);
		if (database != MyDatabaseId || !is_at_work(entry, began))
			continue;
		statement->entries |= 1U << i;
		statement->generation[i] = pg_atomic_read_u32(&entry->generation);
	}
	if (!anybody)
		pg_atomic_write_u32(&state->on, 0);
	/* a long batch may have begun before the silence */
	return statement->entries != 0 && statement->kind != BBM_WINDOW_OTHER && is_expected(began) &&
		!(statement->kind == BBM_WINDOW_SILENT && in_a_pulse);
}

static void
own_statements_end(void *arg)
{
	bbm_own_statements = false;
}

/* The statement of the message that is being executed is one of bbm's own, and does not count. */
void
bbm_impact_leave_out(void)
{
	left_out = GetCurrentStatementStartTimestamp();
}

/*
 * The same, and so are all that it executes until this memory context is reset
 * or deleted, also after an error: they may have timestamps of their own.
 */
void
bbm_impact_leave_out_until(MemoryContext context)
{
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));

	callback->func = own_statements_end;
	MemoryContextRegisterResetCallback(context, callback);
	bbm_impact_leave_out();
	bbm_own_statements = true;
}

void
bbm_impact_count(const BbmCountedStatement *statement, TimestampTz ended)
{
	int64		us = ended - statement->began;
	int			bucket = bbm_impact_bucket(us);

	if (bucket < 0 || statement->began == left_out)
		return;
	for (int i = 0; i < BBM_MAX_IMPACTS; i++)
	{
		BbmImpactEntry *entry = &bbm_shared->impact.entries[i];
		BbmImpactCounts *counts;

		if ((statement->entries & (1U << i)) == 0 ||
			statement->generation[i] != pg_atomic_read_u32(&entry->generation))
			continue;
		BBM_POINT("impact-counts");
		counts = &entry->counts[pg_atomic_read_u32(&entry->newer) & 1][statement->kind];
		pg_atomic_fetch_add_u32(&counts->counts[bucket], 1);
		pg_atomic_fetch_add_u32(&counts->statements[statement->group], 1);
		pg_atomic_fetch_add_u64(&counts->us[statement->group], us);
	}
}

/*
 * The statements that have counted for a migration of this database in the last
 * minutes; none if it was not measured.  The result changes when they begin
 * anew.
 */
uint32
bbm_impact_read(int64 migration_id, BbmHistogram histograms[BBM_WINDOW_KINDS])
{
	uint32		generation = 0;

	memset(histograms, 0, BBM_WINDOW_KINDS * sizeof(BbmHistogram));
	if (bbm_shared == NULL)
		return 0;
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	for (int i = 0; i < BBM_MAX_IMPACTS; i++)
	{
		BbmImpactEntry *entry = &bbm_shared->impact.entries[i];

		if (pg_atomic_read_u32(&entry->database) != MyDatabaseId || entry->migration_id != migration_id)
			continue;
		generation = pg_atomic_read_u32(&entry->generation);
		for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
		{
			add_counts(&entry->counts[0][kind], &histograms[kind]);
			add_counts(&entry->counts[1][kind], &histograms[kind]);
		}
	}
	LWLockRelease(bbm_shared->lock);
	return generation;
}
