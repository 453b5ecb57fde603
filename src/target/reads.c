/*-------------------------------------------------------------------------
 *
 * reads.c
 *		The tables that a statement on a distributed table reads beside it.
 *
 * NOTES
 *	  A batch runs on the node of a shard, on the shard.  If its statement named
 *	  another distributed table, or a reference table, Citus would read that for
 *	  it, over connections of its own.  So it reads the tables' own shards, where
 *	  that is the same:
 *
 *	  - of a reference table each node has a copy, which is its only shard;
 *	  - of a colocated table, the shard with the same hash values is on the same
 *		node, and stays there as long as the batch has its lock.  It has all rows
 *		that are meant only if the statement compares the distribution columns of
 *		both tables: that is required wherever such a table is read.
 *
 *	  The text is as the user wrote it.  A common table expression with the name
 *	  of the table, which the server looks up before tables, stands before the
 *	  statement and selects from the shard; as it is not materialized, the plan is
 *	  that of the shard itself.  A name with a schema would not be looked up
 *	  there: the schema is left out of the text, at the place where the server's
 *	  parser has found it.
 *
 *	  Nothing is left to chance: when the statement is prepared, whatever still
 *	  is a table of the cluster in it is an error.  And before and after each batch
 *	  it is checked that the shards are still those (catalog/shards.c).
 *
 *-------------------------------------------------------------------------
 */
#include "target/reads.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/typcache.h"

#include "base/spi.h"
#include "base/txn.h"
#include "catalog/distribution.h"
#include "catalog/shards.h"
#include "target/relation.h"
#include "target/statement_text.h"

/* Raises the error for what is not supported on a distributed table. */
void
bbm_cluster_refuse(Oid relid, const char *detail, const char *hint)
{
	bbm_failing_code = BBM_CODE_TABLE;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot run batches over distributed table \"%s\"", bbm_table_sql_name(relid)),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/* ----------------------------------------------------------------
 * Which tables are read
 * ----------------------------------------------------------------
 */

/* What is read, and by which statement. */
typedef struct Reads
{
	Oid			relid;			/* what the statement changes: the distributed table, or a shard of it */
	Oid			table;			/* the distributed table */
	BbmDistribution distribution;	/* ... of which */
	AttrNumber	column;			/* its distribution column in relid; invalid: it has none */
	int			level;			/* how deep in sub-selects we are */
	List	   *tables;			/* OIDs: those that are read */
} Reads;

/* Is it an equality of the two columns that is true for equal hash values alone? */
static bool
is_equality(const OpExpr *op, int varno, AttrNumber attnum, const Reads *reads)
{
	Node	   *left;
	Node	   *right;
	const Var  *a;
	const Var  *b;

	if (list_length(op->args) != 2)
		return false;
	left = strip_implicit_coercions(linitial(op->args));
	right = strip_implicit_coercions(lsecond(op->args));
	if (!IsA(left, Var) || !IsA(right, Var))
		return false;
	a = (Var *) left;
	b = (Var *) right;
	if ((int) a->varno != varno || a->varlevelsup != 0 || a->varattno != attnum)
	{
		const Var  *other = a;

		a = b;
		b = other;
	}
	return (int) a->varno == varno && a->varlevelsup == 0 && a->varattno == attnum &&
		b->varno == 1 && (int) b->varlevelsup == reads->level && b->varattno == reads->column &&
		a->vartype == b->vartype && a->varcollid == b->varcollid && op->inputcollid == a->varcollid &&
		op->opno == lookup_type_cache(a->vartype, TYPECACHE_EQ_OPR)->eq_opr;
}

/* Does the condition hold only where the two columns are equal? */
static bool
demands_equality(Node *condition, int varno, AttrNumber attnum, const Reads *reads)
{
	ListCell   *cell;

	if (condition == NULL)
		return false;
	if (IsA(condition, OpExpr))
		return is_equality((OpExpr *) condition, varno, attnum, reads);
	if (!is_andclause(condition))
		return false;
	foreach(cell, ((BoolExpr *) condition)->args)
	{
		if (demands_equality(lfirst(cell), varno, attnum, reads))
			return true;
	}
	return false;
}

