/*-------------------------------------------------------------------------
 *
 * cluster.h
 *		The migration of a distributed table as a whole, on the coordinator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_CLUSTER_H
#define BBM_ENGINE_CLUSTER_H

#include "base/bbm.h"

#include "base/shared.h"
#include "catalog/shard_records.h"
#include "engine/engine.h"

/*
 * How often the nodes are asked, and how often when one of them does not answer:
 * the process stays meanwhile, so that the status shows which.
 */
#define BBM_CLUSTER_POLL_MS 1000
#define BBM_CLUSTER_SILENT_POLL_MS 1500

/* ... after they have begun, as a small table is done soon; and when they seem to end, not more often than that. */
#define BBM_CLUSTER_FIRST_POLL_MS 250
#define BBM_CLUSTER_LAST_POLL_MS 150

/* How often those are tried that have not been told of a pause: the status shows them without a process. */
#define BBM_CLUSTER_REACH_MS 5000

/* How often the sums over its shards are made. */
#define BBM_CLUSTER_SUMS_MS 3000

typedef struct BbmClusterStep
{
	BbmEngine  *engine;
	const BbmMigration *migration;
	MemoryContext context;		/* what is found is allocated here */
	bool		ours;			/* no other process does this just now */
	bool		held;			/* a session is pausing it, and has not committed yet */
	BbmClusterReport report;
	BbmClusterState state;
	char	   *errors;			/* all quarantined rows, if there are new ones; or NULL */
	int			empty;			/* shards that have neither a row nor a record */
	char	   *places;			/* where the shards were when it began; NULL: it has not */
	bool		stale;			/* out of bbm_cluster_decide: nothing, as somebody has changed the row since */
	bool		moved;			/* out of bbm_cluster_compare: they are not there any more */
	TimestampTz updated_at;		/* out of bbm_cluster_decide: when it was made running */
	char	   *unreached;		/* out of bbm_cluster_reach: the nodes that have still not been told */
	BbmStatus	status;			/* out: the migration's */
} BbmClusterStep;

/* BbmTxnFns with a BbmClusterStep. */
extern void bbm_cluster_look(void *arg);
extern void bbm_cluster_compare(void *arg);
extern void bbm_cluster_decide(void *arg);
extern void bbm_cluster_reach(void *arg);
extern char *bbm_cluster_waits_for(const BbmClusterStep *step);
extern bool bbm_shard_may_run(const BbmMigration *migration);

#endif							/* BBM_ENGINE_CLUSTER_H */
