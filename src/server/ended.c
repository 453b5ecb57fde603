/*-------------------------------------------------------------------------
 *
 * ended.c
 *		What DROP EXTENSION ends on other servers.
 *
 * NOTES
 *	  Citus carries the command to all nodes.  The nodes do not say which work
 *	  it ends, and the record's tables, which depend on the extension, have
 *	  only numbers in their names.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "server/ended.h"

#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "storage/lmgr.h"

#include "base/bbm.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"

static const char *
word(BbmStatus status)
{
	return status == BBM_PAUSED ? "paused" : status == BBM_FAILED ? "failed" : "at work";
}

/*
 * Names the migrations of distributed tables that are not finished, before the
 * extension is dropped, by a user who may drop it.  Others may be defined or
 * finished until the command has locked our tables.  Needs a transaction.
 */
void
bbm_report_ended(void)
{
	StringInfoData names;
	int			n = 0;
	ListCell   *cell;
	const BbmCatalog *catalog = bbm_catalog_find();

	if (catalog == NULL)
		return;
	/* the command's own first lock: another session may drop it until this is granted */
	LockDatabaseObject(ExtensionRelationId, catalog->extension, 0, AccessExclusiveLock);
	/* to drop it may be what the user does about its flaw */
	if (bbm_catalog_usable() == NULL)
		return;
	initStringInfo(&names);
	SPI_connect();
	foreach(cell, bbm_migrations_with_status(list_make4_int(BBM_PAUSED, BBM_ACTIVE, BBM_FAILED, BBM_RUNNING)))
	{
		const BbmMigration *migration = lfirst(cell);

		if (!bbm_is_of_cluster(migration) || bbm_migration_is_copy(migration->origin, migration->restored))
			continue;
		appendStringInfo(&names, "%s\"%s\" of table %s, %s", n > 0 ? "; " : "", migration->name, migration->table_name,
						 word(migration->status));
		n++;
	}
	SPI_finish();
	if (n > 0)
		ereport(NOTICE,
				(errmsg_plural("DROP EXTENSION bbm ends %d migration of a distributed table, on all nodes",
							   "DROP EXTENSION bbm ends %d migrations of distributed tables, on all nodes", n, n),
				 errdetail("%s.", names.data)));
}
