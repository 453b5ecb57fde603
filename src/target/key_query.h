/*-------------------------------------------------------------------------
 *
 * key_query.h
 *		The keys of a partition in their order, by a query.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_QUERY_H
#define BBM_TARGET_KEY_QUERY_H

#include "base/bbm.h"

#include "target/target.h"

/* target/key_scan.c: the keys of a partition in their order, along its index or by a query */
typedef struct BbmKeyWalk
{
	BbmTarget  *target;
	BbmPartition *partition;
	const BbmBound *from;		/* NULL: from the first there is */
	bool		after;			/* not including "from" */
	const BbmBound *to;			/* inclusive; NULL: to the last */
	const char *condition;		/* count only rows that meet it; NULL: all */
	int64		limit;			/* keys; those that tie with the last one come on top */
	bool		distinct;		/* count each value once */
	BbmBound	first;			/* out, when any was found */
	BbmBound	last;			/* of the limit; unset when there were fewer */
	int64		count;
} BbmKeyWalk;

extern void bbm_key_query(BbmKeyWalk *walk, bool backwards);

#endif							/* BBM_TARGET_KEY_QUERY_H */
