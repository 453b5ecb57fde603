/*-------------------------------------------------------------------------
 *
 * cluster_guard.h
 *		The rules of the guards for migrations of distributed tables (Citus).
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_CLUSTER_GUARD_H
#define BBM_SQL_CLUSTER_GUARD_H

#include "postgres.h"

#include "utils/rel.h"

#include "sql/row.h"

extern void bbm_cluster_guard_update(Relation rel, BbmRow old, BbmRow new);
extern void bbm_cluster_changed(Relation rel, BbmRow old, BbmRow now);
extern void bbm_cluster_deleted(BbmRow old);

#endif							/* BBM_SQL_CLUSTER_GUARD_H */
