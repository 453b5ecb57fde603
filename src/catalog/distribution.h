/*-------------------------------------------------------------------------
 *
 * distribution.h
 *		How Citus has distributed a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_DISTRIBUTION_H
#define BBM_CATALOG_DISTRIBUTION_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

typedef struct BbmDistribution
{
	char		method;			/* as in pg_dist_partition */
	char		replication;
	int			colocation;
	char	   *column;			/* NULL without, and so are its ... */
	char	   *type;			/* ... type, with its length, and ... */
	char	   *collation;		/* ... collation, both in SQL */
	int			shards;
	int			placements;
	bool		of_tenant;		/* in a schema that is distributed as a whole */
} BbmDistribution;

/* A shard of a table, and a value of the distribution column that hashes into it, as text. */
typedef struct BbmDistributionShard
{
	int64		id;
	char	   *low;
	char	   *high;
	char	   *value;			/* NULL: none was found */
} BbmDistributionShard;

extern bool bbm_distribution(Oid relid, BbmDistribution *distribution);
extern List *bbm_distribution_shards(Oid relid);
extern void bbm_distribution_values(Oid user, Oid relid, const BbmDistribution *distribution, List *shards);
extern char *bbm_shard_places(Oid relid);

#endif							/* BBM_CATALOG_DISTRIBUTION_H */
