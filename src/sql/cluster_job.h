/*-------------------------------------------------------------------------
 *
 * cluster_job.h
 *		What a migration of a distributed table may do with its rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_CLUSTER_JOB_H
#define BBM_SQL_CLUSTER_JOB_H

#include "base/bbm.h"

#include "catalog/distribution.h"
#include "catalog/options.h"

extern void bbm_cluster_check_job(BbmMigration *m, Oid relid, const BbmDistribution *distribution);

#endif							/* BBM_SQL_CLUSTER_JOB_H */
