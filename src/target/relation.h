/*-------------------------------------------------------------------------
 *
 * relation.h
 *		Which table a name means, and whether its rows are in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_RELATION_H
#define BBM_TARGET_RELATION_H

#include "base/bbm.h"

#include "nodes/plannodes.h"
#include "storage/lockdefs.h"

#include "base/compat.h"
#include "target/target.h"

/*
 * Each node of Citus has a copy of a reference table's rows.  A statement goes
 * to all copies, and they commit together with whatever else is in the
 * transaction, by two-phase commit.  Shards commit apart from each other.
 */
typedef enum BbmRowsAre
{
	BBM_ROWS_HERE,
	BBM_ROWS_ON_ALL_NODES,
	BBM_ROWS_IN_SHARDS
} BbmRowsAre;

extern Oid	bbm_table_by_name(const char *name, LOCKMODE lock, void (*check) (Oid relid, const char *name));
extern PGDLLEXPORT char *bbm_table_sql_name(Oid relid);
pg_noreturn extern void bbm_table_is_gone(const char *name);
extern Oid	bbm_target_table(const char *name, LOCKMODE lock, bool distributed);
extern Oid	bbm_migration_table(const BbmMigration *migration, LOCKMODE lock);
extern bool bbm_target_is_named(const BbmTarget *target);
extern bool bbm_partition_is_named(const BbmPartition *partition);
extern BbmRowsAre bbm_where_rows_are(Oid relid);
extern bool bbm_is_distributed(Oid relid);
extern void bbm_check_rows_are_here(Oid relid);
extern Oid	bbm_shard_table(Oid relid);
extern Oid	bbm_table_find(const char *name);
extern char *bbm_table_alias(Oid relid);
extern void bbm_check_is_no_shard(Oid relid);
extern void bbm_check_queries_write_here(List *queries);
extern void bbm_check_plan_writes_here(PlannedStmt *stmt, bool of_shard);
extern void bbm_check_queries_write_no_shard(List *queries);
extern const char *bbm_index_name(const BbmTarget *target, const BbmPartition *partition);

#endif							/* BBM_TARGET_RELATION_H */
