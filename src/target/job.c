/*-------------------------------------------------------------------------
 *
 * job.c
 *		The text of a job: its three forms, checked and prepared.
 *
 *-------------------------------------------------------------------------
 */
#include "target/job.h"

#include "nodes/nodeFuncs.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/spi.h"
#include "target/key.h"
#include "target/key_sql.h"
#include "target/lockset.h"
#include "target/plan_guard.h"
#include "target/reads.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"
#include "target/user_text.h"

/* Skips one identifier, quoted or not; NULL when there is none. */
static const char *
skip_identifier(const char *c)
{
	if (*c == '"')
	{
		for (c++; *c; c++)
		{
			if (c[0] == '"' && c[1] == '"')
				c++;
			else if (c[0] == '"')
				return c + 1;
		}
		return NULL;
	}
	if (!(isalpha((unsigned char) *c) || *c == '_' || IS_HIGHBIT_SET(*c)))
		return NULL;
	while (isalnum((unsigned char) *c) || *c == '_' || *c == '$' || IS_HIGHBIT_SET(*c))
		c++;
	return c;
}

/* Is the job only the name of a function, possibly qualified? */
static bool
is_name(const char *job)
{
	const char *c = job;

	while (scanner_isspace(*c))
		c++;
	while ((c = skip_identifier(c)) != NULL && *c == '.')
		c++;
	if (c == NULL)
		return false;
	while (scanner_isspace(*c))
		c++;
	return *c == '\0';
}

/*
 * The names that a job's text may mean: as written, and, if that differs,
 * folded to lower case as SQL does.  The GitLab container registry writes the
 * names of its functions in camel case and without quotes.
 */
static List *
function_names(const char *job)
{
	List	   *written = NIL;
	List	   *folded;
	const char *c = job;

	while (scanner_isspace(*c))
		c++;
	folded = textToQualifiedNameList(cstring_to_text(c));
	for (;; c++)
	{
		const char *end = skip_identifier(c);
		char	   *part = pnstrdup(c, end - c);

		/* folding does not change a quoted name */
		written = lappend(written, *c == '"' ? list_nth(folded, list_length(written)) : makeString(part));
		c = end;
		if (*c != '.')
			break;
	}
	/* the server would raise an error for a schema that does not exist */
	if (equal(written, folded) ||
		(list_length(written) > 1 && !OidIsValid(get_namespace_oid(strVal(linitial(written)), true))))
		return list_make1(folded);
	return list_make2(written, folded);
}

static void
no_such_function(const char *job, const char *key_type)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("function \"%s\" does not exist with the parameters of a job", job),
			 errdetail("A job is a function (min %s, max %s), or (table_name text, column_name text, min %s, max %s, batch_size integer).",
					   key_type, key_type, key_type, key_type),
			 errhint("Create the function, qualify its name, or write the job as a statement with $1 and $2.")));
}

/* Does a WITH query of this statement change rows? */
static bool
changes_in_with(WithClause *with)
{
	ListCell   *cell;

	if (with == NULL)
		return false;
	foreach(cell, with->ctes)
	{
		Node	   *query = lfirst_node(CommonTableExpr, cell)->ctequery;

		if (IsA(query, InsertStmt) || IsA(query, UpdateStmt) || IsA(query, DeleteStmt) ||
			IsA(query, MergeStmt))
			return true;
	}
	return false;
}

static void
job_error(void *arg)
{
	BbmUserText job = {
		.text = arg,
		.what = "job of a migration",
		.syntax_hint = "A job is an UPDATE, DELETE, INSERT or MERGE with $1 and $2, or just the name of a function."
	};

	/* the server names a parameter by its place, and bbm says itself what is wrong with those that it knows */
	if (geterrcode() == ERRCODE_UNDEFINED_PARAMETER && (geterrposition() > 0 || getinternalerrposition() > 0))
	{
		errdetail("The parameters are the first and the last key of the batch: $1 and $2, or $1 to $n and the next n, with a key of n columns.");
		errhint("Write values instead of other parameters.");
	}
	bbm_user_text_error(&job);
	if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
	{
		errdetail("The job runs as role \"%s\", which owns the migration.", GetUserNameFromId(GetUserId(), false));
		errhint("GRANT it what the job needs.");
	}
	if (geterrcode() == ERRCODE_UNDEFINED_TABLE)
		errhint("Names in the job are looked up with search_path \"%s\".", namespace_search_path);
}

