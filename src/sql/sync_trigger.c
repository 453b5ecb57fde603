/*-------------------------------------------------------------------------
 *
 * sync_trigger.c
 *		bbm_sync_trigger.
 *
 * NOTES
 *	  The trigger does to a row that is written what a migration does to the
 *	  rows that are already there: it evaluates the same texts, over a table of
 *	  one row that has the target's name.  In these texts a name means a
 *	  column, whatever variables PL/pgSQL has; what would mean something else
 *	  in a trigger than in an UPDATE is refused.  All expressions are evaluated
 *	  before the first is assigned.
 *
 *	  Everything is done as the caller, with the caller's rights.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/spi.h"
#include "base/standby.h"
#include "target/hierarchy.h"
#include "target/relation.h"
#include "target/statement.h"

PG_FUNCTION_INFO_V1(bbm_sync_trigger);

/* How the functions begin, by which we recognize our own. */
#define BODY_MARK "\n-- made by bbm_sync_trigger, which also drops it\n"

/* An identifier that is never taken for a keyword of SQL or of PL/pgSQL. */
static char *
quoted(const char *name)
{
	StringInfoData result;

	initStringInfo(&result);
	appendStringInfoChar(&result, '"');
	for (; *name; name++)
	{
		if (*name == '"')
			appendStringInfoChar(&result, '"');
		appendStringInfoChar(&result, *name);
	}
	appendStringInfoChar(&result, '"');
	return result.data;
}

static char *
joined_columns(List *assignments)
{
	StringInfoData result;
	ListCell   *cell;

	initStringInfo(&result);
	foreach(cell, assignments)
		appendStringInfo(&result, "%s%s", result.len > 0 ? "_" : "", ((BbmAssignment *) lfirst(cell))->column);
	return result.data;
}

/*
 * Makes a name from the columns.  A name that has to be truncated gets a hash of
 * the whole name; "other": as does one that another trigger has already.
 */
static char *
trigger_name(List *assignments, bool other)
{
	char	   *columns = joined_columns(assignments);
	char	   *whole = columns;
	char	   *hash = NULL;
	ListCell   *cell;

	/* no name of a column contains this */
	if (other)
		foreach(cell, assignments)
			whole = psprintf("%s\n%s", whole, quoted(((BbmAssignment *) lfirst(cell))->column));
	if (other || strlen(columns) + strlen("bbm_sync_") >= NAMEDATALEN)
		hash = psprintf("%08x", hash_bytes((const unsigned char *) whole, strlen(whole)));
	return makeObjectName("bbm_sync", columns, hash);
}

/* A name for the function that is not used in its schema. */
static char *
function_name(Oid relid, List *assignments)
{
	Oid			schema = get_rel_namespace(relid);
	oidvector  *none = buildoidvector(NULL, 0);
	char	   *columns = joined_columns(assignments);
	char	   *name = makeObjectName(get_rel_name(relid), columns, "bbm_sync");
	int			taken = 0;

	while (SearchSysCacheExists3(PROCNAMEARGSNSP, CStringGetDatum(name), PointerGetDatum(none),
								 ObjectIdGetDatum(schema)))
		name = makeObjectName(get_rel_name(relid), columns, psprintf("bbm_sync%d", ++taken));
	return name;
}

/* The search_path as it resolves for the caller now, as SET takes it. */
static char *
pinned_search_path(void)
{
	StringInfoData path;
	ListCell   *cell;

	initStringInfo(&path);
	foreach(cell, fetch_search_path(false))
	{
		if (!isAnyTempNamespace(lfirst_oid(cell)))
			appendStringInfo(&path, "%s, ", quote_literal_cstr(get_namespace_name(lfirst_oid(cell))));
	}
	/* because it is named last, a temporary table shadows nothing */
	appendStringInfoString(&path, "'pg_temp'");
	return path.data;
}

