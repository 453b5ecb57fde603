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

/* A hint where somebody wants to do something with one shard's alone. */
#define BBM_OF_THE_WHOLE \
	"Do that with the migration of the whole table, whose name ends before the last slash, here or on the coordinator."

extern void bbm_cluster_resolve(BbmDefinition *d, BbmMigration *m, Oid relid);
extern void bbm_cluster_defined(int64 id, Oid relid, bool active);
extern bool bbm_cluster_may_alter(const char *column);
extern void bbm_check_not_of_cluster(const BbmMigration *migration, const char *what, const char *hint);

#endif							/* BBM_SQL_CLUSTER_H */
