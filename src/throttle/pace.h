/*-------------------------------------------------------------------------
 *
 * pace.h
 *		The pace: which share of the time a process works.
 *
 * Pure functions of a struct and of measurements: no clock, no state of their
 * own.  Times are in microseconds, shares are between 0 and 1.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_PACE_H
#define BBM_THROTTLE_PACE_H

#include "base/bbm.h"

#include "base/cpu_use.h"
#include "base/impact.h"

/* The set point: a wait for a CPU, or for a lock, that nobody minds. */
#define BBM_PACE_WAIT_US 1000

/* A pause shorter than this is put off until the pulses that follow owe as much. */
#define BBM_PACE_SHORTEST_PAUSE_US 1000

/* Why the pace is what it is. */
typedef enum BbmPaceReason
{
	BBM_PACE_FREE,				/* nothing is in its way */
	BBM_PACE_STARTS,			/* the process has just begun, and finds out */
	BBM_PACE_CPU,				/* it waits for a CPU, so others do */
	BBM_PACE_SLOW,				/* ... as far as its batches show, where the system does not report it */
	BBM_PACE_LOCKS,				/* sessions wait for its locks */
	BBM_PACE_WAL,				/* it finds the WAL buffers full, so others do */
	BBM_PACE_LIMIT,				/* it is at bbm.max_pace */
	BBM_PACE_IMPACT				/* statements of others take longer than bbm.max_impact allows if it works more */
} BbmPaceReason;

/* What a process does between two moments at which it may pause: a batch with its commit, or a few. */
typedef struct BbmPulse
{
	double		elapsed_us;		/* from its begin to its end */
	double		wait_us;		/* of that, ready to run and without a CPU; negative: not known */
	int			turns;			/* how often it got a CPU, and so waited for one, if only for a moment */
	double		units;			/* how much it did, in units that take about the same time; 0: not known */
	BbmCpuUse	use;			/* how busy the CPUs are */
	double		alone_us;		/* for so long nobody else has needed a CPU; 0: somebody does, or it is not known */
	bool		blocks;			/* sessions had waited for its locks for longer than the set point */
	bool		fills_wal;		/* it found the WAL buffers full, and sessions waiting for them */
} BbmPulse;

/* bbm.min_pace and bbm.max_pace; if they contradict each other, the latter applies. */
typedef struct BbmPaceLimits
{
	double		min;
	double		max;
} BbmPaceLimits;

/* The controller of one process; zeroed: it has done nothing yet. */
typedef struct BbmPace
{
	double		share;			/* of the time that it works; 0: nothing is known yet */
	BbmPaceReason why;
	uint64		late;			/* a bit for each of the last 64 pulses: did it find others in need? */
	int			pulses;			/* since the share was changed */
	double		since_us;		/* the time since then, pauses included */
	double		clean_us;		/* the time since the last late pulse */
	int			ups;			/* how often the share grew since it last shrank */
	double		owed_us;		/* the pause that is still owed; negative: paused for longer than it had to */
	double		best_us;		/* the least time that a unit took; 0: not known */
	double		room;			/* the share at most, for the sake of those who need a CPU; 0: it is not known */
	BbmCpuUse	use;			/* how busy the CPUs were, when last asked for ... */
	double		use_room;		/* ... and the share at most then; 0: it was not known */
	double		cap;			/* the share at most, for the sake of bbm.max_impact; 0: none */
} BbmPace;

extern PGDLLEXPORT double bbm_pace_after(BbmPace *pace, const BbmPaceLimits *limits, const BbmPulse *pulse);
extern PGDLLEXPORT double bbm_pace_after_failure(BbmPace *pace, const BbmPaceLimits *limits, double ran_us);
extern PGDLLEXPORT void bbm_pace_paused(BbmPace *pace, double us);
extern PGDLLEXPORT bool bbm_pace_keep_impact(BbmPace *pace, const BbmPaceLimits *limits, double max_impact,
											 const BbmImpact *impact, double us);
extern PGDLLEXPORT double bbm_pace_share(const BbmPace *pace, const BbmPaceLimits *limits);
extern const char *bbm_pace_reason_to_string(BbmPaceReason why);

#endif							/* BBM_THROTTLE_PACE_H */