static List *
parse_job(const char *job)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = job_error, .arg = (void *) job};
	List	   *parsed;

	error_context_stack = &callback;
	parsed = raw_parser(job, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	return parsed;
}

/*
 * Checks what the text alone shows: that it is a name, or one statement that
 * changes rows.  Raises an error otherwise.  Needs a transaction.
 */
void
bbm_job_check_text(const char *job)
{
	List	   *parsed;
	Node	   *statement;

	if (is_name(job))
	{
		bool		exists = false;
		ListCell   *cell;

		foreach(cell, function_names(job))
		{
			char	   *schema;
			char	   *name;
			CatCList   *functions;

			DeconstructQualifiedName(lfirst(cell), &schema, &name);
			functions = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
			exists |= functions->n_members > 0;
			ReleaseSysCacheList(functions);
		}
		if (!exists)
			no_such_function(job, "bigint");
		return;
	}

	parsed = parse_job(job);
	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a job must be one statement"),
				 errdetail("The text has %d.", list_length(parsed)),
				 errhint("Put several statements into a function, and name that as the job.")));
	statement = linitial_node(RawStmt, parsed)->stmt;
	if (IsA(statement, UpdateStmt) || IsA(statement, DeleteStmt) || IsA(statement, InsertStmt) ||
		IsA(statement, MergeStmt))
		return;
	if (IsA(statement, SelectStmt) && changes_in_with(((SelectStmt *) statement)->withClause))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a job must be an UPDATE, DELETE, INSERT or MERGE, or the name of a function"),
			 errdetail("The text is another kind of statement."),
			 errhint("To call a function, write just its name.")));
}

static bool
collect_parameters(Node *node, Bitmapset **seen)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
	{
		if (((Param *) node)->paramkind == PARAM_EXTERN)
			*seen = bms_add_member(*seen, ((Param *) node)->paramid);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, collect_parameters, seen, 0);
	return expression_tree_walker(node, collect_parameters, seen);
}

/* A statement over ranges must use both bounds of its range. */
static void
check_parameters(SPIPlanPtr plan, int n)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Bitmapset  *seen = NULL;
	ListCell   *cell;

	foreach(cell, source->query_list)
		collect_parameters((Node *) lfirst(cell), &seen);
	for (int i = 1; i <= 2 * n; i++)
	{
		if (!bms_is_member(i, seen))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_PARAMETER),
					 errmsg("the job's statement does not use $%d", i),
					 n > 1 ? errdetail("$1 to $%d are the first key of the batch, $%d to $%d the last; without all of them it would touch the same rows again and again.",
									   n, n + 1, 2 * n) :
					 errdetail("$1 and $2 are the first and the last key of the batch; without both it would touch the same rows again and again."),
					 n > 1 ? errhint("Compare rows, as in \"WHERE (a, b) >= ($1, $2) AND (a, b) <= ($3, $4)\".") :
					 errhint("Add \"WHERE key BETWEEN $1 AND $2\" to the statement.")));
	}
}

/* No other session can see a temporary table. */
static void
check_no_temporary(PlannedStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->relationOids)
	{
		if (get_rel_persistence(lfirst_oid(cell)) == RELPERSISTENCE_TEMP)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the job uses temporary table \"%s\"", get_rel_name(lfirst_oid(cell))),
					 errdetail("No other session can see it, and a worker is another session."),
					 errhint("Use an ordinary table.")));
	}
}

