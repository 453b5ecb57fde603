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

#include "engine/engine.h"
#include "engine/postpone.h"

extern BbmOutcome bbm_lead_cluster(BbmEngine *engine, const BbmMigration *migration);
extern BbmOutcome bbm_reach_nodes(BbmEngine *engine, const BbmMigration *migration);
extern bool bbm_shard_may_run(const BbmMigration *migration);

#endif							/* BBM_ENGINE_CLUSTER_H */