/* The same for the WHERE of a query, and the conditions of its inner joins. */
static bool
joins_by_equality(Node *from, int varno, AttrNumber attnum, const Reads *reads)
{
	ListCell   *cell;

	if (IsA(from, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) from;

		return join->jointype == JOIN_INNER &&
			(demands_equality(join->quals, varno, attnum, reads) ||
			 joins_by_equality(join->larg, varno, attnum, reads) ||
			 joins_by_equality(join->rarg, varno, attnum, reads));
	}
	if (!IsA(from, FromExpr))
		return false;
	foreach(cell, ((FromExpr *) from)->fromlist)
	{
		if (joins_by_equality(lfirst(cell), varno, attnum, reads))
			return true;
	}
	return demands_equality(((FromExpr *) from)->quals, varno, attnum, reads);
}

/* Raises an error unless all rows that the query can meet in this table are in the shard beside the statement's own. */
static void
check_colocated(Oid relid, int varno, const Query *query, const Reads *reads)
{
	BbmDistribution d;

	if (!bbm_distribution(relid, &d) || d.colocation == 0 || d.colocation != reads->distribution.colocation ||
		(d.column == NULL) != (reads->distribution.column == NULL))
		bbm_cluster_refuse(reads->table,
						   psprintf("The statement reads table \"%s\", which is not colocated with it.", bbm_table_sql_name(relid)),
						   "A reference table, or one that is colocated, can be read. Or write what it needs into a column first.");
	/* all rows of both are in one shard */
	if (d.column == NULL)
		return;
	if (!joins_by_equality((Node *) query->jointree, varno, get_attnum(relid, d.column), reads))
		bbm_cluster_refuse(reads->table,
						   psprintf("The statement reads table \"%s\" without a comparison of both tables' distribution columns, and on each shard it sees one shard of that table.",
									bbm_table_sql_name(relid)),
						   psprintf("Add %s.%s = %s.%s to the WHERE that is about it, with AND.", quote_identifier(get_rel_name(relid)),
									quote_identifier(d.column), quote_identifier(get_rel_name(reads->table)),
									quote_identifier(reads->distribution.column)));
}

static void
check_entry(const RangeTblEntry *entry, int varno, const Query *query, Reads *reads)
{
	BbmRowsAre	where = bbm_where_rows_are(entry->relid);

	if (where == BBM_ROWS_IN_SHARDS)
		check_colocated(entry->relid, varno, query, reads);
	else if (where != BBM_ROWS_ON_ALL_NODES)
		bbm_cluster_refuse(reads->table,
						   psprintf("The statement reads another table, \"%s\", and runs on each shard by itself.",
									bbm_table_sql_name(entry->relid)),
						   "A reference table, or one that is colocated, can be read. Or write what it needs into a column first.");
	if (pg_class_aclcheck(entry->relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(entry->relid));
	reads->tables = list_append_unique_oid(reads->tables, entry->relid);
}

/* The tables of a query, but for the first ones. */
static void
check_query(const Query *query, int first, Reads *reads)
{
	for (int i = first; i <= list_length(query->rtable); i++)
	{
		const RangeTblEntry *entry = rt_fetch(i, query->rtable);

		if (entry->rtekind == RTE_RELATION)
			check_entry(entry, i, query, reads);
	}
}

static bool
find_reads(Node *node, void *arg)
{
	Reads	   *reads = arg;
	bool		stop;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, find_reads, arg);
	reads->level++;
	check_query((Query *) node, 1, reads);
	stop = query_tree_walker((Query *) node, find_reads, arg, 0);
	reads->level--;
	return stop;
}

/* Finds the tables that the parts read; raises an error for those that cannot be read shard by shard. */
static void
read_tables(Oid relid, Oid table, const BbmStatementParts *parts, Reads *reads)
{
	memset(reads, 0, sizeof(Reads));
	reads->relid = relid;
	reads->table = table;
	if (!bbm_distribution(table, &reads->distribution))
		bbm_check_rows_are_here(table);
	if (reads->distribution.column)
		reads->column = get_attnum(relid, reads->distribution.column);
	if (parts->verb == BBM_UPDATE)
	{
		Query	   *query = bbm_statement_analyse(relid, parts);

		check_query(query, 2, reads);
		(void) query_tree_walker(query, find_reads, reads, 0);
	}
	else if (parts->condition)
		(void) find_reads(bbm_statement_condition(relid, parts->condition), reads);
}

/* ----------------------------------------------------------------
 * Their names in the text
 * ----------------------------------------------------------------
 */

/* A name with a schema, in a text. */
typedef struct Place
{
	int			at;
	const char *name;			/* without the schema */
} Place;

typedef struct Names
{
	const Reads *reads;
	List	   *places;
} Names;