/* The end of the function's body, by which we also recognize which columns a trigger fills. */
static char *
body_end(List *assignments, bool conditional)
{
	StringInfoData end;
	ListCell   *cell;

	initStringInfo(&end);
	foreach(cell, assignments)
		appendStringInfo(&end, "%sNEW.%s := bbm_row.f%d;\n", conditional ? "        " : "    ",
						 quoted(((BbmAssignment *) lfirst(cell))->column), foreach_current_index(cell) + 1);
	if (conditional)
		appendStringInfoString(&end, "    END IF;\n");
	appendStringInfoString(&end, "    RETURN NEW;\nEND\n");
	return end.data;
}

static char *
function_body(Oid relid, List *assignments, const char *condition)
{
	char	   *row = psprintf("FROM (SELECT NEW.*) AS %s", quoted(get_rel_name(relid)));
	const char *indent = condition ? "        " : "    ";
	StringInfoData body;
	ListCell   *cell;

	initStringInfo(&body);
	appendStringInfoString(&body, BODY_MARK "#variable_conflict use_column\nDECLARE\n    bbm_row record;\nBEGIN\n");
	/* each text ends its line, as it may end in a comment */
	if (condition)
		appendStringInfo(&body, "    IF (SELECT (%s\n        ) %s) THEN\n", condition, row);
	appendStringInfo(&body, "%sbbm_row := (SELECT ROW(", indent);
	foreach(cell, assignments)
		appendStringInfo(&body, "%s(%s\n%s)", foreach_current_index(cell) > 0 ? ", " : "",
						 ((BbmAssignment *) lfirst(cell))->expression, indent);
	appendStringInfo(&body, ") %s);\n%s", row, body_end(assignments, condition != NULL));
	return body.data;
}

/* Checks for what an UPDATE may read and a BEFORE trigger does not have. */
static void
check_referenced(Oid relid, Query *update)
{
	Bitmapset  *columns = bbm_statement_referenced(update);
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
	{
		AttrNumber	attnum = column + FirstLowInvalidHeapAttributeNumber;

		if (attnum == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a trigger cannot use the whole row of \"%s\"", get_rel_name(relid)),
					 errdetail("Inside of it the row has another type."),
					 errhint("Name the columns.")));
		if (attnum < 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a trigger cannot use system column \"%s\"", get_attname(relid, attnum, false)),
					 errdetail("A row that is not written yet has none."),
					 errhint("Use columns of the table.")));
		if (get_attgenerated(relid, attnum))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a trigger cannot use generated column \"%s\"", get_attname(relid, attnum, false)),
					 errdetail("It is computed after the trigger has fired."),
					 errhint("Write the expression that it is generated from.")));
	}
}

static void
check_partition_key(Oid relid, const Query *update)
{
	const char *column = bbm_statement_partition_column(relid, bbm_statement_assigned(update));

	if (column)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a trigger cannot change column \"%s\" of the partition key", column),
				 errdetail("It fires when the partition of the row has been chosen."),
				 errhint("Leave the column out of \"set\".")));
}

/* Reports what the trigger does not cover. */
static void
report_limits(Oid relid, const char *name)
{
	Relation	rel = relation_open(relid, NoLock);
	TriggerDesc *triggers = rel->trigdesc;

	if (rel->rd_rel->relkind == RELKIND_RELATION && find_inheritance_children(relid, NoLock) != NIL)
		ereport(WARNING,
				(errmsg("the child tables of \"%s\" have no such trigger", RelationGetRelationName(rel)),
				 errdetail("A trigger of a table fires for rows of that table alone."),
				 errhint("Create it for each of them.")));
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *other = &triggers->triggers[i];

		if (TRIGGER_FOR_BEFORE(other->tgtype) && TRIGGER_FOR_ROW(other->tgtype) &&
			(TRIGGER_FOR_INSERT(other->tgtype) || TRIGGER_FOR_UPDATE(other->tgtype)) &&
			strcmp(other->tgname, name) > 0)
			ereport(NOTICE,
					(errmsg("trigger \"%s\" fires after \"%s\"", other->tgname, name),
					 errdetail("Triggers fire in the order of their names; what that one changes, this one does not see."),
					 errhint("If it changes what \"set\" reads, rename it.")));
	}
	relation_close(rel, NoLock);
}

