/*-------------------------------------------------------------------------
 *
 * truncate.c
 *		A TRUNCATE of a migration's table.
 *
 * NOTES
 *	  The migration continues at its cursor, whatever is inserted into the
 *	  table then.  Only the session that has truncated the table can
 *	  distinguish that from a rewrite, which also changes the table's files.
 *	  So that session records the server's own report of each table that a
 *	  TRUNCATE affects, partitions and tables reached by CASCADE included, and
 *	  adds an event in the same transaction.  That needs the library in that
 *	  session.
 *
 *-------------------------------------------------------------------------
 */
#include "server/truncate.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"

#include "base/bbm.h"
#include "base/next_hook.h"
#include "base/printable.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/tables.h"
#include "engine/event.h"
#include "target/hierarchy.h"
#include "target/relation.h"

static void note_truncate(ObjectAccessType access, Oid class, Oid object, int column, void *arg);

static BbmAccessHook access_hook = {note_truncate};
static ProcessUtility_hook_type previous_utility = NULL;

/* The tables that the current TRUNCATE has affected so far, in its order; NULL: none is running. */
static List **truncated = NULL;
static MemoryContext truncated_context;

static void
note_truncate(ObjectAccessType access, Oid class, Oid object, int column, void *arg)
{
	MemoryContext old;

	if (access_hook.previous)
		access_hook.previous(access, class, object, column, arg);
	if (access != OAT_TRUNCATE || class != RelationRelationId || truncated == NULL)
		return;
	old = MemoryContextSwitchTo(truncated_context);
	*truncated = list_append_unique_oid(*truncated, object);
	MemoryContextSwitchTo(old);
}

/* Reports the table, or those of its partitions and child tables that were truncated without it. */
static void
report(const BbmMigration *migration, List *tables)
{
	bool		whole = list_member_oid(tables, migration->table_oid);
	ListCell   *cell;

	foreach(cell, tables)
	{
		char	   *name;

		if (whole ? lfirst_oid(cell) != migration->table_oid : !bbm_partitions_include(migration->table_oid,
																					   lfirst_oid(cell)))
			continue;
		name = bbm_table_sql_name(lfirst_oid(cell));
		ereport(LOG,
				(errmsg("migration \"%s\": table %s was truncated", bbm_printable(migration->name),
						bbm_printable(name))));
		/* where no event can be written, the log has it */
		if (bbm_catalog()->strange_trigger_name == NULL)
			bbm_report_event(migration->id, migration->name, "truncated", migration->status, migration->owner, name);
	}
}

/*
 * Can the TRUNCATE be recorded?  It is the application's, and its table is locked
 * by now: so it does not wait for whoever has locked our tables, to alter them
 * for example, nor fail where they are not as they were created.
 */
static bool
can_record(void)
{
	static const BbmTable used[] = {BBM_MIGRATIONS, BBM_JOBS, BBM_EVENTS};
	const BbmCatalog *catalog = bbm_catalog_usable();

	for (int i = 0; catalog && i < lengthof(used); i++)
	{
		if (ConditionalLockRelationOid(catalog->tables[used[i]], RowExclusiveLock))
			continue;
		ereport(LOG,
				(errmsg("a TRUNCATE is not recorded: table \"%s\" is locked", bbm_table_name(used[i])),
				 errhint("If it was of a migration's table, and rows were inserted since, restart the migration with bbm_alter.")));
		return false;
	}
	/* what was there before we had the locks may have been altered */
	return bbm_catalog_usable() != NULL;
}

/*
 * The tables are locked until the transaction ends, so no batch on them is in
 * flight, and none begins before the event is visible.  A migration that is
 * started meanwhile starts after the TRUNCATE.
 */
static void
report_all(List *tables)
{
	ListCell   *cell;

	if (tables == NIL || !can_record())
		return;
	SPI_connect();
	foreach(cell, bbm_migrations_started())
		report(lfirst(cell), tables);
	SPI_finish();
}

static void
utility(BBM_UTILITY_PARAMETERS)
{
	/* a trigger may truncate another table meanwhile */
	List	  **outer = truncated;
	MemoryContext outer_context = truncated_context;
	List	   *tables = NIL;

	if (!IsA(pstmt->utilityStmt, TruncateStmt))
	{
		bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
		return;
	}
	truncated = &tables;
	truncated_context = CurrentMemoryContext;
	bbm_access_hook_begin(&access_hook);
	PG_TRY();
	{
		bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
	}
	PG_FINALLY();
	{
		truncated = outer;
		truncated_context = outer_context;
		if (outer == NULL)
			bbm_access_hook_end(&access_hook);
	}
	PG_END_TRY();
	report_all(tables);
}

/* Called once per process, from _PG_init. */
void
bbm_truncate_install(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
