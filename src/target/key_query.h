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

/* A walk over the keys of a partition in their order, along its index or by a query; see target/key_scan.c. */
typedef struct BbmKeyWalk
{
	BbmTarget  *target;
	BbmPartition *partition;
	const BbmBound *from;		/* NULL: from the first key */
	bool		after;			/* excluding "from" */
	const BbmBound *to;			/* inclusive; NULL: to the last key */
	const char *condition;		/* count only rows that meet it; NULL: all */
	int64		limit;			/* number of keys; those that tie with the last one are added */
	bool		distinct;		/* count each value once */
	BbmMarks   *marks;			/* output, by a walk along the index; NULL: none are wanted */
	BbmBound	first;			/* output; set if any key was found */
	BbmBound	last;			/* output: the key at the limit; unset if there were fewer keys */
	int64		count;
} BbmKeyWalk;

extern void bbm_key_query(BbmKeyWalk *walk, bool backwards);

#endif							/* BBM_TARGET_KEY_QUERY_H */
