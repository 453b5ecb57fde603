/*-------------------------------------------------------------------------
 *
 * pacing.c
 *		Pausing between batches: measures the pulses of this process, and
 *		asks pace.c for how long it is to pause after each.
 *
 * NOTES
 *	  The pace is the process's, whatever migration it works on: it is about
 *	  what this process takes from others.  A pulse begins when a batch may
 *	  begin, and ends when that has committed.  A batch that fails, or that
 *	  waits for a lock in vain, is not measured; but the process pauses for the
 *	  time that it has run.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle/pacing.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/backends.h"
#include "base/compat.h"
#include "base/cpu_use.h"
#include "base/cpu_waits.h"
#include "base/guc.h"
#include "base/impact_counts.h"
#include "base/lock_watch.h"
#include "base/rates.h"
#include "base/slots.h"
#include "throttle/pace.h"

/* A longer pause is waited for in steps: the driver polls in between. */
#define BBM_PAUSE_STEP_MS 1000

/* A share below this is slow. */
#define BBM_SLOW 0.9

/* A pulse that begins so soon after the last one begins with what was read at its end: to read again costs more. */
#define BBM_SAME_READING_US 50

/* What the migration does to statements of others is read so often. */
#define BBM_READ_IMPACT_US USECS_PER_SEC

/* No pause ends later than so much after its begin, or the clock went back. */
#define BBM_LONGEST_PAUSE_MS (10 * 1000)

/* All of this process alone. */
static BbmPace pace = {0};
static TimestampTz began = 0;	/* the pulse; 0: there is none */
static TimestampTz ended = 0;	/* the last one; 0: there was none */
static TimestampTz paused_until = 0;
static bool waits_are_known = false;
static BbmCpuTimes times = {0};	/* up to the begin of the pulse */
static bool blocks = false;		/* sessions have waited for locks of this pulse */
static int64 buffers_full = 0;	/* how often it had found the WAL buffers full, up to the begin of the pulse */

/* Does a client wait, just now, until there is room in the WAL buffers, or until they are written? */
static bool
anybody_waits_for_wal(void)
{
	bool		anybody = false;
	int			n;

	pgstat_clear_backend_activity_snapshot();
	bbm_waits_read();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n && !anybody; i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);
		uint32		event = 0;

		if (status == NULL || status->st_backendType != B_BACKEND || status->st_procpid == MyProcPid ||
			!bbm_wait_of_process(status->st_procpid, &event))
			continue;
		anybody = event == (PG_WAIT_LWLOCK | WALWriteLock->tranche) || event == (PG_WAIT_LWLOCK | LWTRANCHE_WAL_INSERT);
	}
	pgstat_clear_backend_activity_snapshot();
	return anybody;
}

/* Has the pulse found the WAL buffers full?  On a server that nobody else writes to, that harms nobody. */
static bool
fills_wal(void)
{
	int64		now = bbm_wal_buffers_full();

	/* before 18 the count may have begun anew */
	return (now > buffers_full || (now > 0 && now < buffers_full)) && anybody_waits_for_wal();
}

/*
 * Once a second: keeps what the migration does to statements of others to
 * bbm.max_impact.  What is measured since the cap of the pace was last changed
 * is what was counted then, subtracted from what is counted now.
 */
static void
keep_impact(const BbmMigration *migration, const BbmPaceLimits *limits, TimestampTz now)
{
	static int64 measured_of = 0;	/* the migration; 0: none */
	static uint32 generation;
	static TimestampTz since;
	static TimestampTz next_read = 0;
	static BbmImpactGroup before[BBM_WINDOW_KINDS][BBM_IMPACT_GROUPS];
	static BbmHistogram counted[BBM_WINDOW_KINDS];
	static BbmImpactGroup groups[BBM_WINDOW_KINDS][BBM_IMPACT_GROUPS];
	double		most = bbm_setting_real(migration, BBM_MAX_IMPACT);
	uint32		newer;
	bool		anew;
	BbmImpact	impact;

	if (measured_of != migration->id || most < 0)
		pace.cap = 0;
	if (most < 0)
		measured_of = 0;
	if (most < 0 || (measured_of == migration->id && !bbm_time_has_come(now, next_read, BBM_READ_IMPACT_US / 1000)))
		return;
	next_read = now + BBM_READ_IMPACT_US;
	newer = bbm_impact_read(migration->id, counted);
	anew = measured_of != migration->id || newer != generation || now < since;
	for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
		memcpy(groups[kind], counted[kind].groups, sizeof(groups[kind]));
	if (!anew)
	{
		for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
			bbm_histogram_since(&counted[kind], before[kind]);
		impact = bbm_impact_between(&counted[BBM_WINDOW_SILENT], &counted[BBM_WINDOW_WORKED]);
		anew = bbm_pace_keep_impact(&pace, limits, most, &impact, (double) (now - since));
	}
	if (!anew)
		return;
	measured_of = migration->id;
	generation = newer;
	since = now;
	memcpy(before, groups, sizeof(before));
}