/* A role that may not create a trigger, or not drop one, must not lock the table either. */
static void
check_may_create(Oid relid, const char *name)
{
	if (pg_class_aclcheck(relid, GetUserId(), ACL_TRIGGER) != ACLCHECK_OK && get_rel_name(relid))
		aclcheck_error(ACLCHECK_NO_PRIV, get_relkind_objtype(get_rel_relkind(relid)), get_rel_name(relid));
}

static void
check_may_drop(Oid relid, const char *name)
{
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()) && get_rel_name(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)), get_rel_name(relid));
}

static bool
ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/* Is it a function of ours that fills these columns? */
static bool
is_function_of(Oid function, List *assignments)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Datum		source;
	bool		isnull;
	char	   *body;

	if (!HeapTupleIsValid(tuple))
		return false;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	body = isnull ? "" : TextDatumGetCString(source);
	ReleaseSysCache(tuple);
	return strncmp(body, BODY_MARK, strlen(BODY_MARK)) == 0 &&
		(ends_with(body, body_end(assignments, false)) || ends_with(body, body_end(assignments, true)));
}

/*
 * The name of our trigger that fills these columns, which may have been renamed,
 * and its function; NULL when there is none.
 */
static char *
find_trigger(Oid relid, List *assignments, Oid *function)
{
	Relation	rel = relation_open(relid, NoLock);
	TriggerDesc *triggers = rel->trigdesc;
	char	   *name = NULL;

	*function = InvalidOid;
	for (int i = 0; triggers && i < triggers->numtriggers && name == NULL; i++)
	{
		if (!is_function_of(triggers->triggers[i].tgfoid, assignments))
			continue;
		name = pstrdup(triggers->triggers[i].tgname);
		*function = triggers->triggers[i].tgfoid;
	}
	relation_close(rel, NoLock);
	return name;
}

/* Has the table a trigger of that name, or a partition, which would get one as well? */
static bool
is_taken(Oid relid, const char *name)
{
	ListCell   *cell;

	if (get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		return OidIsValid(get_trigger_oid(relid, name, true));
	foreach(cell, bbm_partitions_all(relid))
	{
		if (OidIsValid(get_trigger_oid(lfirst_oid(cell), name, true)))
			return true;
	}
	return false;
}

/* A name for a new trigger. */
static char *
free_name(Oid relid, List *assignments)
{
	char	   *name = NULL;

	for (int other = 0; other < 2; other++)
	{
		name = trigger_name(assignments, other);
		if (!is_taken(relid, name))
			return name;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("trigger \"%s\" of table \"%s\" already exists", name, get_rel_name(relid)),
			 errdetail("There or in a partition, and it is not one of bbm_sync_trigger for these columns."),
			 errhint("Rename it.")));
	return NULL;
}

/*
 * One transaction, the caller's.  We take the lock that CREATE TRIGGER takes
 * from the start: it waits for everybody who has written to the table, so that
 * each row is either committed by then, or written with the trigger; and a
 * second call waits here, and finds the first one's trigger.
 */
