/*-------------------------------------------------------------------------
 *
 * pace.c
 *		The pace: which share of the time a process works.
 *
 * NOTES
 *	  A process works in pulses, short ones if it can choose, and pauses
 *	  between them for so long that it works for a share of the time.  A
 *	  controller moves the share between two limits: additive up,
 *	  multiplicative down, as congestion control does, so that several processes
 *	  come to equal shares.
 *
 *	  What it goes by is how long the process itself waited for a CPU each time
 *	  that it needed one.  Whoever else needed one then has waited for about as
 *	  long, and this process was one of those it waited for.  The set point is
 *	  BBM_PACE_WAIT_US in 99 of 100 cases.  A pulse that found more, or that
 *	  others waited for in another way, is "late".  Two late ones of the last 64
 *	  lower the share at once.  It grows when there was at most one in 64, or
 *	  none for a while.
 *
 *	  Such waits show when the CPUs are as good as busy.  Before that, and more
 *	  so the busier they are, others wait a little for each other, and longer
 *	  because of us: on CPUs that are busy for a share b of the time, about
 *	  b / (1 - b) times as long as they run.  Nobody can see how long they would
 *	  wait without us, but it can be calculated, by the theory of queues, from how
 *	  busy the CPUs are with others.  So the share has a limit: the room that is
 *	  left until the time they wait longer, all of them together, is BBM_PACE_LONGER
 *	  of all CPUs' time.  With three quarters of the CPUs busy each of them takes a
 *	  fifth longer; the fewer there are, the more room is left beside them.
 *
 *	  Where nobody else needs a CPU, a wait for one says nothing: the process
 *	  waited for others of its kind, or for those that write for it.  The system
 *	  may also keep it waiting while another CPU is idle.  After a while without
 *	  others the process works all of the time.
 *
 *	  Pins of buffers are no signal.  Who waits until nobody else has a pin of a
 *	  page is a vacuum (and replay on a standby, where we do not work); a
 *	  statement only tries, and goes on without.  A vacuum waits until the batch
 *	  that has the pin ends, at most, and then has the page: what would help it
 *	  is a shorter batch, and not a longer pause between two.  Nor does the server tell
 *	  whose pin it is: pg_stat_activity has the wait, and neither the page nor who
 *	  has pinned it; what a process has pinned is private to bufmgr.c; and the
 *	  headers of all buffers, where the waiter is, are too many to read.
 *
 *	  With bbm.max_impact the share also has a cap, which goes by what the
 *	  migration was measured to do to statements of others (base/impact.c).  That
 *	  takes a minute or so, and the controller above a second: so it decides below
 *	  the cap.
 *
 *	  The waits for a CPU are not work.  They count towards the pause instead, so
 *	  that a process that has got the lower limit works for that share of the
 *	  time, however long it waits for its CPU.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle/pace.h"

#include <math.h>

#include "port/pg_bitutils.h"

/* The share that a process begins with. */
#define BBM_PACE_FIRST 0.1

/* All that others wait longer for a CPU, because of us, may be worth such a share of all CPUs' time. */
#define BBM_PACE_LONGER 0.15

/* The share shrinks to so much of itself, at most so often after one pulse ... */
#define BBM_PACE_DOWN 0.95
#define BBM_PACE_MOST_DOWNS 10
/* ... and grows by so much, then by twice as much, and so on up to so many times as much. */
#define BBM_PACE_UP 0.006
#define BBM_PACE_MOST_UPS 20

/* It grows at the earliest after so many pulses; after so long if none of them was late. */
#define BBM_PACE_PULSES 64
#define BBM_PACE_GROW_US 200000

/* A late pulse is forgotten after so long without another, as pulses may be rare. */
#define BBM_PACE_LATE_US 1000000

/* Waits do not count when nobody else has needed a CPU for so long; after BBM_CPUS_OURS_US the share is not limited. */
#define BBM_PACE_ALONE_US 10000

/* Where the system does not report waits: so many times the best a pulse may take in addition to it. */
#define BBM_PACE_USUAL 0.5
/* The best is forgotten: half of it in an hour. */
#define BBM_PACE_FORGET 1.9e-10

