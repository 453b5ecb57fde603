/*-------------------------------------------------------------------------
 *
 * shared.h
 *		The types of what is in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SHARED_H
#define BBM_BASE_SHARED_H

#include "base/bbm.h"

#include <signal.h>

#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"

#include "base/impact.h"
#include "base/rates.h"

/* Length of the text of what a process or a migration waits for, with its terminating zero byte. */
#define BBM_WAITING_LENGTH 256
#define BBM_MAX_WAIT_STATES 1024

/* The signals that throttle have numbers, which are below. */
#define BBM_MAX_SIGNALS 20

/*
 * A reason for waiting.  If there are several, users are shown the one that
 * lasts longest (bbm_outlasts): a second reason that ends in a moment does not
 * explain why nothing moves.
 */
typedef struct BbmReason
{
	TimestampTz due;			/* when it ends, or is polled again */
	bool		paces;			/* it is a rate of the migration's own: whoever waits for that is at work */
	char		text[BBM_WAITING_LENGTH];	/* empty: none */
} BbmReason;

/* One migration; a worker that exits meanwhile leaves this to the next. */
typedef struct BbmWaitState
{
	Oid			database;		/* InvalidOid: not in use */
	int64		migration_id;
	TimestampTz touched;		/* the one touched longest ago is reused for another */
	bool		crowded;		/* that was one that waited: there are more than there is room for */
	TimestampTz since;			/* waiting since then; 0 when it is not waiting ... */
	BbmReason	reason;			/* ... for this, until the next poll */
	TimestampTz logged;			/* when that was last logged */
	TimestampTz vacuum_after;	/* no worker vacuums before */
	TimestampTz recounted;		/* when its keys were last counted; or since when they are to be */
	int			recount_ms;		/* how long that has taken; -1: they were not yet counted */
	/* waiting for its time slice on the table since then; 0 when it is not ... */
	TimestampTz table_wait_since;
	TimestampTz table_wait_seen;	/* ... as of the last check */
	TimestampTz table_wait_kept_until;	/* it counts as waiting until then, though no process waits */
	TimestampTz idle_until;		/* no job is due before, and all ranges are allocated, as of the last claim */
	XLogRecPtr	commit;			/* of the last batch, as far as known */
	/* for the clock of its rate, since that was last taken: */
	int64		left_out_us;	/* it was throttled for so long */
	int64		paced_us;		/* its workers have paced themselves for so long */
	TimestampTz counted;		/* "since" is counted up to here */
	char		pace_reason[BBM_WAITING_LENGTH];	/* of the last pause for pacing */
	bool		recalled;		/* the buckets include what was used before this entry existed */
	BbmBucket	wal;			/* bbm.max_wal_rate, in kB */
	BbmBucket	rows;			/* bbm.max_row_rate */
	int			signal;			/* the number of the signal that throttles */
	TimestampTz metered;		/* its wait is in "waited" up to then */
	double		waited[BBM_MAX_SIGNALS];	/* seconds by signal, for metrics; they only grow */
} BbmWaitState;

/* In shared memory, protected by BbmShared.lock; without preloading, in the process. */
typedef struct BbmWaitStates
{
	BbmTrace	wal;			/* the end of the WAL: shows for how long a standby has been behind */
	BbmTrace	xids;			/* the next transaction id: shows for how long one has held back the horizon */
	int			n;				/* entries that have ever been used: the first ones */
	BbmWaitState entries[BBM_MAX_WAIT_STATES];
} BbmWaitStates;

#define BBM_MAX_TROUBLES 1024

/*
 * An operation that is tried again: on one migration; or, with migration_id 0,
 * what precedes any migration of an owner, or of a database (owner
 * InvalidOid).
 */
typedef struct BbmTransient
{
	Oid			database;		/* InvalidOid: not in use */
	Oid			owner;
	int64		migration_id;
	TimestampTz touched;		/* the one touched longest ago is reused for another */
	TimestampTz since;			/* the first of these errors; 0 when it is over */
	TimestampTz due;			/* of the next try */
	TimestampTz logged;			/* when that was last logged */
	int			count;			/* errors since then */
	bool		is_lock;		/* on the row or the lock of the migration */
	bool		in_batch;		/* only a finished batch shows that it is over */
	int			pid;			/* the process that met it last */
	char		text[BBM_WAITING_LENGTH];	/* SQLSTATE: message */
	char		lock[BBM_WAITING_LENGTH];	/* the lock that was not granted, and its blockers; or empty */
} BbmTransient;

