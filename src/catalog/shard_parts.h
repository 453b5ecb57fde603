/*-------------------------------------------------------------------------
 *
 * shard_parts.h
 *		The migrations of the shards that this node has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHARD_PARTS_H
#define BBM_CATALOG_SHARD_PARTS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "catalog/options.h"
#include "catalog/shards.h"

typedef struct BbmShardPart
{
	int64		id;				/* of the migration */
	int64		shard;
	int64		epoch;
	BbmStatus	status;
	int64		found;			/* rows that verification has found, with which it has failed */
	bool		has_total;		/* how many rows there are to do is known ... */
	int64		total;			/* ... and estimated to be so many */
	char	   *error;			/* NULL: none */
	char	   *detail;			/* ... of it, or NULL */
	char	   *sqlstate;
	char	   *waiting;		/* what it waits for, or NULL */
} BbmShardPart;

extern List *bbm_shard_parts(const char *record);
extern void bbm_shard_part_definition(const BbmShardRecord *shard, BbmDefinition *d);
extern char *bbm_shard_part_name(const char *name, int64 shard);
extern void bbm_shard_part_alter(const BbmShardPart *part, const BbmShardRecord *shard);
extern void bbm_shard_part_defined(int64 id, const char *record, const BbmShardRecord *shard, int64 total);

#endif							/* BBM_CATALOG_SHARD_PARTS_H */
