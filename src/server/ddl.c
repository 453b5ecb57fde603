/*-------------------------------------------------------------------------
 *
 * ddl.c
 *		Commands that need a database without our workers.
 *
 * NOTES
 *	  Our workers have to exit before the server checks who is connected, or
 *	  before it locks our tables, and at that point the server has not yet
 *	  decided whether the command may run at all.  So what it is going to check
 *	  is checked here first, in the same way: a user who may not run a command
 *	  must not disturb anybody with it.  Nothing is locked or raised here; that
 *	  is left to the server.  If something changes between our check and the
 *	  server's, its check fails, and the workers are started again.
 *
 *-------------------------------------------------------------------------
 */
#include "server/ddl.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_tablespace_d.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "base/compat.h"

/* What CREATE DATABASE copies by default. */
#define DEFAULT_TEMPLATE "template1"

typedef struct Database
{
	Oid			oid;			/* InvalidOid when there is none */
	bool		is_template;
	Oid			tablespace;
} Database;

/* Reads a database as it is committed now. */
static Database
find_database(const char *name)
{
	Database	database = {.oid = name ? get_database_oid(name, true) : InvalidOid};
	HeapTuple	tuple;

	if (!OidIsValid(database.oid))
		return database;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database.oid));
	if (!HeapTupleIsValid(tuple))
	{
		database.oid = InvalidOid;
		return database;
	}
	database.is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	database.tablespace = ((Form_pg_database) GETSTRUCT(tuple))->dattablespace;
	ReleaseSysCache(tuple);
	return database;
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = may || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

/* Does the database exist, is it not the current one, and does the user own it? */
static bool
is_mine_elsewhere(const Database *database)
{
	return OidIsValid(database->oid) && database->oid != MyDatabaseId &&
		object_ownercheck(DatabaseRelationId, database->oid, GetUserId());
}

static Oid
dropped(const DropdbStmt *statement, bool top_level)
{
	Database	database = find_database(statement->dbname);

	return is_mine_elsewhere(&database) && !database.is_template && !IsInTransactionBlock(top_level) ?
		database.oid : InvalidOid;
}

static Oid
renamed(const RenameStmt *statement)
{
	Database	database = {InvalidOid};

	if (statement->renameType == OBJECT_DATABASE)
		database = find_database(statement->subname);
	return is_mine_elsewhere(&database) && may_create_databases() &&
		!OidIsValid(get_database_oid(statement->newname, true)) ? database.oid : InvalidOid;
}

static Oid
moved(const AlterDatabaseStmt *statement, bool top_level)
{
	Database	database;
	DefElem    *option = list_length(statement->options) == 1 ? linitial_node(DefElem, statement->options) : NULL;
	Oid			tablespace;

	if (option == NULL || strcmp(option->defname, "tablespace") != 0)
		return InvalidOid;
	database = find_database(statement->dbname);
	if (!is_mine_elsewhere(&database))
		return InvalidOid;
	tablespace = get_tablespace_oid(defGetString(option), true);
	if (!OidIsValid(tablespace) || tablespace == GLOBALTABLESPACE_OID || tablespace == database.tablespace ||
		object_aclcheck(TableSpaceRelationId, tablespace, GetUserId(), ACL_CREATE) != ACLCHECK_OK ||
		IsInTransactionBlock(top_level))
		return InvalidOid;
	return database.oid;
}

static Oid
copied(const CreatedbStmt *statement, bool top_level)
{
	Database	database;
	const char *name = DEFAULT_TEMPLATE;
	ListCell   *cell;

	if (!may_create_databases())
		return InvalidOid;
	foreach(cell, statement->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			name = defGetString(option);
	}
	database = find_database(name);
	if (!OidIsValid(database.oid) || OidIsValid(get_database_oid(statement->dbname, true)) ||
		(!database.is_template && !object_ownercheck(DatabaseRelationId, database.oid, GetUserId())) ||
		IsInTransactionBlock(top_level))
		return InvalidOid;
	return database.oid;
}

/* DROP EXTENSION drops all that are named, or none. */
static bool
drops_our_extension(const DropStmt *statement)
{
	bool		ours = false;
	ListCell   *cell;

	if (statement->removeType != OBJECT_EXTENSION)
		return false;
	foreach(cell, statement->objects)
	{
		const char *name = strVal(lfirst(cell));
		Oid			extension = get_extension_oid(name, true);

		if (!OidIsValid(extension) && statement->missing_ok)
			continue;
		if (!OidIsValid(extension) || !object_ownercheck(ExtensionRelationId, extension, GetUserId()))
			return false;
		ours = ours || strcmp(name, "bbm") == 0;
	}
	return ours;
}

/*
 * Returns the database that a command needs for itself, if the server is going
 * to let this user run it here and now; else InvalidOid.  Called in a
 * transaction.
 */
Oid
bbm_ddl_database_needed(Node *statement, bool top_level)
{
	if (!IsTransactionState() || XactReadOnly || IsInParallelMode())
		return InvalidOid;
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return dropped((DropdbStmt *) statement, top_level);
		case T_RenameStmt:
			return renamed((RenameStmt *) statement);
		case T_AlterDatabaseStmt:
			return moved((AlterDatabaseStmt *) statement, top_level);
		case T_CreatedbStmt:
			return copied((CreatedbStmt *) statement, top_level);
		case T_DropStmt:
			return drops_our_extension((DropStmt *) statement) ? MyDatabaseId : InvalidOid;
		default:
			return InvalidOid;
	}
}
