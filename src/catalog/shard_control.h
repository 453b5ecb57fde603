/*-------------------------------------------------------------------------
 *
 * shard_control.h
 *		How the nodes of a migration of a distributed table learn that it is
 *		paused, while some of them do not answer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHARD_CONTROL_H
#define BBM_CATALOG_SHARD_CONTROL_H

#include "base/bbm.h"

#include "lib/stringinfo.h"

#include "catalog/shard_records.h"

extern void bbm_shard_keys(const char *record, StringInfo buf);
extern void bbm_shard_record_pause(Oid owner, const char *record, const char *table, BbmClusterReport *report);
extern char *bbm_unreached_nodes(const BbmClusterReport *report);
extern void bbm_unreached_nodes_write(int64 migration_id, const BbmClusterReport *report);

#endif							/* BBM_CATALOG_SHARD_CONTROL_H */
