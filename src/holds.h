/*-------------------------------------------------------------------------
 *
 * holds.h
 *		What is remembered of migrations that wait for the server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_WAIT_STATE_H
#define BBM_WAIT_STATE_H

#include "bbm.h"

#include "access/xlogdefs.h"

#include "throttle.h"

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
	TimestampTz table_wait_since;		/* has been waiting for its turn on the table since then; 0 when it is not ... */
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

/*
 * The entry of a migration of this database, made when there is none.  Between
 * bbm_wait_states_lock and bbm_wait_states_unlock, which are for moments.
 */
extern BbmWaitStates *bbm_wait_states_lock(void);
extern void bbm_wait_states_unlock(void);
extern BbmWaitState *bbm_wait_state_find(BbmWaitStates *holds, int64 migration_id, TimestampTz now);

extern int64 bbm_table_wait_since(int64 migration_id, TimestampTz now);
extern void bbm_table_wait_end(int64 migration_id, TimestampTz now);
extern void bbm_table_wait_keep(int64 migration_id, TimestampTz until);
extern bool bbm_table_wait_is_kept(int64 migration_id, TimestampTz now);
extern void bbm_hold_forget(int64 migration_id);
extern void bbm_idle_until(int64 migration_id, TimestampTz until);
extern void bbm_wait_state_reason(int64 migration_id, BbmReason *longest, bool *idle);
extern void bbm_outlasts(BbmReason *longest, TimestampTz due, const char *text);
extern void bbm_clip(char *to, const char *from, size_t size);

#endif							/* BBM_WAIT_STATE_H */
