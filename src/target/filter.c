/*-------------------------------------------------------------------------
 *
 * filter.c
 *		Does a row that a statement of our composing has done still meet its
 *		filter?
 *
 * The values that the assignments are known to leave are substituted for the
 * columns in the filter.  If that makes the filter false whatever the row's
 * other columns contain, no finished row meets it.  Where this cannot be
 * decided, the answer is that a finished row may meet it.
 *
 *-------------------------------------------------------------------------
 */
#include "target/filter.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "target/hierarchy.h"
#include "target/nulls.h"
#include "target/statement.h"

/* Is it a built-in operator that never returns null for arguments that are not null? */
static bool
keeps_not_null(const OpExpr *expression)
{
	static const char *const known[] = {"+", "-", "*", "/", "%", "||", "=", "<>", "<", ">", "<=", ">="};
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(expression->opno));
	bool		keeps = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	for (int i = 0; i < lengthof(known); i++)
		keeps |= strcmp(NameStr(((Form_pg_operator) GETSTRUCT(tuple))->oprname), known[i]) == 0;
	keeps &= ((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace == PG_CATALOG_NAMESPACE &&
		func_strict(((Form_pg_operator) GETSTRUCT(tuple))->oprcode);
	ReleaseSysCache(tuple);
	return keeps;
}

static bool never_null(Node *expression, Oid relid, Index table);

static bool
none_null(List *expressions, Oid relid, Index table)
{
	ListCell   *cell;

	foreach(cell, expressions)
	{
		if (!never_null(lfirst(cell), relid, table))
			return false;
	}
	return true;
}

static bool
any_never_null(List *expressions, Oid relid, Index table)
{
	ListCell   *cell;

	foreach(cell, expressions)
	{
		if (never_null(lfirst(cell), relid, table))
			return true;
	}
	return false;
}

/* Is the column never null in the table and its partitions or child tables, by their own constraints? */
static bool
is_not_null(Oid relid, AttrNumber attnum)
{
	char	   *name = get_attname(relid, attnum, false);
	ListCell   *cell;

	/* a partition that comes later has the root's constraints */
	foreach(cell, list_concat_unique_oid(list_make1_oid(relid), bbm_partitions_list(relid)))
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		AttrNumber	there = rel ? get_attnum(lfirst_oid(cell), name) : InvalidAttrNumber;
		/* a child table may have dropped its parent's constraint */
		bool		may = rel && (there <= 0 || bbm_column_may_be_null(rel, there));

		if (rel)
			table_close(rel, NoLock);
		if (may)
			return false;
	}
	return true;
}

/* Is the value known not to be null, whatever the row of the table? */
static bool
never_null(Node *expression, Oid relid, Index table)
{
	check_stack_depth();
	switch (nodeTag(expression))
	{
		case T_Const:
			return !((Const *) expression)->constisnull;
		case T_Var:
			return ((Var *) expression)->varno == table && ((Var *) expression)->varlevelsup == 0 &&
				((Var *) expression)->varattno > 0 && is_not_null(relid, ((Var *) expression)->varattno);
		case T_SQLValueFunction:
			return ((SQLValueFunction *) expression)->op <= SVFOP_LOCALTIMESTAMP_N;
		case T_RelabelType:
			return never_null((Node *) ((RelabelType *) expression)->arg, relid, table);
		case T_CoerceViaIO:
			return never_null((Node *) ((CoerceViaIO *) expression)->arg, relid, table);
		case T_CoerceToDomain:
			return never_null((Node *) ((CoerceToDomain *) expression)->arg, relid, table);
		case T_FuncExpr:
			/* a built-in cast */
			return ((FuncExpr *) expression)->funcformat != COERCE_EXPLICIT_CALL &&
				get_func_namespace(((FuncExpr *) expression)->funcid) == PG_CATALOG_NAMESPACE &&
				func_strict(((FuncExpr *) expression)->funcid) &&
				none_null(((FuncExpr *) expression)->args, relid, table);
		case T_OpExpr:
			return keeps_not_null((OpExpr *) expression) &&
				none_null(((OpExpr *) expression)->args, relid, table);
		case T_CoalesceExpr:
			return any_never_null(((CoalesceExpr *) expression)->args, relid, table);
		case T_NullTest:
		case T_BooleanTest:
			return true;
		default:
			return false;
	}
}

/* The value of an assigned column in a finished row. */
typedef struct Assigned
{
	AttrNumber	attnum;
	Const	   *value;			/* NULL: some value that is not null */
} Assigned;

static const Assigned *
find_assigned(List *assigned, Node *node)
{
	ListCell   *cell;

	if (!IsA(node, Var) || ((Var *) node)->varno != 1 || ((Var *) node)->varlevelsup != 0)
		return NULL;
	foreach(cell, assigned)
	{
		if (((Assigned *) lfirst(cell))->attnum == ((Var *) node)->varattno)
			return lfirst(cell);
	}
	return NULL;
}

/* Substitutes the known values of the assigned columns in the filter. */
static Node *
put_in(Node *node, void *assigned)
{
	const Assigned *known;

	if (node == NULL)
		return NULL;
	known = find_assigned(assigned, node);
	if (known && known->value)
		return copyObject((Node *) known->value);
	if (IsA(node, NullTest) && !((NullTest *) node)->argisrow)
	{
		known = find_assigned(assigned, (Node *) ((NullTest *) node)->arg);
		if (known && known->value == NULL)
			return makeBoolConst(((NullTest *) node)->nulltesttype == IS_NOT_NULL, false);
	}
	return expression_tree_mutator(node, put_in, assigned);
}

/* A list of Assigned: what is known of the values that the update leaves. */
static List *
assigned_by(const Query *update, Oid relid)
{
	List	   *known = NIL;
	ListCell   *cell;

	foreach(cell, update->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Node	   *value;
		Assigned   *assigned;

		if (entry->resjunk)
			continue;
		value = eval_const_expressions(NULL, (Node *) copyObject(entry->expr));
		if (!IsA(value, Const) && !never_null(value, relid, update->resultRelation))
			continue;
		assigned = palloc0(sizeof(Assigned));
		assigned->attnum = entry->resno;
		assigned->value = IsA(value, Const) ? (Const *) value : NULL;
		known = lappend(known, assigned);
	}
	return known;
}

/*
 * Is it certain that no row that the statement for the checked parts has
 * changed still meets their condition?  Triggers of the table are ignored.
 * Needs what bbm_statement_check_condition needs.
 */
bool
bbm_statement_ends_filter(Oid relid, const BbmStatementParts *parts)
{
	Node	   *condition;

	if (parts->condition == NULL)
		return false;
	if (parts->verb == BBM_DELETE)
		return true;
	condition = bbm_statement_condition(relid, parts->condition);
	if (checkExprHasSubLink(condition))
		return false;
	condition = put_in(condition, assigned_by(bbm_statement_analyse(relid, parts), relid));
	condition = eval_const_expressions(NULL, condition);
	return condition && IsA(condition, Const) &&
		(((Const *) condition)->constisnull || !DatumGetBool(((Const *) condition)->constvalue));
}
