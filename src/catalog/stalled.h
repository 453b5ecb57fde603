/*-------------------------------------------------------------------------
 *
 * stalled.h
 *		The migrations without progress.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_STALLED_H
#define BBM_CATALOG_STALLED_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

/* catalog_stalled.c */
typedef struct BbmStalled
{
	int64		id;
	char	   *name;
	BbmStatus	status;
	Oid			owner;
	char	   *since;			/* the time of its last progress */
	TimestampTz since_at;
	char	   *waiting_on;
	char	   *last_error;		/* or NULL */
} BbmStalled;

extern List *bbm_migrations_stalled(MemoryContext context);

#endif							/* BBM_CATALOG_STALLED_H */