/* An impact is distinguished from none when it is so many times its standard error. */
#define BBM_PACE_IMPACT_ERRORS 3.0

/* The share shrinks at most to so much of itself because of the impact, and grows by so much. */
#define BBM_PACE_IMPACT_DOWN 0.5
#define BBM_PACE_IMPACT_UP 1.1
#define BBM_PACE_IMPACT_MOST_UP 1.5

/* It grows at the earliest after so long, and is decided after so long whatever the error. */
#define BBM_PACE_IMPACT_SHORTEST_US 20e6
#define BBM_PACE_IMPACT_LONGEST_US 120e6

/* A pause is never longer, nor is what it was too long ever a credit of more than that. */
#define BBM_PACE_LONGEST_PAUSE_US 10e6
#define BBM_PACE_CREDIT_US 10e3

/* The share at most. */
static double
most(const BbmPace *pace, const BbmPaceLimits *limits)
{
	double		share = limits->max;

	if (pace->cap > 0)
		share = Min(share, pace->cap);
	if (pace->room > 0)
		share = Min(share, pace->room);
	return Min(Max(share, limits->min), limits->max);
}

static double
within(double share, const BbmPace *pace, const BbmPaceLimits *limits)
{
	return Min(Max(share, limits->min), most(pace, limits));
}

/* The share of the time that the process works from now on. */
double
bbm_pace_share(const BbmPace *pace, const BbmPaceLimits *limits)
{
	return within(pace->share > 0 ? pace->share : BBM_PACE_FIRST, pace, limits);
}

/*
 * How long it takes to run for a moment, in such moments, the waits for a CPU
 * included, while so many of the CPUs are busy.  Sakasegawa's approximation for
 * a queue of random arrivals that several CPUs serve.
 */
static double
time_taken(double busy, int cpus)
{
	double		share = busy / cpus;

	return 1 + pow(share, sqrt(2 * (cpus + 1)) - 1) / (cpus * (1 - share));
}

/* For which share of the time may each of bbm's processes use a CPU beside the others?  More than 0. */
static double
room_beside(const BbmCpuUse *use)
{
	double		busy = Min(Max(use->others, 0), 0.999 * use->cpus);
	double		longest = (1 + BBM_PACE_LONGER * use->cpus / Max(busy, 0.001)) * time_taken(busy, use->cpus);
	double		room = 0;

	/* by halves, as there is no formula for it */
	for (double step = (use->cpus - busy) / 2; step > 1e-4; step /= 2)
	{
		if (time_taken(busy + room + step, use->cpus) <= longest)
			room += step;
	}
	return Max(room, 1e-4) / Max(use->workers, 1);
}

/* The same for each pulse: it is known until the CPUs' use is read again, some hundred pulses later. */
static double
room_of(BbmPace *pace, const BbmCpuUse *use)
{
	if (pace->use.cpus != use->cpus || pace->use.others != use->others || pace->use.workers != use->workers)
	{
		pace->use = *use;
		pace->use_room = use->cpus > 0 ? room_beside(use) : 0;
	}
	return pace->use_room;
}

/*
 * For how long the pulse waited for a CPU.  Where that is not reported, it is
 * what the pulse took beyond the best that was seen.
 */
static double
wait_of(BbmPace *pace, const BbmPulse *pulse)
{
	double		unit_us;

	if (pulse->wait_us >= 0)
		return Min(pulse->wait_us, pulse->elapsed_us);
	if (!(pulse->units > 0) || !(pulse->elapsed_us > 0))
		return 0;
	unit_us = pulse->elapsed_us / pulse->units;
	pace->best_us *= 1 + BBM_PACE_FORGET * pulse->elapsed_us / pace->share;
	if (!(pace->best_us > 0) || unit_us < pace->best_us)
		pace->best_us = unit_us;
	return Max(pulse->elapsed_us - pace->best_us * pulse->units, 0);
}

