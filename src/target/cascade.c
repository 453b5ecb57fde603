/*-------------------------------------------------------------------------
 *
 * cascade.c
 *		What the server makes of a statement: foreign keys and generated columns.
 *
 *-------------------------------------------------------------------------
 */
#include "target/cascade.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/pg_constraint.h"
#include "commands/trigger.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

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
		/* its name may be cached: the check of the key has seen these tables, too */
		AcceptInvalidationMessages();
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
	BBM_POINT("cascades_read");
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

/* ----------------------------------------------------------------
 * Which columns change
 * ----------------------------------------------------------------
 */

/* What a statement, with its consequences, does to a table. */
typedef struct Change
{
	Oid			table;
	bool		deletes;		/* rows */
	Bitmapset  *columns;		/* changed in rows that stay; offset by FirstLowInvalidHeapAttributeNumber */
	bool		todo;			/* its consequences have not been followed */
} Change;

/* Adds the relation's generated columns that are computed from these columns. */
static Bitmapset *
add_generated(Relation rel, Bitmapset *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		more = true;

	/* repeated, as one generated column may depend on another */
	while (more)
	{
		more = false;
		for (AttrNumber attnum = 1; attnum <= desc->natts; attnum++)
		{
			Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
			Bitmapset  *used = NULL;
			int			member = attnum - FirstLowInvalidHeapAttributeNumber;

			if (attribute->attisdropped || attribute->attgenerated == '\0' || bms_is_member(member, columns))
				continue;
			pull_varattnos(build_column_default(rel, attnum), 1, &used);
			if (!bms_overlap(used, columns))
				continue;
			columns = bms_add_member(columns, member);
			more = true;
		}
	}
	return columns;
}

/* Maps columns of one relation to those of the same names in another. */
static Bitmapset *
in_other(const Bitmapset *columns, Oid from, Oid to)
{
	Bitmapset  *result = NULL;
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
	{
		char	   *name = get_attname(from, column + FirstLowInvalidHeapAttributeNumber, true);
		AttrNumber	there = name ? get_attnum(to, name) : InvalidAttrNumber;

		if (there != InvalidAttrNumber)
			result = bms_add_member(result, there - FirstLowInvalidHeapAttributeNumber);
	}
	return result;
}

static Change *
change_of(List **changes, Oid table)
{
	Change	   *change;
	ListCell   *cell;

	foreach(cell, *changes)
	{
		change = lfirst(cell);
		if (change->table == table)
			return change;
	}
	change = palloc0(sizeof(Change));
	change->table = table;
	*changes = lappend(*changes, change);
	return change;
}

/* Adds a change of a table, which is one of its partitions or child tables, and of the tables it is a partition of. */
static void
add_change(List **changes, Oid table, bool deletes, Bitmapset *columns)
{
	ListCell   *cell;

	foreach(cell, bbm_partitions_related(table))
	{
		Change	   *change = change_of(changes, lfirst_oid(cell));
		Bitmapset  *here = in_other(columns, table, change->table);

		if ((change->deletes || !deletes) && bms_is_subset(here, change->columns))
			continue;
		change->deletes |= deletes;
		change->columns = bms_add_members(change->columns, here);
		change->todo = true;
	}
}

/* Adds what a foreign key does to rows that refer to those that the change is about. */
static void
follow_key(List **changes, const Change *change, HeapTuple constraint)
{
	Form_pg_constraint form = (Form_pg_constraint) GETSTRUCT(constraint);
	AttrNumber	columns[INDEX_MAX_KEYS];
	AttrNumber	referred[INDEX_MAX_KEYS];
	AttrNumber	set[INDEX_MAX_KEYS];
	int			n;
	int			nset;
	Bitmapset  *cascaded = NULL;
	Bitmapset  *all = NULL;
	Bitmapset  *on_delete = NULL;

	DeconstructFkConstraintRow(constraint, &n, columns, referred, NULL, NULL, NULL, &nset, set);
	for (int i = 0; i < n; i++)
	{
		int			member = columns[i] - FirstLowInvalidHeapAttributeNumber;

		all = bms_add_member(all, member);
		if (bms_is_member(referred[i] - FirstLowInvalidHeapAttributeNumber, change->columns))
			cascaded = bms_add_member(cascaded, member);
	}
	for (int i = 0; i < nset; i++)
		on_delete = bms_add_member(on_delete, set[i] - FirstLowInvalidHeapAttributeNumber);
	if (cascaded && form->confupdtype == FKCONSTR_ACTION_CASCADE)
		add_change(changes, form->conrelid, false, cascaded);
	else if (cascaded &&
			 (form->confupdtype == FKCONSTR_ACTION_SETNULL || form->confupdtype == FKCONSTR_ACTION_SETDEFAULT))
		add_change(changes, form->conrelid, false, all);
	if (change->deletes && form->confdeltype == FKCONSTR_ACTION_CASCADE)
		add_change(changes, form->conrelid, true, NULL);
	else if (change->deletes &&
			 (form->confdeltype == FKCONSTR_ACTION_SETNULL || form->confdeltype == FKCONSTR_ACTION_SETDEFAULT))
		add_change(changes, form->conrelid, false, on_delete ? on_delete : all);
}

/* Adds what follows from a change of the table, which is open and locked. */
static void
follow(List **changes, Change *change, Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	add_change(changes, change->table, false, add_generated(rel, bms_copy(change->columns)));
	/* these triggers are on the table that is referred to */
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		HeapTuple	constraint;

		if (RI_FKey_trigger_type(triggers->triggers[i].tgfoid) != RI_TRIGGER_PK)
			continue;
		constraint = SearchSysCache1(CONSTROID, ObjectIdGetDatum(triggers->triggers[i].tgconstraint));
		if (!HeapTupleIsValid(constraint))
			continue;
		follow_key(changes, change, constraint);
		ReleaseSysCache(constraint);
	}
}

/*
 * The columns that change in rows of the table that a statement does not
 * delete: those that it assigns, and those that the server then computes, or
 * changes by foreign keys, also by way of other tables, and also where only a
 * partition or child table has them.  A table that another session adds after
 * this check, or a foreign key, is not seen.
 */
Bitmapset *
bbm_cascaded_columns(Oid relid, bool deletes, Bitmapset *assigned)
{
	List	   *tables = bbm_partitions_all(relid);
	List	   *changes = NIL;
	Bitmapset  *columns = NULL;
	ListCell   *cell;
	bool		more = true;

	add_change(&changes, relid, deletes, assigned);
	while (more)
	{
		more = false;
		/* more may be added to its end meanwhile */
		foreach(cell, changes)
		{
			Change	   *change = lfirst(cell);
			Relation	rel = change->todo ? try_relation_open(change->table, AccessShareLock) : NULL;

			more |= change->todo;
			change->todo = false;
			if (rel == NULL)
				continue;
			follow(&changes, change, rel);
			/* the check releases its lock: the caller may want a stronger one later */
			relation_close(rel, AccessShareLock);
		}
	}
	BBM_POINT("changes_followed");
	/* what only a child table changes is changed by the statement on its parent */
	foreach(cell, changes)
	{
		const Change *change = lfirst(cell);

		if (list_member_oid(tables, change->table))
			columns = bms_add_members(columns, in_other(change->columns, change->table, relid));
	}
	list_free_deep(changes);
	return columns;
}
