/*-------------------------------------------------------------------------
 *
 * statement.c
 *		Statements that are composed of a user's texts: "set" and "filter".
 *
 * NOTES
 *	  A text goes into the statement as it was written.  It cannot break out of
 *	  its position because it was first parsed alone, and found to be one list
 *	  of assignments or one expression and nothing else: a text that closes our
 *	  parenthesis has none of its own to close when it is parsed alone.  A line
 *	  break follows each text, since it may end in a comment.
 *
 *	  Names are resolved by the server's own analysis, with the table under its
 *	  unqualified name; that analysis also rejects everything else that a
 *	  statement may not do.  The table's name is put into the raw parse tree
 *	  only after parsing, so that positions in error messages are positions in
 *	  the user's text.
 *
 *-------------------------------------------------------------------------
 */
#include "target/statement.h"

#include "access/relation.h"
#include "catalog/partition.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/point.h"
#include "target/cascade.h"
#include "target/hierarchy.h"
#include "target/relation.h"
#include "target/statement_text.h"

/*
 * Analyses a parsed text over its table, under the table's unqualified name.
 * Nobody runs this statement, so extensions that watch statements must not see
 * it: hence it does not use parse_analyze and its hook.
 */
static Query *
analyse(BbmStatementText *text, RawStmt *raw, const char *prefix)
{
	ParseState *state = make_parsestate(NULL);
	RangeVar   *table = makeRangeVar(get_namespace_name(get_rel_namespace(text->relid)), get_rel_name(text->relid), -1);
	ErrorContextCallback callback;
	Query	   *query;

	table->alias = makeAlias(text->table, NIL);
	if (IsA(raw->stmt, UpdateStmt))
		((UpdateStmt *) raw->stmt)->relation = table;
	else
		((SelectStmt *) raw->stmt)->fromClause = list_make1(table);
	bbm_statement_text_begin(text, prefix, &callback);
	state->p_sourcetext = psprintf("%s%s", prefix, text->user.text);
	query = transformTopLevelStmt(state, raw);
	free_parsestate(state);
	if (query->commandType == CMD_UPDATE)
		/* an assignment to a generated column is detected only here */
		(void) pg_rewrite_query(copyObject(query));
	bbm_statement_text_end(&callback);
	return query;
}

typedef struct Referenced
{
	int			level;
	Bitmapset  *columns;
} Referenced;

static bool
referenced_walker(Node *node, void *arg)
{
	Referenced *referenced = arg;
	bool		stop;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varno == 1 && var->varlevelsup == referenced->level)
			referenced->columns = bms_add_member(referenced->columns,
												 var->varattno - FirstLowInvalidHeapAttributeNumber);
		return false;
	}
	if (!IsA(node, Query))
		return expression_tree_walker(node, referenced_walker, arg);
	referenced->level++;
	stop = query_tree_walker((Query *) node, referenced_walker, arg, QTW_IGNORE_JOINALIASES);
	referenced->level--;
	return stop;
}

/* The columns of the query's first table that the query reads, in sub-selects too. */
Bitmapset *
bbm_statement_referenced(Query *query)
{
	Referenced	referenced = {0};

	(void) query_tree_walker(query, referenced_walker, &referenced, QTW_IGNORE_JOINALIASES);
	return referenced.columns;
}

/* Can an expression's value change between two evaluations?  Defaults of arguments appear only when it is planned. */
static bool
is_volatile(Node *expression)
{
	return contain_volatile_functions(expression) ||
		contain_volatile_functions((Node *) expression_planner((Expr *) copyObject(expression)));
}

/*
 * Raises an error unless the text is a condition on rows of the table whose
 * result stays the same as long as the row does not change.  "what" is its
 * name in messages.  Needs a transaction with a snapshot, a lock on the table,
 * and the search_path that the text was written for.
 */