static bool
is_read(const char *name, const List *tables)
{
	const ListCell *cell;

	foreach(cell, tables)
	{
		if (strcmp(get_rel_name(lfirst_oid(cell)), name) == 0)
			return true;
	}
	return false;
}

/* A walker over what the parser has made of a text. */
static bool
find_names(Node *node, void *arg)
{
	Names	   *names = arg;

	if (node == NULL)
		return false;
	if (IsA(node, CommonTableExpr) && is_read(((CommonTableExpr *) node)->ctename, names->reads->tables))
		bbm_cluster_refuse(names->reads->table,
						   psprintf("\"%s\" is a table that the statement reads, and the name of a WITH in it.",
									((CommonTableExpr *) node)->ctename),
						   "Give the WITH another name.");
	if (IsA(node, RangeVar))
	{
		RangeVar   *range = (RangeVar *) node;

		if (range->schemaname && list_member_oid(names->reads->tables, RangeVarGetRelid(range, NoLock, true)))
		{
			Place	   *place = palloc(sizeof(Place));

			place->at = range->location;
			place->name = range->relname;
			names->places = lappend(names->places, place);
		}
	}
	return raw_expression_tree_walker(node, find_names, arg);
}

static int
last_first(const ListCell *a, const ListCell *b)
{
	return ((const Place *) lfirst(b))->at - ((const Place *) lfirst(a))->at;
}

/* The text with the names of the tables that it reads, without their schemas. */
static const char *
without_schemas(const char *text, bool condition, const Reads *reads)
{
	BbmStatementText read = bbm_statement_text(text, condition ? "filter" : "set", condition, reads->relid);
	RawStmt    *raw = condition ? bbm_parse_condition(&read) : bbm_parse_set(&read);
	int			prefix = strlen(condition ? BBM_SELECT_PREFIX : BBM_UPDATE_PREFIX);
	Names		names = {reads, NIL};
	ListCell   *cell;

	(void) find_names(raw->stmt, &names);
	list_sort(names.places, last_first);
	foreach(cell, names.places)
	{
		const Place *place = lfirst(cell);

		text = bbm_text_replace_name(text, place->at - prefix, quote_identifier(place->name));
	}
	return text;
}

/*
 * What is to be read in each table's place: a shard of it here, or (shard is
 * NULL) the table itself.
 */
static char *
with_list(const Reads *reads, BbmShard *shard)
{
	StringInfoData with;
	ListCell   *cell;

	initStringInfo(&with);
	foreach(cell, reads->tables)
	{
		Oid			relid = lfirst_oid(cell);
		char	   *name = shard ? bbm_shard_read(shard, relid) : bbm_table_sql_name(relid);

		if (name == NULL)
			bbm_cluster_refuse(reads->table,
							   psprintf("The statement reads table \"%s\", and this node does not have the shard of that which belongs to shard " INT64_FORMAT ".",
										bbm_table_sql_name(relid), shard->id),
							   "Tables are read that are colocated, or are reference tables with a copy on each node: see replicate_reference_tables().");
		appendStringInfo(&with, "%s%s AS NOT MATERIALIZED (SELECT * FROM %s)", with.len > 0 ? ", " : "",
						 quote_identifier(get_rel_name(relid)), name);
	}
	return with.data;
}

/* Changes the parts into those that read the shards; false if they read nothing. */
static bool
rewrite(const Reads *reads, BbmShard *shard, BbmStatementParts *parts)
{
	ListCell   *cell;

	if (reads->tables == NIL)
		return false;
	foreach(cell, reads->tables)
	{
		List	   *others = list_delete_oid(list_copy(reads->tables), lfirst_oid(cell));

		if (is_read(get_rel_name(lfirst_oid(cell)), others))
			bbm_cluster_refuse(reads->table,
							   psprintf("The statement reads two tables that are named \"%s\".", get_rel_name(lfirst_oid(cell))),
							   "Rename one of them.");
	}
	if (parts->set)
		parts->set = without_schemas(parts->set, false, reads);
	if (parts->condition)
		parts->condition = without_schemas(parts->condition, true, reads);
	parts->with = with_list(reads, shard);
	return true;
}

/* ----------------------------------------------------------------
 * Is that all?
 * ----------------------------------------------------------------
 */

