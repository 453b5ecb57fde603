/*-------------------------------------------------------------------------
 *
 * shared.h
 *		What stands in shared memory: types alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SHARED_H
#define BBM_BASE_SHARED_H

#include "base/bbm.h"

#include <signal.h>

#include "access/xlogdefs.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"

#include "base/rates.h"

/* Room for what a process or a migration waits for, with its end. */
#define BBM_WAITING_LENGTH 256
#define BBM_MAX_WAIT_STATES 128

/*
 * For what something waits.  Of several reasons people are shown the one that
 * lasts longest (bbm_outlasts): that for a moment nothing is begun for another one,
 * too, is no news to who wonders why nothing moves.
 */
typedef struct BbmReason
{
	TimestampTz due;			/* when it is over, or looked at again */
	char		text[BBM_WAITING_LENGTH];	/* empty: none */
} BbmReason;

/* One migration; a worker that leaves meanwhile leaves this to the next. */
typedef struct BbmWaitState
{
	Oid			database;		/* InvalidOid: not in use */
	int64		migration_id;
	TimestampTz touched;		/* the one touched longest ago makes room for another */
	TimestampTz since;			/* has been waiting since then; 0 when it is not */
	TimestampTz due;			/* is looked at again then */
	TimestampTz logged;			/* when that was last logged */
	TimestampTz vacuum_after;	/* no worker vacuums before */
	/* has been waiting for its turn on the table since then; 0 when it is not ... */
	TimestampTz table_wait_since;
	TimestampTz table_wait_seen;	/* ... as seen last */
	TimestampTz table_wait_kept_until;	/* until then it waits, though no process does */
	TimestampTz idle_until;		/* no job is due before, and all ranges are cut, as the last claim has seen */
	XLogRecPtr	commit;			/* of the last batch, as far as known */
	bool		recalled;		/* the buckets have what was used before there was this entry */
	BbmBucket	wal;			/* bbm.max_wal_rate, in kB */
	BbmBucket	rows;			/* bbm.max_row_rate */
	char		reason[BBM_WAITING_LENGTH];
} BbmWaitState;

/* In shared memory, protected by BbmShared.lock; without preloading, in the process. */
typedef struct BbmWaitStates
{
	BbmTrace	wal;			/* the end of the WAL: how long a standby has been behind */
	BbmTrace	xids;			/* the next transaction id: how long one has kept the horizon */
	BbmWaitState entries[BBM_MAX_WAIT_STATES];
} BbmWaitStates;

#define BBM_MAX_TROUBLES 128

/*
 * What is tried again: one migration, or (0) whatever of an owner's, or
 * (InvalidOid) of a database, comes before one.
 */
typedef struct BbmTransient
{
	Oid			database;		/* InvalidOid: not in use */
	Oid			owner;
	int64		migration_id;
	TimestampTz touched;		/* the one touched longest ago makes room for another */
	TimestampTz since;			/* the first error of the row; 0 when it is over */
	TimestampTz due;			/* of the next try */
	TimestampTz logged;			/* when that was last logged */
	int			count;			/* errors since then */
	bool		is_lock;		/* on the row or the lock of the migration */
	bool		in_batch;		/* only a batch that is done shows that it is over */
	int			pid;			/* who met it last */
	char		text[BBM_WAITING_LENGTH];	/* SQLSTATE: message */
	char		lock[BBM_WAITING_LENGTH];	/* the lock that was not had, and who was in the way; or empty */
} BbmTransient;

/* In shared memory, protected by BbmShared.lock; without preloading, in the process. */
typedef struct BbmTransients
{
	volatile int current;		/* how many are not over; read without the lock */
	BbmTransient entries[BBM_MAX_TROUBLES];
} BbmTransients;

/* So many are named. */
#define BBM_MAX_BLOCKERS 4

/* Who is in the way. */
typedef struct BbmBlocker
{
	int			pid;			/* of the leader, if it is a parallel worker; 0: a prepared transaction */
	TransactionId xid;			/* of that */
} BbmBlocker;

/* What a process waits for, in shared memory as well: plain data. */
typedef struct BbmBlockers
{
	int64		migration_id;	/* for which; 0: for whatever of its owner's */
	LOCKTAG		tag;
	Oid			row_of;			/* the table of the row, where the lock is a transaction's and that is known */
	int			count;			/* 0: it waits for no lock */
	BbmBlocker	blocker[BBM_MAX_BLOCKERS];	/* of "count", which may be more */
} BbmBlockers;

#define BBM_MAX_REQUESTS 256
#define BBM_FOREGROUND_SLOTS 16

typedef enum BbmKind
{
	BBM_KIND_WORKER,			/* started by the launcher */
	BBM_KIND_LAUNCHED,			/* started by bbm_launch_worker(); counts against bbm.max_workers as well */
	BBM_KIND_FOREGROUND,		/* CALL bbm_run() */
	BBM_KIND_DISCOVERY			/* looks into a database and leaves */
} BbmKind;

/*
 * One process that works or is about to.  All fields are protected by
 * BbmShared.lock.  A slot is reserved by the launcher, or by the process
 * itself; the process clears it when it exits.  The generation tells a worker
 * that was slow to start that its slot has meanwhile been given away.
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
	bool		leave;			/* asked to requeue its batch and go */
	bool		yields;			/* goes by itself, for others to have the slot */
	int64		migration_id;	/* 0 none */
	int64		job_id;			/* 0 none */
	TimestampTz since;
	BbmReason	waiting_on;		/* empty: for nothing */
	BbmBlockers blocked;		/* the lock it waits for, or could not have, just now */
} BbmSlot;

/*
 * Work that some (database, owner) has, as far as anybody has said.  The
 * launcher starts workers until as many run as are wanted.
 */
typedef struct BbmWorkRequest
{
	bool		in_use;
	Oid			database;
	Oid			owner;
	int			wanted;			/* workers that would find work */
	TimestampTz due;			/* when; DT_NOEND if only an event can tell */
	TimestampTz served;			/* when a worker was started last */
	uint64		generation;			/* events so far: a worker that saw fewer must look again */
	int			failures;		/* workers in a row that died before doing anything */
	TimestampTz not_before;		/* back-off after such a death */
} BbmWorkRequest;

typedef struct BbmShared
{
	LWLock	   *lock;			/* protects everything below; held for moments only */
	TimestampTz laid_out_at;	/* when the server started, or restarted after a crash */
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		discover_everywhere;	/* requests were lost, or may exist unannounced */
	Oid			discovery_database;	/* one database to look into, or InvalidOid */
	ConditionVariable changed;	/* some migration or job changed its state */
	int			batch_waiters;	/* sessions that wait for batches to end */
	int			nslots;
	BbmWaitStates holds;
	BbmTransients troubles;
	BbmWorkRequest requests[BBM_MAX_REQUESTS];
	BbmSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} BbmShared;

#endif							/* BBM_BASE_SHARED_H */