void
bbm_statement_check_condition(Oid relid, const char *condition, const char *what)
{
	BbmStatementText text = bbm_statement_text(condition, what, true, relid);
	Query	   *query = analyse(&text, bbm_parse_condition(&text), BBM_SELECT_PREFIX);
	Bitmapset  *columns = bbm_statement_referenced(query);

	if (is_volatile(query->jointree->quals))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("\"%s\" must not use volatile functions", what),
				 errdetail("It could select other rows each time it is evaluated."),
				 errhint("Compare with a value or a column; now() is allowed.")));
	for (AttrNumber attnum = FirstLowInvalidHeapAttributeNumber + 1; attnum < 0; attnum++)
	{
		if (attnum != TableOidAttributeNumber &&
			bms_is_member(attnum - FirstLowInvalidHeapAttributeNumber, columns))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("\"%s\" must not use system column \"%s\"", what, get_attname(relid, attnum, false)),
					 errdetail("It changes whenever the row is updated."),
					 errhint("Use columns of the table; of the system columns, only tableoid.")));
	}
}

/* The columns that an UPDATE assigns. */
Bitmapset *
bbm_statement_assigned(const Query *update)
{
	Bitmapset  *columns = NULL;
	ListCell   *cell;

	foreach(cell, update->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);

		if (!entry->resjunk)
			columns = bms_add_member(columns, entry->resno - FirstLowInvalidHeapAttributeNumber);
	}
	return columns;
}

/*
 * The columns that an UPDATE changes: those that it assigns, and those that
 * the server then changes (target/cascade.c).  Changes by a trigger are not
 * included: they are detected after the fact (engine/batch.c).
 */
Bitmapset *
bbm_statement_changed(Oid relid, const Query *update)
{
	Bitmapset  *assigned = bbm_statement_assigned(update);

	BBM_POINT("statement-checked");
	return bbm_cascaded_columns(relid, false, assigned);
}

/*
 * The first of these columns that is in a partition key, at any level above or
 * below the table; or NULL. A level of partitions that another session adds
 * after this check is not seen; one that it drops is skipped.
 */
const char *
bbm_statement_partition_column(Oid relid, const Bitmapset *columns)
{
	const char *found = NULL;
	ListCell   *cell;

	foreach(cell, bbm_partitions_related(relid))
	{
		int			column = -1;
		Relation	rel;

		/* locked only for the check: the caller may want a stronger lock later */
		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_PARTITIONED_TABLE)
			continue;
		rel = try_relation_open(lfirst_oid(cell), AccessShareLock);
		if (rel == NULL)
			continue;
		while (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE && found == NULL &&
			   (column = bms_next_member(columns, column)) >= 0)
		{
			/* partitions have the same column names, in their own order */
			const char *name = get_attname(relid, column + FirstLowInvalidHeapAttributeNumber, false);
			int			there = get_attnum(RelationGetRelid(rel), name) - FirstLowInvalidHeapAttributeNumber;

			if (has_partition_attrs(rel, bms_make_singleton(there), NULL))
				found = name;
		}
		relation_close(rel, AccessShareLock);
	}
	BBM_POINT("levels_checked");
	return found;
}

static void
check_key_change(Oid relid, const Query *update, const AttrNumber *key, int nkey)
{
	Bitmapset  *assigned = bbm_statement_assigned(update);
	Bitmapset  *changed = bbm_statement_changed(relid, update);
	const char *column;

	for (int i = 0; i < nkey; i++)
	{
		int			member = key[i] - FirstLowInvalidHeapAttributeNumber;

		if (bms_is_member(member, changed))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("\"set\" changes column \"%s\" of the batching key", get_attname(relid, key[i], false)),
					 bms_is_member(member, assigned) ?
					 errdetail("A row whose key changes can move into another batch, and be done twice or not at all.") :
					 errdetail("The server computes it from what is set, or a foreign key changes it. A row whose key changes can move into another batch, and be done twice or not at all."),
					 errhint("If that does no harm here, say allow_key_change => true.")));
	}
	column = bbm_statement_partition_column(relid, changed);
	if (column)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"set\" changes column \"%s\" of the partition key", column),
				 errdetail("A row that moves into another partition can be done twice."),
				 errhint("If that does no harm here, say allow_key_change => true.")));
}