/* In shared memory, protected by BbmShared.lock; without preloading, in the process. */
typedef struct BbmTransients
{
	volatile int current;		/* number of entries that are not over; read without the lock */
	int			n;				/* the same */
	BbmTransient entries[BBM_MAX_TROUBLES];
} BbmTransients;

/* At most this many blockers are named. */
#define BBM_MAX_BLOCKERS 4

/* A process that blocks us. */
typedef struct BbmBlocker
{
	int			pid;			/* of the leader, if it is a parallel worker; 0: a prepared transaction */
	TransactionId xid;			/* of the prepared transaction */
} BbmBlocker;

/* What a process waits for; also in shared memory, so plain data. */
typedef struct BbmBlockers
{
	int64		migration_id;	/* the migration it waits on behalf of; 0: any of its owner's */
	LOCKTAG		tag;
	Oid			row_of;			/* the table of the row, if the lock is a transaction's and the table is known */
	int			count;			/* number of blockers; 0: it waits for no lock */
	BbmBlocker	blocker[BBM_MAX_BLOCKERS];	/* the first of "count", which may be more */
} BbmBlockers;

/* So many migrations at a time are measured. */
#define BBM_MAX_IMPACTS 16

/* Statements that began in windows of one kind; each session counts without a lock. */
typedef struct BbmImpactCounts
{
	pg_atomic_uint32 counts[BBM_IMPACT_BUCKETS];
	/* by the group of the window */
	pg_atomic_uint64 us[BBM_IMPACT_GROUPS];
	pg_atomic_uint32 statements[BBM_IMPACT_GROUPS];
} BbmImpactCounts;

/*
 * The statements of others that began while a migration ran, which each
 * session counts without a lock.  migration_id and began are protected by
 * BbmShared.lock, under which the entry also becomes another migration's.
 */
typedef struct BbmImpactEntry
{
	pg_atomic_uint32 database;	/* InvalidOid: not in use */
	int64		migration_id;
	TimestampTz began;			/* the newer counts */
	pg_atomic_uint32 generation;	/* increments whenever counts begin anew */
	pg_atomic_uint32 pulses;	/* how many processes are in one */
	pg_atomic_uint64 works_until;	/* a TimestampTz: by then the next pulse begins */
	pg_atomic_uint32 newer;		/* which counts are the newer ones: 0 or 1 */
	BbmImpactCounts counts[2][BBM_WINDOW_KINDS];
} BbmImpactEntry;

typedef struct BbmImpactState
{
	uint64		seed;			/* of the windows; set once */
	pg_atomic_uint32 on;		/* 0: no session has to do anything */
	pg_atomic_uint32 shift;		/* how much longer windows are than usual */
	/* TimestampTz: when a process last needed so much longer ones */
	pg_atomic_uint64 shift_needed[BBM_WINDOW_MOST_SHIFT + 1];
	pg_atomic_uint64 heard;		/* when the last statement began that might count, about; ... */
	pg_atomic_uint64 heard_since;	/* ... and since when there were some all the time */
	BbmImpactEntry entries[BBM_MAX_IMPACTS];
} BbmImpactState;

/* How busy the CPUs have been in the last seconds. */
typedef struct BbmCpuUse
{
	int			cpus;			/* the machine has; 0: it is not known */
	double		others;			/* CPUs that are busy on average, but not with processes of bbm */
	int			workers;		/* processes of bbm that have run meanwhile */
} BbmCpuUse;

/* The processes of bbm: as many as there can be. */
#define BBM_MOST_PROCESSES 273

typedef struct BbmProcesses
{
	int			n;
	pid_t		pid[BBM_MOST_PROCESSES];
	double		ran_us[BBM_MOST_PROCESSES]; /* since it began, where that was read; or in user mode alone */
} BbmProcesses;

/* What is read at the end of one interval and compared at the end of the next. */
typedef struct BbmBusyReading
{
	bool		reported;		/* by the system */
	double		idle_us;		/* of all CPUs, since the system was started */
	BbmProcesses ours;
} BbmBusyReading;

/*
 * What the processes of bbm know together: one of them finds it out, for all.  In
 * shared memory, protected by BbmShared.lock; a process that has no slot has its own.
 */
