/*-------------------------------------------------------------------------
 *
 * key_index.h
 *		The indexes of a table that can be walked in a key's order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_KEY_INDEX_H
#define BBM_TARGET_KEY_INDEX_H

#include "base/bbm.h"

#include "utils/relcache.h"

#include "target/key.h"

/* How an index of a table orders the key's columns. */
typedef struct BbmKeyIndex
{
	Oid			oid;
	bool		is_unique;		/* over exactly these columns */
	bool		backwards;		/* it has the key's order when read backwards */
	bool		descending[BBM_MAX_KEY_COLUMNS];	/* in that direction */
	bool		nulls_first[BBM_MAX_KEY_COLUMNS];	/* in that direction */
} BbmKeyIndex;

extern PGDLLEXPORT bool bbm_key_find_index(const BbmKey *key, Relation heap, const char *index_name, bool any_order,
										   BbmKeyIndex *found);
extern PGDLLEXPORT void bbm_key_use_order(BbmKey *key, const BbmKeyIndex *index);
extern char *bbm_key_default_columns(Oid relid, const char *index_name);

#endif							/* BBM_TARGET_KEY_INDEX_H */
