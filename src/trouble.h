/*-------------------------------------------------------------------------
 *
 * trouble.h
 *		Errors that pass by themselves, and are tried again until they have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TROUBLE_H
#define BBM_TROUBLE_H

#include "bbm.h"

#include "holds.h"

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

extern char *bbm_error_to_string(const ErrorData *error);
extern TimestampTz bbm_trouble_met(int64 migration_id, Oid owner, const char *name, const ErrorData *error,
								   bool is_lock, bool in_batch);
extern bool bbm_trouble_blocked(int64 migration_id, Oid owner, const ErrorData *error);
extern void bbm_trouble_forget(int64 migration_id);
extern void bbm_trouble_over(int64 migration_id, Oid owner, const char *name, bool batch_done);
extern bool bbm_trouble_waits(int64 migration_id, Oid owner, TimestampTz *due, TimestampTz *since, char *text);
extern bool bbm_trouble_now(int64 migration_id, Oid owner, bool awaited, BbmReason *trouble);
extern bool bbm_trouble_of_batch(int64 migration_id, char *text);

#endif							/* BBM_TROUBLE_H */