/* Raises an error when the statement cannot be executed: the owner lacks a privilege, or a table does not allow it. */
static void
check_allowed(SPIPlanPtr plan, const char *sql, int nargs, const Oid *types)
{
	CachedPlan *cached = bbm_spi_cached_plan(plan);
	ListCell   *cell;

	/* NULL if a rule rewrote it to several statements, which are checked as they run */
	if (cached == NULL)
		return;
	foreach(cell, cached->stmt_list)
	{
		PlannedStmt *stmt = lfirst_node(PlannedStmt, cell);

		if (stmt->commandType == CMD_UTILITY)
			continue;
		check_no_temporary(stmt);
		bbm_check_privileges(stmt);
		bbm_plan_check_start(stmt, sql, nargs, types);
	}
	ReleaseCachedPlan(cached, CurrentResourceOwner);
}

/* The parameter type of a function, for messages. */
static const char *
bound_type(const BbmTarget *target)
{
	return target->key.n > 1 ? "each column of the key" :
		format_type_be(target->key.n == 1 ? target->key.columns[0].type : target->column_type);
}

/* Finds a function of this name with the parameters of a job, and sets the target's form accordingly. */
static FuncDetailCode
find_function(BbmTarget *target, List *name, Oid *types, int nbounds, int *nargs, Oid *function, Oid *result)
{
	FuncDetailCode detail = FUNCDETAIL_NOTFOUND;

	if (nbounds == 2)
	{
		types[4] = INT4OID;
		target->form = BBM_JOB_REGISTRY_FUNCTION;
		*nargs = 5;
		detail = bbm_func_detail(name, *nargs, types, function, result);
	}
	if (detail == FUNCDETAIL_NOTFOUND)
	{
		target->form = BBM_JOB_RANGE_FUNCTION;
		*nargs = nbounds;
		detail = bbm_func_detail(name, *nargs, &types[2], function, result);
	}
	return detail;
}

