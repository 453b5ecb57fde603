/*-------------------------------------------------------------------------
 *
 * handover.c
 *		The table of migrations is given to another role.
 *
 * NOTES
 *	  Who owns the table may have written a migration in the name of a role that he
 *	  must not act for, or have changed one.  It does not run while the table is
 *	  his; and it must not begin to by itself because somebody else takes the table,
 *	  who may act for that role.  So the table does not change hands while it has
 *	  such a migration that is active or running.  One that is paused is for a
 *	  person to look at, who starts it.
 *
 *	  Asked after the command and before its commit: the command has locked the
 *	  table, so nobody writes it between our look and the commit.  Where the library
 *	  is not preloaded nobody asks; doc/operations.md says what to look for.
 *
 *-------------------------------------------------------------------------
 */
#include "handover.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "guc.h"
#include "printable.h"
#include "spi.h"
#include "txn.h"

/* May the command give a table to another role? */
static bool
changes_owners(Node *statement)
{
	ListCell   *cell;

	if (IsA(statement, ReassignOwnedStmt))
		return true;
	if (!IsA(statement, AlterTableStmt))
		return false;
	foreach(cell, ((AlterTableStmt *) statement)->cmds)
	{
		if (lfirst_node(AlterTableCmd, cell)->subtype == AT_ChangeOwner)
			return true;
	}
	return false;
}

/*
 * Who owns the table of migrations before a command that may change that, if it
 * is somebody who must not act for everybody; else InvalidOid.
 */
Oid
bbm_handover_begin(Node *statement)
{
	const BbmCatalog *catalog;

	if (!changes_owners(statement) || !IsTransactionState())
		return InvalidOid;
	catalog = bbm_catalog_find();
	return catalog && !superuser_arg(catalog->owner) ? catalog->owner : InvalidOid;
}

/* Raises an error if what the role has left in the table would begin to run. */
void
bbm_handover_end(Oid before)
{
	const BbmCatalog *catalog;
	int			level;

	CommandCounterIncrement();
	catalog = bbm_catalog_find();
	if (catalog == NULL || catalog->owner == before)
		return;
	SPI_connect();
	/* what is committed now that the table is locked, whatever the isolation */
	PushActiveSnapshot(GetLatestSnapshot());
	level = NewGUCNestLevel();
	bbm_guc_set("search_path", BBM_SEARCH_PATH, true);
	/* not through the catalog, which asks for more of the tables: they may be given away to mend them */
	(void) bbm_spi_execute(psprintf("SELECT name, owner_oid, owner FROM %s.batched_background_migrations "
									"WHERE status IN (1, 4) ORDER BY id", catalog->schema), true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Oid			owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		char	   *name = SPI_getvalue(tuple, desc, 1);

		if (isnull || bbm_can_set_role(before, owner))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give table \"batched_background_migrations\" to another role while migration \"%s\" is started",
						name ? bbm_printable(name) : ""),
				 errdetail("It would run as role \"%s\", which role \"%s\", that has been able to write it, must not act for.",
						   GetUserNameFromId(owner, true) ? GetUserNameFromId(owner, true) : "?",
						   GetUserNameFromId(before, true) ? GetUserNameFromId(before, true) : "?"),
				 errhint("Pause or drop it first, and look at what it does before you start it again.")));
	}
	AtEOXact_GUC(false, level);
	PopActiveSnapshot();
	SPI_finish();
}