static char *
create_trigger(Oid relid, List *assignments, const BbmStatementParts *parts)
{
	char	   *table = bbm_table_sql_name(relid);
	Oid			oid;
	char	   *name = find_trigger(relid, assignments, &oid);
	char	   *function;
	Query	   *update;

	if (name)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("trigger \"%s\" of table \"%s\" already exists", name, get_rel_name(relid)),
				 errdetail("It fills these columns; one trigger does that for all rows."),
				 errhint("Drop it first, with drop => true; if another migration needs it, make one \"set\" of both, with CASE.")));
	name = free_name(relid, assignments);
	update = bbm_statement_analyse(relid, parts);
	check_referenced(relid, update);
	check_partition_key(relid, update);
	report_limits(relid, name);

	function = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
										  function_name(relid, assignments));
	(void) bbm_spi_execute_ours(psprintf("CREATE FUNCTION %s() RETURNS pg_catalog.trigger LANGUAGE plpgsql SET search_path TO %s AS %s",
									function, pinned_search_path(),
									quote_literal_cstr(function_body(relid, assignments, parts->condition))), false);
	(void) bbm_spi_execute_ours(psprintf("CREATE TRIGGER %s BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()",
									quote_identifier(name), table, function), false);
	return name;
}

/* With the lock that DROP TRIGGER takes: if another session drops the trigger first, it does not exist any more. */
static char *
drop_trigger(Oid relid, List *assignments)
{
	Oid			function;
	char	   *name = find_trigger(relid, assignments, &function);
	char	   *schema = get_namespace_name(get_func_namespace(function));
	char	   *name_now = get_func_name(function);
	char	   *function_sql;

	/* there is none, or it has just been dropped */
	if (schema == NULL || name_now == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no trigger \"%s\" of bbm_sync_trigger", get_rel_name(relid),
						trigger_name(assignments, false)),
				 errdetail("Its name is that of the columns it fills, in the order of \"set\"."),
				 errhint("Give the same \"set\" as when it was created.")));
	function_sql = quote_qualified_identifier(schema, name_now);
	(void) bbm_spi_execute_ours(psprintf("DROP TRIGGER %s ON %s", quote_identifier(name), bbm_table_sql_name(relid)), false);
	(void) bbm_spi_execute_ours(psprintf("DROP FUNCTION %s()", function_sql), false);
	return name;
}

/* Only what stores rows itself, or whose partitions do, has triggers that may change a row. */
static void
check_kind(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot have such a trigger", get_rel_name(relid)),
				 errdetail("It is %s.", kind == RELKIND_VIEW ? "a view" : kind == RELKIND_MATVIEW ? "a materialized view" :
						   kind == RELKIND_FOREIGN_TABLE ? "a foreign table" : "not a table"),
				 errhint("Name a table, partitioned or not.")));
}

/*
 * bbm_sync_trigger(table_name text, set text, "filter" text, drop boolean) → name:
 * creates, or drops, the trigger that applies the set to each row that is written.
 */
Datum
bbm_sync_trigger(PG_FUNCTION_ARGS)
{
	static const char *const required[] = {"table_name", "set", NULL, "drop"};
	BbmStatementParts parts = {.verb = BBM_UPDATE};
	Name		result = palloc0(sizeof(NameData));
	Oid			relid;
	List	   *assignments;

	bbm_must_be_writable("bbm_sync_trigger()");
	for (int i = 0; i < lengthof(required); i++)
	{
		if (required[i] && PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", required[i]),
					 errdetail("It says which trigger is meant."),
					 i < 2 ? errhint("Give a value; it has no default.") : errhint("Leave it out for its default.")));
	}
	parts.set = text_to_cstring(PG_GETARG_TEXT_PP(1));
	parts.condition = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));

	relid = PG_GETARG_BOOL(3) ?
		bbm_table_by_name(text_to_cstring(PG_GETARG_TEXT_PP(0)), AccessExclusiveLock, check_may_drop) :
		bbm_table_by_name(text_to_cstring(PG_GETARG_TEXT_PP(0)), ShareRowExclusiveLock, check_may_create);
	check_kind(relid);
	assignments = bbm_statement_assignments(parts.set);
	SPI_connect();
	namestrcpy(result, PG_GETARG_BOOL(3) ? drop_trigger(relid, assignments) :
			   create_trigger(relid, assignments, &parts));
	SPI_finish();
	PG_RETURN_NAME(result);
}
