/*-------------------------------------------------------------------------
 *
 * hierarchy.h
 *		The partitions, or child tables, that a table has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_HIERARCHY_H
#define BBM_TARGET_HIERARCHY_H

#include "base/bbm.h"

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

extern bool bbm_has_partitions(Oid relid);
extern List *bbm_partitions_all(Oid root);
extern List *bbm_partitions_related(Oid relid);
extern bool bbm_has_triggers(Oid relid);
extern List *bbm_partitions_list(Oid root);
extern void bbm_partitions_lock(Oid root, LOCKMODE lock);
extern void bbm_partitions_snapshot(Oid root, LOCKMODE lock);
extern bool bbm_partitions_include(Oid root, Oid relid);

#endif							/* BBM_TARGET_HIERARCHY_H */