typedef struct BbmAlone
{
	TimestampTz asked;			/* a process finds it out since then; 0: none does */
	TimestampTz known_at;		/* 0: not known yet */
	int64		us;				/* nobody else has needed a CPU for so long */
	TimestampTz needed_at;		/* a session was seen to need one */
	TimestampTz programs_at;	/* programs were read */
	double		programs_us;	/* for so long all of them had run ... */
	BbmProcesses ours;			/* ... and these */
	TimestampTz programs_idle_since;
} BbmAlone;

typedef struct BbmBusy
{
	TimestampTz asked;			/* the same */
	TimestampTz known_at;
	BbmCpuUse	use;
	BbmBusyReading last;
} BbmBusy;

#define BBM_MAX_REQUESTS 2048
#define BBM_FOREGROUND_SLOTS 16
#define BBM_DISCOVERY_SLOTS 1	/* one runs at a time, however many sessions run migrations */

typedef enum BbmKind
{
	BBM_KIND_WORKER,			/* started by the launcher */
	BBM_KIND_LAUNCHED,			/* started by bbm_launch_worker(); counts against bbm.max_workers as well */
	BBM_KIND_FOREGROUND,		/* CALL bbm_run() */
	BBM_KIND_DISCOVERY			/* checks one database and exits */
} BbmKind;

/*
 * One process that works or is about to.  BbmShared.lock protects all fields.
 * The launcher, or the process itself, reserves a slot; the process clears it
 * when it exits.  The generation shows a worker that was slow to start that
 * its slot now belongs to another process.
 */
typedef struct BbmSlot
{
	bool		in_use;
	uint32		generation;
	BbmKind		kind;
	pid_t		pid;			/* 0 until the process has attached */
	Latch	   *latch;
	Oid			database;
	Oid			owner;
	bool		connected;		/* it got through authentication */
	bool		must_exit;		/* asked to requeue its batch and exit */
	bool		yields;			/* exits voluntarily, so that others get the slot */
	int64		migration_id;	/* 0: none */
	int64		job_id;			/* 0: none */
	TimestampTz since;
	double		pace;			/* the share of the time that it works; 0: not known yet */
	int			pace_why;		/* a BbmPaceReason (throttle/pace.h) */
	BbmReason	waiting_on;		/* empty: it does not wait */
	BbmBlockers blocked;		/* the lock it waits for, or did not get in its last attempt */
} BbmSlot;

/*
 * A request: the known work of a (database, owner).  The launcher starts
 * workers until the wanted number runs.
 */
typedef struct BbmWorkRequest
{
	bool		in_use;
	Oid			database;
	Oid			owner;
	int			wanted;			/* workers that would find work */
	TimestampTz due;			/* when; DT_NOEND: only after an event */
	bool		polls;			/* all that the last worker found was to be waited for */
	TimestampTz served;			/* when a worker was started last */
	uint64		generation;			/* its last event's number: a worker that saw an earlier one must check again */
	int			failures;		/* successive workers that died before doing anything */
	TimestampTz not_before;		/* back-off after such a death */
} BbmWorkRequest;

typedef struct BbmShared
{
	LWLock	   *lock;			/* protects everything below; held only briefly */
	TimestampTz laid_out_at;	/* when the server started, or restarted after a crash */
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		discover_everywhere;	/* there may be work that nobody has announced */
	bool		requests_lost;	/* there was no room for them */
	uint64		events;			/* number of the last event of any request */
	int			nrequests;		/* entries of the array that have ever been used: the first ones */
	Oid			discovery_database; /* one database to check, or InvalidOid */
	Oid			discovery_undone;	/* one whose discovery has ended and not checked it, or InvalidOid */
	int			discovery_failures; /* so many in a row have ended by themselves like that */
	ConditionVariable changed;	/* a migration or job has changed its state */
	int			batch_waiters;	/* sessions that wait for batches to end */
	int			nslots;
	BbmWaitStates wait_states;
	BbmTransients troubles;
	BbmAlone	alone;
	BbmBusy		busy;
	BbmImpactState impact;		/* not protected by it, but for what it says */
	BbmWorkRequest requests[BBM_MAX_REQUESTS];
	BbmSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} BbmShared;

#endif							/* BBM_BASE_SHARED_H */