static BbmPaceLimits
limits_of(const BbmMigration *migration)
{
	return (BbmPaceLimits) {
		.min = bbm_setting_real(migration, BBM_MIN_PACE),
		.max = bbm_setting_real(migration, BBM_MAX_PACE)
	};
}

/* The process begins to work.  If its last pulse has not ended, nothing came of that. */
void
bbm_pacing_begin(const BbmMigration *migration, TimestampTz now)
{
	bool		at_once = ended != 0 && now >= ended && now - ended <= BBM_SAME_READING_US;

	bbm_impact_pulse_begins(migration->id, now);
	if (ended != 0 && now > ended)
		bbm_pace_paused(&pace, (double) (now - ended));
	ended = 0;
	began = now;
	blocks = false;
	buffers_full = bbm_wal_buffers_full();
	if (!at_once)
		waits_are_known = bbm_cpu_waits(&times);
}

/* A batch is done, and its locks are still held: has anybody waited for them for longer than is well? */
void
bbm_pacing_check_locks(void)
{
	if (bbm_lock_watch_blocks(BBM_PACE_WAIT_US))
		blocks = true;
}

/* The work that it began is done; "units" is how much it was, in units of about the same time (0: not known). */
void
bbm_pacing_end(const BbmMigration *migration, double units)
{
	BbmPaceLimits limits = limits_of(migration);
	BbmPulse	pulse = {.wait_us = -1, .units = units, .blocks = blocks};
	BbmCpuTimes before = times;

	if (began == 0)
		return;
	pulse.fills_wal = fills_wal();
	ended = GetCurrentTimestamp();
	pulse.elapsed_us = (double) Max(ended - began, 0);
	if (waits_are_known && (waits_are_known = bbm_cpu_waits(&times)))
	{
		pulse.wait_us = (double) Max(times.waited_ns - before.waited_ns, 0) / 1000;
		pulse.turns = (int) Min(times.turns - before.turns, PG_INT16_MAX);
	}
	keep_impact(migration, &limits, ended);
	/* read and asked only where it matters, as that reads all sessions: not where the share is fixed */
	if (limits.min < limits.max)
		bbm_cpu_use(ended, &pulse.use);
	if (limits.min < limits.max || pulse.wait_us > BBM_PACE_WAIT_US || pulse.wait_us < 0)
		pulse.alone_us = (double) bbm_cpus_are_ours_for(ended);
	paused_until = ended + (TimestampTz) bbm_pace_after(&pace, &limits, &pulse);
	began = 0;
	bbm_impact_pulse_ends(ended, pulse.elapsed_us);
	bbm_slot_pace(pace.share, pace.why);
}

/*
 * What it began has come to nothing, but has used a CPU, which others did not
 * have: it pauses for that as for any work.  While it waited, for a lock for example, it
 * used none; and how long it took says nothing about what others need.
 */
void
bbm_pacing_failed(const BbmMigration *migration)
{
	BbmPaceLimits limits = limits_of(migration);
	BbmCpuTimes before = times;

	if (began == 0)
		return;
	began = 0;
	ended = GetCurrentTimestamp();
	if (!waits_are_known || !(waits_are_known = bbm_cpu_waits(&times)))
		return;
	paused_until = ended +
		(TimestampTz) bbm_pace_after_failure(&pace, &limits, (double) (times.ran_ns - before.ran_ns) / 1000);
	bbm_slot_pace(pace.share, pace.why);
}

/*
 * Must the process pause before its next batch, to keep its pace, or because
 * the whole of bbm is silent?  Then *due is until when, or when to ask again.
 */
bool
bbm_pacing_pauses(TimestampTz now, TimestampTz *due)
{
	bool		pauses = !bbm_time_has_come(now, paused_until, BBM_LONGEST_PAUSE_MS);
	TimestampTz until = pauses ? paused_until : now;
	TimestampTz silent_until;

	if (bbm_impact_is_silent(now, &silent_until))
	{
		pauses = true;
		until = Max(until, silent_until);
	}
	if (!pauses)
		return false;
	bbm_impact_works_until(until);
	*due = Min(until, TimestampTzPlusMilliseconds(now, BBM_PAUSE_STEP_MS));
	return true;
}

/* Why its pace is what it is. */
const char *
bbm_pacing_reason(void)
{
	return bbm_pace_reason_to_string(pace.why);
}

/* Does the process pause more than now and then? */
bool
bbm_pacing_is_slow(const BbmMigration *migration)
{
	BbmPaceLimits limits = limits_of(migration);

	return bbm_pace_share(&pace, &limits) < BBM_SLOW;
}