/* Finds the function that a name means, and writes the call. */
static void
resolve_function(BbmTarget *target)
{
	Oid			types[BBM_MAX_JOB_ARGS] = {TEXTOID, TEXTOID};
	int			nbounds = bbm_range_bind(target, NULL, 0, NULL, &types[2]);
	int			nargs = 0;
	FuncDetailCode detail = FUNCDETAIL_NOTFOUND;
	Oid			function = InvalidOid;
	Oid			result = InvalidOid;
	char	   *schema;
	char	   *name_now;
	ListCell   *cell;
	StringInfoData sql;

	foreach(cell, function_names(target->migration->job))
	{
		detail = find_function(target, lfirst(cell), types, nbounds, &nargs, &function, &result);
		if (detail != FUNCDETAIL_NOTFOUND)
			break;
	}
	if (detail == FUNCDETAIL_MULTIPLE)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("function \"%s\" is not unique", target->migration->job),
				 errdetail("Several take %d parameters that %s can be cast to.", nargs, bound_type(target)),
				 errhint("Name one with parameters of exactly that type.")));
	if (detail != FUNCDETAIL_NORMAL)
		no_such_function(target->migration->job, bound_type(target));
	if (object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", target->migration->job),
				 errdetail("Role \"%s\" owns the migration and may not execute it.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("GRANT EXECUTE ON FUNCTION to it.")));

	schema = get_namespace_name(get_func_namespace(function));
	name_now = get_func_name(function);
	/* the function was dropped at this moment */
	if (name_now == NULL || schema == NULL)
		no_such_function(target->migration->job, bound_type(target));
	target->returns_count = result == INT2OID || result == INT4OID || result == INT8OID;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s(", quote_qualified_identifier(schema, name_now));
	for (int i = 1; i <= nargs; i++)
		appendStringInfo(&sql, "%s$%d", i > 1 ? ", " : "", i);
	appendStringInfoChar(&sql, ')');
	target->call = sql.data;
}

/* Does the statement assign a partition key column? */
static bool
changes_partition(Oid relid, const BbmStatementParts *parts)
{
	return parts->verb == BBM_UPDATE && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE &&
		bbm_statement_partition_column(relid, bbm_statement_changed(relid, bbm_statement_analyse(relid, parts)));
}

/*
 * Determines the job's form, and its function if it has one.  The target's key
 * must be resolved.  Needs a transaction, and the job's search_path.
 */
void
bbm_job_resolve(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	bool		composed = target->form != BBM_JOB_NONE && migration->operation;
	BbmStatementParts parts;

	if (composed)
	{
		AttrNumber	key[BBM_MAX_KEY_COLUMNS];

		for (int i = 0; i < target->key.n; i++)
			key[i] = get_attnum(target->relid, target->key.columns[i].name);
		target->form = BBM_JOB_COMPOSED;
		bbm_job_parts(migration, &parts);
		bbm_statement_check(target->relid, &parts, key, target->key.n, migration->allow_key_change);
		target->moves_rows = changes_partition(target->relid, &parts);
	}
	else if (migration->filter)
		bbm_statement_check_condition(target->relid, migration->filter, "filter");
	if (target->form != BBM_JOB_NONE && !composed)
	{
		if (is_name(migration->job))
			resolve_function(target);
		else
			target->form = BBM_JOB_STATEMENT;
	}
	if (migration->row_check)
		bbm_statement_check_condition(target->relid, migration->row_check, "row_check");
}

/* The condition for the rows that verification has found, if the current job is about those; else NULL. */
char *
bbm_job_found(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;

	return target->repairs == BBM_REPAIRS_NONE ? NULL :
		target->repairs == BBM_REPAIRS_FILTER ? migration->filter :
		psprintf("(%s\n) IS NOT TRUE", migration->row_check);
}

/* Adds to the condition (NULL: none) that the rows of the partition's source are the partition's own. */
static char *
with_rows(const BbmPartition *partition, char *condition)
{
	return partition->own_rows == NULL ? condition :
		condition ? psprintf("%s AND %s", partition->own_rows, condition) : partition->own_rows;
}

/* The statement that a composed job runs on a partition. */
char *
bbm_job_sql(BbmTarget *target, BbmPartition *partition)
{
	char	   *range = target->strategy->predicate(target, partition, target->alias);
	char	   *undone = target->strategy->undone ? target->strategy->undone(target, target->alias) : NULL;
	BbmStatementParts parts;

	bbm_reads_parts(target, &parts);
	/* reports a row that has left its range: another batch may do it again, or has missed it */
	if (undone == NULL && partition->checks_key)
		undone = psprintf("(%s) IS NOT TRUE", range);
	/* a row that meets both the filter and the check must not be done again */
	if (target->repairs == BBM_REPAIRS_CHECK)
		range = psprintf("%s\n) AND (%s", range, bbm_job_found(target));
	/* only a statement on the root can move a row out of a partition */
	if (target->moves_rows && !partition->as_one_table)
		return bbm_statement_compose(&parts, bbm_table_sql_name(target->relid), target->alias,
									 psprintf("%s.tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid AND %s",
											  target->alias, partition->relid, range), undone);
	return bbm_statement_compose(&parts, partition->source, target->alias, with_rows(partition, range), undone);
}

/* Prepares a statement of the owner's and keeps its plan; errors refer to the text that it comes from. */
static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *types, int bounds, int cursor_options)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = job_error, .arg = (void *) sql};
	SPIPlanPtr	plan;

	error_context_stack = &callback;
	plan = bbm_spi_prepare(sql, nargs, types, cursor_options);
	if (bounds > 0)
		check_parameters(plan, bounds);
	bbm_check_queries_write_here(((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->query_list);
	/* kept before planning, so that the plan's reference has a resource owner */
	bbm_spi_keep(plan);
	PG_TRY();
	{
		check_allowed(plan, sql, nargs, types);
	}
	PG_CATCH();
	{
		SPI_freeplan(plan);
		PG_RE_THROW();
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	return plan;
}

/* Is a range a condition on rows, so that a statement has to use its bounds? */
static bool
has_bounds(const BbmTarget *target)
{
	return target->strategy->has_key || target->strategy->table_scans;
}

/* Sets the types of the job's parameters; returns their number. */
int
bbm_job_types(const BbmTarget *target, Oid *types)
{
	/* the last parameter, after the bounds, is a size */
	bool		sized = target->form == BBM_JOB_COMPOSED || (target->form == BBM_JOB_STATEMENT && !has_bounds(target));

	if (target->form == BBM_JOB_NONE)
		return 0;
	if (target->form == BBM_JOB_REGISTRY_FUNCTION)
	{
		types[0] = types[1] = TEXTOID;
		return 2 + bbm_range_bind(target, NULL, 0, NULL, &types[2]) + 1;
	}
	return bbm_range_bind(target, NULL, 0, NULL, types) + sized;
}

/* What is executed for a range; $1, $2 ... are its bounds.  NULL for a target that is only read. */
char *
bbm_job_statement(BbmTarget *target, BbmPartition *partition)
{
	switch (target->form)
	{
		case BBM_JOB_STATEMENT:
			return target->migration->job;
		case BBM_JOB_COMPOSED:
			return bbm_job_sql(target, partition);
		case BBM_JOB_RANGE_FUNCTION:
		case BBM_JOB_REGISTRY_FUNCTION:
			return target->call;
		case BBM_JOB_NONE:
			break;
	}
	return NULL;
}

static SPIPlanPtr
prepare_job(BbmTarget *target, BbmPartition *partition, int cursor_options)
{
	Oid			types[BBM_MAX_JOB_ARGS];
	int			nargs = bbm_job_types(target, types);
	int			bounds = target->form == BBM_JOB_STATEMENT && has_bounds(target) ? Max(target->key.n, 1) : 0;
	char	   *sql = bbm_job_statement(target, partition);

	return sql == NULL ? NULL : prepare(sql, nargs, types, bounds, cursor_options);
}

/* A job that has not one plan for all ranges is prepared again, to be planned for each. */
static void
choose_plan(BbmTarget *target, BbmPartition *partition)
{
	SPIPlanPtr	plan = partition->plan;

	partition->same_plan = bbm_plan_is_same(target, partition);
	if (partition->same_plan)
		return;
	partition->plan = prepare_job(target, partition, CURSOR_OPT_CUSTOM_PLAN);
	SPI_freeplan(plan);
}

/*
 * Prepares the job for a partition, for the current user.  Needs a transaction, SPI,
 * and the job's search_path.
 */
void
bbm_job_prepare(BbmTarget *target, BbmPartition *partition)
{
	/* the call of a function is the same for each range */
	partition->plan = prepare_job(target, partition, CURSOR_OPT_GENERIC_PLAN);
	if (target->form != BBM_JOB_STATEMENT && target->form != BBM_JOB_COMPOSED)
		return;
	bbm_lockset_add_plan(target, partition->relid, partition->plan);
	choose_plan(target, partition);
}

/* Checks before a batch whether the plan that is the same for each range still is. */
void
bbm_job_revalidate(BbmTarget *target, BbmPartition *partition)
{
	if (partition->same_plan && !bbm_plan_is_current(partition))
		choose_plan(target, partition);
}

/* Prepares a count of the rows of a range (NULL: of all) that a statement would change, like bbm_job_prepare. */
static SPIPlanPtr
prepare_count(BbmTarget *target, BbmPartition *partition, const BbmStatementParts *parts, char *range)
{
	Oid			types[BBM_MAX_JOB_ARGS];
	int			nbounds = bbm_range_bind(target, NULL, 0, NULL, types);

	return prepare(bbm_statement_count(parts, partition->source, target->alias, with_rows(partition, range)),
				   nbounds + 1, types, 0, 0);
}

/* The predicate of a range, or NULL where jobs have none. */
static char *
range_of(BbmTarget *target, BbmPartition *partition)
{
	return has_bounds(target) ? target->strategy->predicate(target, partition, target->alias) : NULL;
}

/*
 * The plan that counts the rows of a range that the job would still change.
 * Needs what bbm_job_prepare needs.
 */
SPIPlanPtr
bbm_job_left_plan(BbmTarget *target, BbmPartition *partition)
{
	const BbmMigration *migration = target->migration;
	BbmStatementParts parts = {.verb = BBM_DELETE, .condition = migration->filter};
	char	   *range = range_of(target, partition);

	if (partition->left_plan)
		return partition->left_plan;
	if (migration->operation)
		bbm_reads_parts(target, &parts);
	if (range == NULL)
		range = psprintf("%s.%s IS NULL", target->alias, quote_identifier(migration->column_name));
	partition->left_plan = prepare_count(target, partition, &parts, range);
	return partition->left_plan;
}

/* The plan that counts the rows of a range that do not meet the check.  Needs what bbm_job_prepare needs. */
SPIPlanPtr
bbm_job_check_plan(BbmTarget *target, BbmPartition *partition)
{
	BbmStatementParts parts = {.verb = BBM_DELETE,
	.condition = psprintf("(%s\n) IS NOT TRUE", target->migration->row_check)};

	if (partition->check_plan == NULL)
		partition->check_plan = prepare_count(target, partition, &parts, range_of(target, partition));
	return partition->check_plan;
}

/* A query for the rows of a range: the table and the ctid of each.  Its parameters are those of bbm_range_bind. */
char *
bbm_job_rows_sql(BbmTarget *target, BbmPartition *partition)
{
	bool		has_key = target->strategy->has_key;

	return psprintf("SELECT %s.tableoid, %s.ctid FROM %s AS %s WHERE %s%s%s", target->alias, target->alias, partition->source,
					target->alias, with_rows(partition, target->strategy->predicate(target, partition, target->alias)),
					has_key ? " ORDER BY " : "", has_key ? bbm_key_list_sql(&target->key, target->alias, true, false) : "");
}

static Datum
block_datum(int64 block, uint16 offset)
{
	ItemPointer tid = palloc(sizeof(ItemPointerData));

	ItemPointerSet(tid, (BlockNumber) block, offset);
	return PointerGetDatum(tid);
}

/*
 * Binds the bounds of a range as parameters, followed by the requested size;
 * without "values", sets only the types.  Returns the number of bounds.
 */
int
bbm_range_bind(const BbmTarget *target, const BbmRange *range, int size, Datum *values, Oid *types)
{
	int			n = target->strategy->has_key ? target->key.n : 1;

	for (int i = 0; i < n; i++)
		types[i] = types[n + i] = target->strategy->has_key ? target->key.columns[i].type : target->column_type;
	types[2 * n] = INT4OID;
	if (values == NULL)
		return 2 * n;
	if (target->strategy->has_key)
		bbm_key_range_values(&target->key, &range->min, &range->max, values, values + n);
	else if (target->column_type == TIDOID)
	{
		values[0] = block_datum(range->min.number, 0);
		values[1] = block_datum(range->max.number, PG_UINT16_MAX);
	}
	else
	{
		values[0] = Int64GetDatum(range->min.number);
		values[1] = Int64GetDatum(range->max.number);
	}
	values[2 * n] = Int32GetDatum(size);
	return 2 * n;
}

/* Binds the parameters of the job for a range of a partition. */
void
bbm_job_bind(const BbmTarget *target, const BbmPartition *partition, const BbmRange *range, int size, Datum *values)
{
	const BbmMigration *migration = target->migration;
	Oid			types[BBM_MAX_JOB_ARGS];

	if (target->form == BBM_JOB_REGISTRY_FUNCTION)
	{
		*values++ = CStringGetTextDatum(target->per_partition ? partition->name : migration->table_name);
		*values++ = CStringGetTextDatum(migration->column_name);
	}
	(void) bbm_range_bind(target, range, size, values, types);
}