/* Of a DELETE, foreign keys may change the key of rows that stay. */
static void
check_key_of_others(Oid relid, const AttrNumber *key, int nkey)
{
	Bitmapset  *changed = bbm_cascaded_columns(relid, true, NULL);

	for (int i = 0; i < nkey; i++)
	{
		if (bms_is_member(key[i] - FirstLowInvalidHeapAttributeNumber, changed))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a foreign key changes column \"%s\" of the batching key when rows are deleted",
							get_attname(relid, key[i], false)),
					 errdetail("It is set in rows that refer to a deleted one. A row whose key changes can move into another batch, and be done twice or not at all."),
					 errhint("Name another key in column_name.")));
	}
}

/*
 * The analysed UPDATE with a set over the table, including the filter if there
 * is one, which is checked too.  They are first analysed separately, to get
 * good messages, and then together: columns of a FROM may make ambiguous a
 * name that is not ambiguous in the filter alone.  Needs what
 * bbm_statement_check_condition needs.
 */
Query *
bbm_statement_analyse(Oid relid, const BbmStatementParts *parts)
{
	BbmStatementText text = bbm_statement_text(parts->set, "set", false, relid);
	RawStmt    *raw = bbm_parse_set(&text);
	Query	   *query = analyse(&text, raw, BBM_UPDATE_PREFIX);

	if (parts->condition)
	{
		char	   *name = bbm_table_alias(relid);
		BbmStatementText whole;

		bbm_statement_check_condition(relid, parts->condition, "filter");
		whole = bbm_statement_text(bbm_statement_compose(parts, "x", quote_identifier(name), NULL, NULL),
							   "filter", true, relid);
		query = analyse(&whole, bbm_parse_text(&whole, "", ""), "");
	}
	return query;
}

/*
 * Raises an error unless the parts are valid for the table, whose batching key
 * consists of these columns: it changes no key, unless allowed, and the result
 * of its filter stays the same as long as the row does.  Needs what
 * bbm_statement_check_condition needs.
 */
void
bbm_statement_check(Oid relid, const BbmStatementParts *parts, const AttrNumber *key, int nkey,
					bool allow_key_change)
{
	if (parts->verb == BBM_UPDATE)
	{
		Query	   *update = bbm_statement_analyse(relid, parts);

		if (!allow_key_change)
			check_key_change(relid, update, key, nkey);
	}
	else
	{
		if (parts->condition)
			bbm_statement_check_condition(relid, parts->condition, "filter");
		if (!allow_key_change)
			check_key_of_others(relid, key, nkey);
	}
}

/* The expression of a checked condition; the table's columns have varno 1. */
Node *
bbm_statement_condition(Oid relid, const char *condition)
{
	BbmStatementText text = bbm_statement_text(condition, "filter", true, relid);

	return analyse(&text, bbm_parse_condition(&text), BBM_SELECT_PREFIX)->jointree->quals;
}

static void
append_with(StringInfo sql, const BbmStatementParts *parts)
{
	if (parts->with)
		appendStringInfo(sql, "WITH %s\n", parts->with);
}

static void
append_conditions(StringInfo sql, const char *const conditions[3])
{
	const char *before = "\nWHERE ";

	for (int i = 0; i < 3; i++)
	{
		if (conditions[i] == NULL)
			continue;
		/* a text may end in a comment */
		appendStringInfo(sql, "%s(%s\n)", before, conditions[i]);
		before = " AND ";
	}
}

/*
 * The statement for the parts, which must have been checked.  "relation" is
 * the quoted name of the table to write, "alias" the quoted name by which the
 * parts refer to it, "range" a predicate or NULL. If "returning" is given, an
 * UPDATE returns that expression for each row.
 */
