/*-------------------------------------------------------------------------
 *
 * job.c
 *		The text of a job: its three forms, checked and prepared.
 *
 *-------------------------------------------------------------------------
 */
#include "target.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/catcache.h"
#include "utils/plancache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "planguard.h"
#include "txn.h"

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

/* Is the job the name of a function, possibly qualified, and nothing else? */
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

static List *
function_name(const char *job)
{
	while (scanner_isspace(*job))
		job++;
	return textToQualifiedNameList(cstring_to_text(job));
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

/* Does a WITH of this query change anything? */
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

/* What the server says of a job's text is about that text, not the query it is in. */
static void
job_error(void *arg)
{
	const char *job = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(job);
	}
	errcontext("job of a migration");
	if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
	{
		errdetail("The job runs as role \"%s\", which owns the migration.", GetUserNameFromId(GetUserId(), false));
		errhint("GRANT it what the job needs.");
	}
	if (geterrcode() == ERRCODE_UNDEFINED_TABLE)
		errhint("Names in the job are looked up with search_path \"%s\".", namespace_search_path);
	if (geterrcode() == ERRCODE_SYNTAX_ERROR)
		errhint("A job is an UPDATE, DELETE, INSERT or MERGE with $1 and $2, or just the name of a function.");
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
 * What the text alone shows: a name, or one statement that changes rows.
 * Raises an error otherwise.  Needs a transaction.
 */
void
bbm_job_check_text(const char *job)
{
	List	   *parsed;
	Node	   *statement;

	if (is_name(job))
	{
		char	   *schema;
		char	   *name;
		CatCList   *functions;
		bool		exists;

		DeconstructQualifiedName(function_name(job), &schema, &name);
		functions = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
		exists = functions->n_members > 0;
		ReleaseSysCacheList(functions);
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

/* A statement over a key must be bounded by its range on both sides. */
static void
check_parameters(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	Bitmapset  *seen = NULL;
	ListCell   *cell;

	foreach(cell, source->query_list)
		collect_parameters((Node *) lfirst(cell), &seen);
	for (int i = 1; i <= 2; i++)
	{
		if (!bms_is_member(i, seen))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_PARAMETER),
					 errmsg("the job's statement does not use $%d", i),
					 errdetail("$1 and $2 are the first and the last key of the batch; without both it would touch the same rows again and again."),
					 errhint("Add \"WHERE key BETWEEN $1 AND $2\" to the statement.")));
	}
}

/* A temporary table is nobody's but this session's. */
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

/* Raises an error when the owner may not do what the statement does. */
static void
check_allowed(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	ListCell   *cell;

	/* none: a rule made several statements of it, which are checked as they run */
	if (cached == NULL)
		return;
	foreach(cell, cached->stmt_list)
	{
		PlannedStmt *stmt = lfirst_node(PlannedStmt, cell);

		if (stmt->commandType == CMD_UTILITY)
			continue;
		check_no_temporary(stmt);
		bbm_check_permissions(stmt);
	}
	ReleaseCachedPlan(cached, CurrentResourceOwner);
}

/* Finds the function a name means, in one of its forms, and writes the call. */
static char *
resolve_function(BbmTarget *target, int *nargs, Oid *types)
{
	Oid			registry[] = {TEXTOID, TEXTOID, target->key_type, target->key_type, INT4OID};
	Oid			range[] = {target->key_type, target->key_type};
	List	   *name = function_name(target->migration->job);
	FuncDetailCode detail;
	Oid			function = InvalidOid;
	Oid			result;
	StringInfoData sql;

	target->form = BBM_JOB_REGISTRY_FUNCTION;
	detail = bbm_func_detail(name, 5, registry, &function, &result);
	if (detail == FUNCDETAIL_NOTFOUND)
	{
		target->form = BBM_JOB_RANGE_FUNCTION;
		detail = bbm_func_detail(name, 2, range, &function, &result);
	}
	if (detail == FUNCDETAIL_MULTIPLE)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_FUNCTION),
				 errmsg("function \"%s\" is not unique", target->migration->job),
				 errdetail("Several take two parameters that %s can be cast to.", format_type_be(target->key_type)),
				 errhint("Name one with parameters of exactly that type.")));
	if (detail != FUNCDETAIL_NORMAL)
		no_such_function(target->migration->job, format_type_be(target->key_type));
	if (!bbm_may_execute(function, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", target->migration->job),
				 errdetail("Role \"%s\" owns the migration and may not execute it.",
						   GetUserNameFromId(GetUserId(), false)),
				 errhint("GRANT EXECUTE ON FUNCTION to it.")));

	*nargs = target->form == BBM_JOB_RANGE_FUNCTION ? 2 : 5;
	memcpy(types, target->form == BBM_JOB_RANGE_FUNCTION ? range : registry, *nargs * sizeof(Oid));
	target->returns_count = result == INT2OID || result == INT4OID || result == INT8OID;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s(",
					 quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
												get_func_name(function)));
	for (int i = 1; i <= *nargs; i++)
		appendStringInfo(&sql, "%s$%d", i > 1 ? ", " : "", i);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/*
 * Prepares the job of a target whose key is resolved, for the current user.
 * Needs a transaction, SPI, and the job's search_path.
 */
void
bbm_job_prepare(BbmTarget *target)
{
	char	   *sql = target->migration->job;
	bool		statement = !is_name(sql);
	int			nargs;
	Oid			types[5];
	SPIPlanPtr	plan;
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = job_error};

	if (statement)
	{
		target->form = BBM_JOB_STATEMENT;
		types[0] = types[1] = target->key_type;
		types[2] = INT4OID;
		/* without ranges, the size is what there is to say */
		nargs = bbm_strategy_is_keyed(target->strategy) ? 2 : 3;
	}
	else
		sql = resolve_function(target, &nargs, types);

	callback.arg = sql;
	error_context_stack = &callback;
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	if (statement && bbm_strategy_is_keyed(target->strategy))
		check_parameters(plan);
	/* kept before planning, so that the plan's reference has a resource owner */
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of \"%s\"", sql);
	target->plan = plan;
	check_allowed(plan);
	bbm_plan_choose(target);
	error_context_stack = callback.previous;
}