/*
 * Did the pulse find others in need of what it takes?  How often, and of what.
 * A session that waits for its locks, or for the WAL, waits because of it.  CPUs
 * may be busy for other reasons, so they are named only when there is neither.
 */
static int
lateness(const BbmPulse *pulse, double wait_us, BbmPaceReason *why)
{
	bool		reported = pulse->wait_us >= 0;
	int			turns = reported ? Max(pulse->turns, 1) : 1;
	/* no two batches take the same time */
	double		usual_us = reported ? 0 : BBM_PACE_USUAL * (pulse->elapsed_us - wait_us);
	bool		waited = (wait_us - usual_us) / turns > BBM_PACE_WAIT_US && pulse->alone_us < BBM_PACE_ALONE_US;

	if (pulse->blocks)
		*why = BBM_PACE_LOCKS;
	else if (pulse->fills_wal)
		*why = BBM_PACE_WAL;
	else
		*why = reported ? BBM_PACE_CPU : BBM_PACE_SLOW;
	/* a long pulse has waited as often as many short ones, of which every second one lowers the share */
	if (waited)
		return Min(turns, 2 * BBM_PACE_MOST_DOWNS);
	return pulse->blocks || pulse->fills_wal;
}

/* Moves the share, after a pulse. */
static void
control(BbmPace *pace, const BbmPaceLimits *limits, int late, BbmPaceReason why, bool alone)
{
	double		share = pace->share;
	bool		lowered = false;

	if (pace->clean_us > BBM_PACE_LATE_US)
		pace->late = 0;
	pace->late <<= 1;
	if (late > 0)
	{
		pace->late |= 1;
		pace->clean_us = 0;
	}
	pace->pulses++;
	if (late > 1 || (late > 0 && pg_popcount64(pace->late) > 1))
	{
		for (int i = 0; i < Max(late / 2, 1); i++)
			share *= BBM_PACE_DOWN;
		share = within(share, pace, limits);
		lowered = true;
		pace->why = why;
		pace->ups = 0;
		pace->late = 0;
	}
	else if (alone && late == 0)
		share = within(limits->max, pace, limits);
	else if (pace->pulses >= BBM_PACE_PULSES ? pg_popcount64(pace->late) <= 1 :
			 pace->since_us >= BBM_PACE_GROW_US && pace->late == 0)
	{
		pace->ups = pace->late == 0 ? Min(pace->ups + 1, BBM_PACE_MOST_UPS) : 1;
		share = within(share + BBM_PACE_UP * pace->ups, pace, limits);
	}
	else
		return;
	pace->pulses = 0;
	pace->since_us = 0;
	pace->share = share;
	if (share >= limits->max)
		pace->why = limits->max < 1 ? BBM_PACE_LIMIT : BBM_PACE_FREE;
	else if (share >= most(pace, limits) && !lowered)
		pace->why = pace->cap > 0 && share >= pace->cap ? BBM_PACE_IMPACT : BBM_PACE_CPU;
}

/* The process has worked, and waited for a CPU, for so long; returns for how long it is to pause now. */
static double
owe(BbmPace *pace, double work_us, double wait_us)
{
	pace->owed_us += work_us * (1 / pace->share - 1) - wait_us;
	pace->owed_us = Min(Max(pace->owed_us, -BBM_PACE_CREDIT_US), BBM_PACE_LONGEST_PAUSE_US);
	return pace->owed_us < BBM_PACE_SHORTEST_PAUSE_US ? 0 : pace->owed_us;
}

/* Records a pulse; returns for how long the process is to pause now. */
double
bbm_pace_after(BbmPace *pace, const BbmPaceLimits *limits, const BbmPulse *pulse)
{
	BbmPaceReason why = BBM_PACE_FREE;
	double		wait_us;
	double		work_us;
	int			late;

	if (pace->share == 0)
		pace->why = BBM_PACE_STARTS;
	pace->room = pulse->alone_us >= BBM_CPUS_OURS_US ? 0 : room_of(pace, &pulse->use);
	pace->share = bbm_pace_share(pace, limits);
	wait_us = wait_of(pace, pulse);
	work_us = Max(pulse->elapsed_us - wait_us, 0);
	late = lateness(pulse, wait_us, &why);
	pace->since_us += Max(pulse->elapsed_us, 0);
	pace->clean_us += Max(pulse->elapsed_us, 0);
	control(pace, limits, late, why, pulse->alone_us >= BBM_CPUS_OURS_US);
	return owe(pace, work_us, wait_us);
}

