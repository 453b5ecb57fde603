/*-------------------------------------------------------------------------
 *
 * blockers.h
 *		The lock that a process of bbm waits for, and who is in the way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BLOCKERS_H
#define BBM_BLOCKERS_H

#include "bbm.h"

#include "storage/lock.h"

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

extern void bbm_blockers_work_on(int64 migration_id);
extern void bbm_blockers_begin(void);
extern void bbm_blockers_poll(void);
extern void bbm_blockers_over(void);
extern bool bbm_blockers_caused(const ErrorData *error, BbmBlockers *blockers);
extern char *bbm_blockers_to_string(const BbmBlockers *blockers);
extern void bbm_blockers_name(ErrorData *error, const char *string);
extern const char *bbm_blockers_of(const ErrorData *error);

#endif							/* BBM_BLOCKERS_H */
