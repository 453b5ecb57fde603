/*-------------------------------------------------------------------------
 *
 * stalled.h
 *		The migrations that do not move.
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
	char	   *since;			/* when something has happened last */
	TimestampTz since_at;
	char	   *waiting_on;
	char	   *last_error;		/* or NULL */
} BbmStalled;

extern List *bbm_migrations_stalled(MemoryContext context);

#endif							/* BBM_CATALOG_STALLED_H */
