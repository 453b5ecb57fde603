/*-------------------------------------------------------------------------
 *
 * handover.c
 *		Giving the table of migrations to another role.
 *
 * NOTES
 *	  The owner of the table may have written a migration in the name of a role
 *	  that it must not act for, or have changed one.  Such a migration does not
 *	  run while that owner has the table; and it must not start to run only
 *	  because another role, which may act for that role, takes the table.  So
 *	  the table's owner cannot be changed while it has such a migration that is
 *	  active or running.  A paused one has to be reviewed by whoever starts it.
 *
 *	  The check runs after the command and before its commit: the command has
 *	  locked the table, so nobody writes it between our check and the commit.
 *	  Without preloading there is no check; doc/operations.md says what to
 *	  check instead.
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

#include "base/compat.h"
#include "base/printable.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/tables.h"

/* Can the command give a table to another role? */
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
 * Returns the owner of the table of migrations before a command that may
 * change it, if the owner is no superuser; else InvalidOid.
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

/*
 * Returns the number of a column that has this type; reading a column of
 * another type would be meaningless.
 */
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

/*
 * Raises an error if what the previous owner has left in the table would start
 * to run.  The table is scanned directly: planning a statement on it may
 * evaluate expressions that the previous owner has put there, with the rights
 * of the new one.
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
	/* what is committed now that the table is locked, whatever the isolation level */
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
		if (isnull || member_can_set_role(before, role))
			continue;
		datum = heap_getattr(tuple, name, RelationGetDescr(rel), &isnull);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give table \"%s\" to another role while migration \"%s\" is started",
						RelationGetRelationName(rel), isnull ? "" : bbm_printable(TextDatumGetCString(datum))),
				 errdetail("It would run as role \"%s\", which role \"%s\", that has been able to write it, must not act for.",
						   bbm_role_name(role), bbm_role_name(before)),
				 errhint("Pause or drop it first, and check what it does before you start it again.")));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}