/* Records that the process has run for so long, to no avail; the same. */
double
bbm_pace_after_failure(BbmPace *pace, const BbmPaceLimits *limits, double ran_us)
{
	if (pace->share == 0)
		pace->why = BBM_PACE_STARTS;
	pace->share = bbm_pace_share(pace, limits);
	return owe(pace, Max(ran_us, 0), 0);
}

static void
raise_cap(BbmPace *pace, const BbmPaceLimits *limits, double times)
{
	pace->cap *= times;
	if (pace->cap >= limits->max)
		pace->cap = 0;
}

/*
 * Keeps the impact to that limit (negative: none), by what was measured in the
 * last "us".  Returns true when the next measurement is to begin anew, because
 * the process works more or less from now on, or since it has been too long.
 *
 * The impact is taken for proportional to the share of the time that the
 * process works.  The share shrinks when the impact exceeds the limit, and
 * differs from none by more than its error; how soon that is depends on how much
 * the statements differ from each other.  It grows when the impact is that far
 * below the limit, or after a long while without either; also when there were too few statements in that while,
 * as then there is hardly anybody to keep to the limit for.
 */
bool
bbm_pace_keep_impact(BbmPace *pace, const BbmPaceLimits *limits, double max_impact, const BbmImpact *impact, double us)
{
	double		high;

	if (max_impact < 0)
		pace->cap = 0;
	if (max_impact < 0 || !impact->has_error)
	{
		if (us <= BBM_PACE_IMPACT_LONGEST_US)
			return false;
		raise_cap(pace, limits, BBM_PACE_IMPACT_MOST_UP);
		return true;
	}
	if (impact->mean > BBM_PACE_IMPACT_ERRORS * impact->mean_error && impact->mean > max_impact)
	{
		pace->cap = Max(bbm_pace_share(pace, limits) * Max(max_impact / impact->mean, BBM_PACE_IMPACT_DOWN),
						limits->min);
		if (pace->share > pace->cap)
			pace->share = within(pace->cap, pace, limits);
		pace->why = BBM_PACE_IMPACT;
		return true;
	}
	if (us < BBM_PACE_IMPACT_SHORTEST_US)
		return false;
	high = impact->mean + impact->mean_error;
	if (high > max_impact && us < BBM_PACE_IMPACT_LONGEST_US)
		return false;
	if (pace->cap > 0 && impact->mean <= max_impact)
		raise_cap(pace, limits, high > max_impact ? BBM_PACE_IMPACT_UP :
				  high > 0 ? Min(max_impact / high, BBM_PACE_IMPACT_MOST_UP) : BBM_PACE_IMPACT_MOST_UP);
	return true;
}

/* Records that the process has not worked for so long, whatever it waited for. */
void
bbm_pace_paused(BbmPace *pace, double us)
{
	us = Max(us, 0);
	pace->since_us += us;
	pace->clean_us += us;
	pace->owed_us = Max(pace->owed_us - us, Min(pace->owed_us, -BBM_PACE_CREDIT_US));
}

const char *
bbm_pace_reason_to_string(BbmPaceReason why)
{
	switch (why)
	{
		case BBM_PACE_FREE:
			return "nothing is in its way";
		case BBM_PACE_STARTS:
			return "it begins gently";
		case BBM_PACE_CPU:
			return "CPUs are busy";
		case BBM_PACE_SLOW:
			return "batches take longer than they could";
		case BBM_PACE_LOCKS:
			return "sessions wait for its locks";
		case BBM_PACE_WAL:
			return "WAL buffers are full";
		case BBM_PACE_LIMIT:
			return "bbm.max_pace";
		case BBM_PACE_IMPACT:
			return "bbm.max_impact";
	}
	return "";
}
