/*-------------------------------------------------------------------------
 *
 * cascade.c
 *		What foreign keys make of a DELETE.
 *
 *-------------------------------------------------------------------------
 */
#include "target/cascade.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/point.h"
#include "target/hierarchy.h"
#include "target/relation.h"

/* A foreign key that refers to rows that are deleted. */
typedef struct Cascade
{
	Oid			constraint;
	Oid			table;			/* the referencing table */
	char		action;			/* confdeltype */
	char	   *name;
	char	   *table_name;
} Cascade;

static int
by_name(const ListCell *a, const ListCell *b)
{
	const Cascade *x = lfirst(a);
	const Cascade *y = lfirst(b);
	int			order = strcmp(x->table_name, y->table_name);

	return order != 0 ? order : strcmp(x->name, y->name);
}

/*
 * The foreign keys that refer to any of these tables, in the order of their
 * names.  A constraint that is derived from a parent constraint is left out:
 * the parent constraint refers to a table in the list, too.
 */
static List *
referring(List *tables)
{
	Relation	rel = table_open(ConstraintRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	/* there is no index on confrelid */
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		Form_pg_constraint row = (Form_pg_constraint) GETSTRUCT(tuple);
		Cascade    *cascade;

		if (row->contype != CONSTRAINT_FOREIGN || OidIsValid(row->conparentid) ||
			!list_member_oid(tables, row->confrelid))
			continue;
		BBM_POINT("cascade-found");
		cascade = palloc(sizeof(Cascade));
		cascade->constraint = row->oid;
		cascade->table = row->conrelid;
		cascade->action = row->confdeltype;
		cascade->name = pstrdup(NameStr(row->conname));
		cascade->table_name = bbm_table_sql_name(row->conrelid);
		/* the table was dropped at this moment */
		if (cascade->table_name == NULL)
			continue;
		result = lappend(result, cascade);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(result, by_name);
	return result;
}

static void
append_sentence(StringInfo text, const Cascade *cascade)
{
	const char *format = NULL;

	switch (cascade->action)
	{
		case FKCONSTR_ACTION_CASCADE:
			format = _("constraint %s of table %s: ON DELETE CASCADE deletes the rows that refer to a deleted one");
			break;
		case FKCONSTR_ACTION_SETNULL:
			format = _("constraint %s of table %s: ON DELETE SET NULL changes the rows that refer to a deleted one");
			break;
		case FKCONSTR_ACTION_SETDEFAULT:
			format = _("constraint %s of table %s: ON DELETE SET DEFAULT changes the rows that refer to a deleted one");
			break;
		case FKCONSTR_ACTION_RESTRICT:
			format = _("constraint %s of table %s: ON DELETE RESTRICT refuses to delete a row that is referred to");
			break;
		default:
			format = _("constraint %s of table %s: ON DELETE NO ACTION refuses to delete a row that is still referred to");
			break;
	}
	if (text->len > 0)
		appendStringInfoChar(text, '\n');
	appendStringInfo(text, format, quote_identifier(cascade->name), cascade->table_name);
}

/*
 * Describes what foreign keys do when rows of the table are deleted, one line
 * for each, including those reached through a CASCADE; NULL when there are
 * none.  Needs a transaction.  It misses a constraint that another session
 * adds meanwhile: the text is to be read, not relied on.
 */
char *
bbm_statement_cascades(Oid relid)
{
	/* whose foreign keys concern the same rows */
	List	   *deleted = bbm_partitions_related(relid);
	List	   *todo = list_copy(deleted);
	List	   *reported = NIL;
	StringInfoData text;

	initStringInfo(&text);
	while (todo != NIL)
	{
		List	   *found = referring(todo);
		ListCell   *cell;

		todo = NIL;
		foreach(cell, found)
		{
			Cascade    *cascade = lfirst(cell);

			if (list_member_oid(reported, cascade->constraint))
				continue;
			reported = lappend_oid(reported, cascade->constraint);
			append_sentence(&text, cascade);
			/* a cycle ends where it reaches a table that is in the list already */
			if (cascade->action == FKCONSTR_ACTION_CASCADE && !list_member_oid(deleted, cascade->table))
			{
				deleted = list_concat_unique_oid(deleted, bbm_partitions_related(cascade->table));
				todo = list_concat_unique_oid(todo, bbm_partitions_related(cascade->table));
			}
		}
	}
	return text.len > 0 ? text.data : NULL;
}