/* Finds a table of the cluster that a query reads. */
static bool
find_cluster_table(Node *node, void *arg)
{
	const Query *query = (Query *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, find_cluster_table, arg);
	for (int i = 1; i <= list_length(query->rtable); i++)
	{
		const RangeTblEntry *entry = rt_fetch(i, query->rtable);

		if (entry->rtekind == RTE_RELATION && i != query->resultRelation &&
			bbm_where_rows_are(entry->relid) != BBM_ROWS_HERE)
		{
			*(Oid *) arg = entry->relid;
			return true;
		}
	}
	return query_tree_walker((Query *) node, find_cluster_table, arg, 0);
}

/* Raises an error where a prepared statement, views expanded, reads a table of the cluster not by our WITH. */
static void
check_queries(Oid table, List *queries)
{
	ListCell   *cell;

	foreach(cell, queries)
	{
		Query	   *query = copyObject(lfirst_node(Query, cell));
		Oid			found = InvalidOid;

		/* the texts follow it, so they add nothing to it */
		query->cteList = NIL;
		if (find_cluster_table((Node *) query, &found))
			bbm_cluster_refuse(table,
							   psprintf("The statement reads table \"%s\" otherwise than by its name.", bbm_table_sql_name(found)),
							   "Name the table in FROM, and not a view or a rule over it.");
	}
}

/* Finds a table that an expression reads. */
static bool
find_any_table(Node *node, void *arg)
{
	ListCell   *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, find_any_table, arg);
	foreach(cell, ((Query *) node)->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind == RTE_RELATION)
		{
			*(Oid *) arg = entry->relid;
			return true;
		}
	}
	return query_tree_walker((Query *) node, find_any_table, arg, 0);
}

/* Raises an error if a condition by which the rows of shards are verified reads a table.  As above. */
void
bbm_reads_check_none(Oid relid, const char *condition, const char *what)
{
	Oid			found = InvalidOid;

	if (condition && find_any_table(bbm_statement_condition(relid, condition), &found))
		bbm_cluster_refuse(relid,
						   psprintf("Its \"verify\" is by \"%s\", which reads table \"%s\".", what, bbm_table_sql_name(found)),
						   "Call bbm_verify when it is finished: it counts the rows of all nodes. Or verify by a row_check that is about the row alone.");
}

/*
 * Raises an error unless a batch on a shard of the table can read, on that
 * shard's node, what its statement reads.  Needs what
 * bbm_statement_check_condition needs, and SPI.
 */
void
bbm_reads_check(Oid relid, const BbmStatementParts *parts)
{
	BbmStatementParts rewritten = *parts;
	Reads		reads;
	SPIPlanPtr	plan;
	char	   *sql;

	read_tables(relid, relid, parts, &reads);
	if (!rewrite(&reads, NULL, &rewritten))
		return;
	/* a server that prepares it finds what a WITH cannot do that a table could */
	sql = bbm_statement_compose(&rewritten, bbm_table_sql_name(relid), quote_identifier(get_rel_name(relid)),
								NULL, NULL);
	plan = bbm_spi_prepare(sql, 0, NULL, 0);
	check_queries(relid, ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->query_list);
	SPI_freeplan(plan);
}

/* Finds what the statement of a shard's migration reads on this node.  The same. */
void
bbm_reads_resolve(BbmTarget *target)
{
	BbmStatementParts parts;
	Reads		reads;

	if (target->shard == NULL || target->form != BBM_JOB_COMPOSED)
		return;
	bbm_job_parts(target->migration, &parts);
	read_tables(target->relid, bbm_shard_table(target->relid), &parts, &reads);
	if (!rewrite(&reads, target->shard, &parts))
		return;
	target->reads = palloc(sizeof(BbmStatementParts));
	*target->reads = parts;
}

/* The parts of the statement that a target's batches execute. */
void
bbm_reads_parts(const BbmTarget *target, BbmStatementParts *parts)
{
	if (target->reads)
		*parts = *target->reads;
	else
		bbm_job_parts(target->migration, parts);
}

/*
 * Raises an error unless the prepared statement reads what is on this node, and
 * writes no shard but the target's own.  Needs SPI.
 */
void
bbm_reads_check_plan(const BbmTarget *target)
{
	CachedPlanSource *source;

	if (target->reads == NULL && target->form != BBM_JOB_STATEMENT)
		return;
	source = linitial(SPI_plan_get_plan_sources(target->partition->plan));
	if (target->reads)
		check_queries(bbm_shard_table(target->relid), source->query_list);
	else
		bbm_check_queries_write_no_shard(source->query_list);
}
