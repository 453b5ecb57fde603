/*-------------------------------------------------------------------------
 *
 * cluster_control.h
 *		Migrations of distributed tables (Citus): what the coordinator has the
 *		nodes do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_CLUSTER_CONTROL_H
#define BBM_SQL_CLUSTER_CONTROL_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

/* The migration of a distributed table, as the guards of its row know it. */
typedef struct BbmClusterRow
{
	int64		id;
	Oid			owner;
	const char *name;
	const char *record;
	const char *table;
} BbmClusterRow;

extern void bbm_cluster_hold(List *migrations);
extern void bbm_cluster_check_pause(List *migrations);
extern int	bbm_cluster_pause(const BbmMigration *migration, bool cancel, bool strict);
extern void bbm_cluster_pause_again(List *migrations);
extern bool bbm_cluster_may_start(const BbmMigration *migration);
extern void bbm_cluster_tell_start(const BbmClusterRow *row);
extern void bbm_cluster_tell_stop(const BbmClusterRow *row, bool failed);
extern void bbm_cluster_redefine(const BbmClusterRow *row);
extern int64 bbm_cluster_retry(const BbmMigration *migration);
extern void bbm_cluster_drop(const BbmClusterRow *row);

#endif							/* BBM_SQL_CLUSTER_CONTROL_H */
