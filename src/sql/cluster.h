/*-------------------------------------------------------------------------
 *
 * cluster.h
 *		Defining a migration of a distributed table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_CLUSTER_H
#define BBM_SQL_CLUSTER_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "catalog/options.h"

extern void bbm_cluster_refuse(Oid relid, const char *detail, const char *hint);
extern void bbm_cluster_resolve(BbmDefinition *d, BbmMigration *m, Oid relid);
extern void bbm_cluster_defined(int64 id, Oid relid, bool active);
extern void bbm_cluster_hold(List *migrations);
extern int	bbm_cluster_pause(const BbmMigration *migration, bool cancel);
extern void bbm_cluster_tell(Oid owner, const char *name, const char *record, bool runs);
extern void bbm_cluster_redefine(Oid owner, const char *name, const char *record, int64 id);
extern bool bbm_cluster_may_alter(const char *column);
extern void bbm_check_not_of_cluster(const BbmMigration *migration, const char *what, const char *hint);

#endif							/* BBM_SQL_CLUSTER_H */
