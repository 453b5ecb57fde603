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
#include "server/handover.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/bbm.h"
#include "base/compat.h"
#include "base/printable.h"
#include "catalog/extension.h"
#include "catalog/tables.h"

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

/* The number of a column that has this type; what is read by a wrong one would tell nothing. */
static AttrNumber
column_of(Relation rel, const char *name, Oid type)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0 || get_atttype(RelationGetRelid(rel), attnum) != type)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give table \"%s\" to another role", RelationGetRelationName(rel)),
				 errdetail("Column \"%s\" is missing, or is not of type %s, so nobody can tell whose migrations it has.", name,
						   format_type_be(type)),
				 errhint("Make it what it was first.")));
	return attnum;
}

static const char *
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return name ? name : "?";
}

/*
 * Raises an error if what the role has left in the table would begin to run.  The
 * table is read by hand: to plan a statement on it may evaluate what that role has
 * put there, with the rights of whoever takes it.
 */
void
bbm_handover_end(Oid before)
{
	const BbmCatalog *catalog;
	Relation	rel;
	Snapshot	snapshot;
	SysScanDesc scan;
	HeapTuple	tuple;
	AttrNumber	name;
	AttrNumber	status;
	AttrNumber	owner;

	CommandCounterIncrement();
	catalog = bbm_catalog_find();
	if (catalog == NULL || catalog->owner == before)
		return;
	rel = table_open(catalog->migrations, AccessShareLock);
	name = column_of(rel, "name", TEXTOID);
	status = column_of(rel, "status", INT2OID);
	owner = column_of(rel, "owner_oid", OIDOID);
	/* what is committed now that the table is locked, whatever the isolation */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int16		code = DatumGetInt16(heap_getattr(tuple, status, RelationGetDescr(rel), &isnull));
		Oid			role;
		Datum		datum;

		if (isnull || (code != BBM_ACTIVE && code != BBM_RUNNING))
			continue;
		role = DatumGetObjectId(heap_getattr(tuple, owner, RelationGetDescr(rel), &isnull));
		if (isnull || bbm_can_set_role(before, role))
			continue;
		datum = heap_getattr(tuple, name, RelationGetDescr(rel), &isnull);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give table \"%s\" to another role while migration \"%s\" is started",
						RelationGetRelationName(rel), isnull ? "" : bbm_printable(TextDatumGetCString(datum))),
				 errdetail("It would run as role \"%s\", which role \"%s\", that has been able to write it, must not act for.",
						   role_name(role), role_name(before)),
				 errhint("Pause or drop it first, and look at what it does before you start it again.")));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}