char *
bbm_statement_compose(const BbmStatementParts *parts, const char *relation, const char *alias,
					  const char *range, const char *returning)
{
	char	   *join = NULL;
	StringInfoData sql;

	initStringInfo(&sql);
	append_with(&sql, parts);
	if (parts->verb == BBM_UPDATE)
	{
		BbmStatementText text = bbm_statement_text(parts->set, "set", false, InvalidOid);

		appendStringInfo(&sql, "UPDATE %s AS %s SET %s", relation, alias,
						 bbm_split_set(&text, &join));
	}
	else
		appendStringInfo(&sql, "DELETE FROM %s AS %s", relation, alias);
	append_conditions(&sql, (const char *[]) {join, parts->condition, range});
	if (parts->verb == BBM_UPDATE && returning)
		appendStringInfo(&sql, "\nRETURNING (%s\n)", returning);
	return sql.data;
}

/*
 * A query that counts the rows in a range, or everywhere, that the statement
 * for the checked parts would still change: a row without a partner in the
 * FROM of the set does not count.
 */
char *
bbm_statement_count(const BbmStatementParts *parts, const char *relation, const char *alias, const char *range)
{
	char	   *join = NULL;
	char	   *from = NULL;
	char	   *partner = NULL;
	StringInfoData sql;

	if (parts->verb == BBM_UPDATE)
	{
		BbmStatementText text = bbm_statement_text(parts->set, "set", false, InvalidOid);

		(void) bbm_split_set(&text, &join);
		from = bbm_set_from(&text);
	}
	if (from)
		partner = psprintf("EXISTS (SELECT FROM %s%s%s%s", from, join ? "\nWHERE (" : "", join ? join : "",
						   join ? "\n))" : "\n)");
	initStringInfo(&sql);
	append_with(&sql, parts);
	appendStringInfo(&sql, "SELECT pg_catalog.count(*) FROM %s AS %s", relation, alias);
	append_conditions(&sql, (const char *[]) {partner ? partner : join, parts->condition, range});
	return sql.data;
}

static void
assignment_error(BbmStatementText *text, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("\"%s\" must be a list of column = expression", text->what),
			 errdetail_internal("%s", detail),
			 errhint("Write each column with an expression of its own; sub-selects are allowed.")));
}

/*
 * The items of a set that is only a list of "column = expression", as
 * BbmAssignments; raises an error for anything else.  Examines only the text.
 */
List *
bbm_statement_assignments(const char *set)
{
	BbmStatementText text = bbm_statement_text(set, "set", false, InvalidOid);
	UpdateStmt *stmt = (UpdateStmt *) bbm_parse_set(&text)->stmt;
	BbmTopToken   *token = bbm_scan_top(&text);
	List	   *result = NIL;
	ListCell   *cell;

	if (stmt->fromClause || stmt->whereClause)
		assignment_error(&text, _("It goes on with FROM or WHERE."));
	foreach(cell, stmt->targetList)
	{
		ResTarget  *target = lfirst_node(ResTarget, cell);
		BbmAssignment *assignment = palloc(sizeof(BbmAssignment));
		int			begin;

		if (IsA(target->val, MultiAssignRef))
			assignment_error(&text, _("It assigns several columns at once."));
		if (target->indirection)
			assignment_error(&text, psprintf(_("It assigns a part of column \"%s\"."), target->name));
		if (IsA(target->val, SetToDefault))
			assignment_error(&text, psprintf(_("It assigns DEFAULT to column \"%s\"."), target->name));
		/* outside parentheses, the first "=" ends the name and a comma the expression */
		while (token->token != '=')
			token++;
		begin = token->at + 1;
		while (token->token != ',' && token->token != 0)
			token++;
		assignment->column = target->name;
		assignment->expression = pnstrdup(set + begin, token->at - begin);
		result = lappend(result, assignment);
	}
	return result;
}

void
bbm_job_parts(const BbmMigration *migration, BbmStatementParts *parts)
{
	parts->verb = strcmp(migration->operation, "delete") == 0 ? BBM_DELETE : BBM_UPDATE;
	parts->set = migration->set_clause;
	parts->condition = migration->filter;
	parts->with = NULL;
}
