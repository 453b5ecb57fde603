/*-------------------------------------------------------------------------
 *
 * tables.h
 *		Our tables, as they have been found in this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_TABLES_H
#define BBM_CATALOG_TABLES_H

#include "base/bbm.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "utils/relcache.h"

/* Our tables, in the order in which a transaction locks them. */
typedef enum BbmTable
{
	BBM_MIGRATIONS,
	BBM_JOBS,
	BBM_PARTITIONS,
	BBM_ROW_ERRORS,
	BBM_EVENTS,
	BBM_TOTALS,
	BBM_TABLES
} BbmTable;

/* The location of the extension in this database. */
typedef struct BbmCatalog
{
	Oid			extension;
	Oid			owner;			/* of the two tables that the GitLab container registry has as well: may write them */
	Oid			owners[BBM_TABLES];
	Oid			migrations;		/* batched_background_migrations; also the lock class of our locks */
	Oid			jobs;			/* batched_background_migration_jobs */
	Oid			tables[BBM_TABLES];
	Oid			migrations_key; /* index on id */
	Oid			migrations_by_table;	/* index on table_oid */
	Oid			jobs_key;		/* index on id */
	Oid			jobs_newest;	/* index on migration and id, highest id first */
	Oid			totals_key;		/* index on migration_id */
	char	   *schema;			/* quoted */
	char	   *version;		/* of the SQL */
	char	   *strange_trigger_name;		/* why we do not let a trigger of our tables fire; or NULL */
	char	   *flaw;			/* what our tables lack, so that nothing can run; or NULL */
	char	   *flaw_hint;
} BbmCatalog;

extern const char *bbm_table_name(BbmTable table);
extern AttrNumber bbm_column_number(Relation rel, const char *name);
extern Datum bbm_tuple_column(HeapTuple tuple, Relation rel, const char *name);
extern bool bbm_tuple_is_null(HeapTuple tuple, Relation rel, const char *name);
extern SysScanDesc bbm_scan_id(Relation rel, Oid index, const char *column, int64 id, Snapshot snapshot);

#endif							/* BBM_CATALOG_TABLES_H */
