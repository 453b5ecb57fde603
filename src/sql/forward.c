/*-------------------------------------------------------------------------
 *
 * forward.c
 *		Calls about a migration of a distributed table (Citus), on a node that
 *		is not the coordinator.
 *
 * NOTES
 *	  Such a migration is the coordinator's.  A node that has the cluster's
 *	  metadata knows where that is: a call that names a migration which is not
 *	  defined on this node is done there, as the same role.  What is defined
 *	  here comes first.  Without Citus, only a name that does not exist leads
 *	  here.
 *
 *	  The coordinator commits by itself.  So a call that changes something is
 *	  refused in a transaction block, whose ROLLBACK could not undo it.
 *
 *	  One that is defined on a distributed table is the coordinator's, too, and
 *	  defined there, with the search_path and the job_settings of the session
 *	  here.
 *
 *	  Citus passes on only the message of an error there, and nothing of a
 *	  warning.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/forward.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "base/guc.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/shards.h"
#include "sql/arguments.h"
#include "target/relation.h"

PG_FUNCTION_INFO_V1(bbm_elsewhere);

/* Of what the coordinator answers: an error's message begins so. */
#define ERROR_PREFIX "ERROR:"

/*
 * The coordinator, if a migration of that name is not defined here and this is
 * another node of its cluster; else NULL.  Needs SPI.
 */
static char *
elsewhere(const char *name)
{
	return bbm_migration_by_name(name) ? NULL : bbm_citus_coordinator();
}

static void
answer_is_error(const char *coordinator, const char *answer)
{
	const char *message = answer ? answer : "no answer";
	bool		error = strncmp(message, ERROR_PREFIX, strlen(ERROR_PREFIX)) == 0;

	message += error ? strlen(ERROR_PREFIX) : 0;
	message += strspn(message, " ");
	ereport(ERROR,
			(errcode(error ? ERRCODE_EXTERNAL_ROUTINE_EXCEPTION : ERRCODE_CONNECTION_FAILURE),
			 errmsg("%s", message),
			 errdetail("This is the answer of the coordinator, node %s, whose migrations those of distributed tables are.",
					   coordinator),
			 errhint("Call it there for the details.")));
}

/* Runs it there, as the current user; returns the one value, in the current memory context.  Needs SPI. */
static char *
run_there(const char *coordinator, const char *sql)
{
	char	   *answer;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT success, result FROM run_command_on_coordinator(%s)", quote_literal_cstr(sql)));
	if (SPI_processed != 1)
		answer_is_error(coordinator, NULL);
	answer = bbm_cluster_text(0, 2);
	if (!bbm_cluster_bool(0, 1))
		answer_is_error(coordinator, answer);
	return answer;
}

/* The same call, as it is written in SQL. */
static char *
call_text(FunctionCallInfo fcinfo)
{
	BbmArguments arguments = bbm_arguments(fcinfo);
	StringInfoData sql;
	int			level = NewGUCNestLevel();
	bool		first = true;

	/* what every server reads in the same way */
	bbm_guc_set("datestyle", "ISO, YMD", true);
	bbm_guc_set("intervalstyle", "postgres", true);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s.%s(", bbm_catalog()->schema,
					 quote_identifier(get_func_name(fcinfo->flinfo->fn_oid)));
	for (int i = 0; i < arguments.n; i++)
	{
		Oid			output;
		bool		is_varlena;

		if (fcinfo->args[i].isnull)
			continue;
		getTypeOutputInfo(arguments.types[i], &output, &is_varlena);
		appendStringInfo(&sql, "%s%s => %s::%s", first ? "" : ", ", quote_identifier(arguments.names[i]),
						 quote_literal_cstr(OidOutputFunctionCall(output, fcinfo->args[i].value)),
						 format_type_be_qualified(arguments.types[i]));
		first = false;
	}
	appendStringInfoChar(&sql, ')');
	AtEOXact_GUC(false, level);
	return sql.data;
}

static void
refuse_in_block(const char *coordinator, const char *verb, const char *name)
{
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot %s migration \"%s\" in a transaction block on this node", verb, name),
				 errdetail("It is the coordinator's, node %s, which would commit at once what a ROLLBACK here could not undo.",
						   coordinator),
				 errhint("Call it outside of a transaction block, or on the coordinator.")));
}

/*
 * If the migration is the coordinator's, and this is not the coordinator: has
 * it do this call, which changes something, and returns true with the result.
 * Called before anything else is done, without SPI.
 */
bool
bbm_forward(FunctionCallInfo fcinfo, const char *name, Datum *result)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *coordinator;
	char	   *answer;
	Oid			type;
	Oid			input;
	Oid			parameter;

	SPI_connect();
	coordinator = elsewhere(name);
	if (coordinator == NULL)
	{
		SPI_finish();
		return false;
	}
	refuse_in_block(coordinator, "control", name);
	answer = MemoryContextStrdup(caller, run_there(coordinator, call_text(fcinfo)));
	SPI_finish();
	type = get_func_rettype(fcinfo->flinfo->fn_oid);
	*result = (Datum) 0;
	if (type == VOIDOID)
		return true;
	getTypeInputInfo(type, &input, &parameter);
	*result = OidInputFunctionCall(input, answer, parameter, -1);
	return true;
}

/* A list of calls, which make the settings there those that names and values in a text depend on here. */
static char *
set_config_calls(void)
{
	StringInfoData calls;
	Datum	   *entries;
	bool	   *nulls;
	int			n;

	initStringInfo(&calls);
	appendStringInfo(&calls, "pg_catalog.set_config('search_path', %s, true)", quote_literal_cstr(namespace_search_path));
	deconstruct_array(DatumGetArrayTypeP(bbm_session_settings_now()), TEXTOID, -1, false, TYPALIGN_INT,
					  &entries, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(entries[i]);
		char	   *value = strchr(name, '=');

		*value++ = '\0';
		appendStringInfo(&calls, ", pg_catalog.set_config(%s, %s, true)", quote_literal_cstr(name), quote_literal_cstr(value));
	}
	return calls.data;
}

/*
 * If the table is a distributed one, and this is not the coordinator: has it do
 * this call, which defines a migration, and returns true with its id.  The
 * same.
 */
bool
bbm_forward_definition(FunctionCallInfo fcinfo, const char *name, const char *table, int64 *id)
{
	char	   *coordinator;
	char	   *call;

	SPI_connect();
	coordinator = bbm_citus_coordinator();
	if (coordinator == NULL || !bbm_is_distributed(bbm_table_find(table)))
	{
		SPI_finish();
		return false;
	}
	refuse_in_block(coordinator, "define", name);
	/* names and values in its text mean what they mean here; the settings there last as long as the call */
	call = psprintf("WITH path AS MATERIALIZED (SELECT pg_catalog.concat(%s) AS p) %s FROM path WHERE p IS NOT NULL",
					set_config_calls(), call_text(fcinfo));
	*id = pg_strtoint64(run_there(coordinator, call));
	SPI_finish();
	return true;
}

/*
 * Runs a query there that changes nothing, and returns its one value, in the
 * current memory context; NULL if the migration is not the coordinator's, or
 * this is the coordinator.  The same.
 */
char *
bbm_forward_query(const char *name, const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *coordinator;
	char	   *answer = NULL;

	SPI_connect();
	coordinator = elsewhere(name);
	if (coordinator)
		answer = MemoryContextStrdup(caller, run_there(coordinator, sql));
	SPI_finish();
	return answer;
}

/* A pause may be for some nodes alone, of which the coordinator has warned. */
bool
bbm_forward_pause(FunctionCallInfo fcinfo, const char *name, Datum *result)
{
	char	   *unreached;

	if (!bbm_forward(fcinfo, name, result))
		return false;
	unreached = bbm_forward_query(name, psprintf("SELECT coalesce(max(waiting_on), '') FROM %s.bbm_status_detail(%s) "
												 "WHERE status IN ('paused', 'failed')", bbm_catalog()->schema,
												 quote_literal_cstr(name)));
	if (unreached && unreached[0] != '\0')
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("migration \"%s\" is not paused on every node", name),
				 errdetail("It %s.", unreached),
				 errhint("bbm tells them as soon as they answer the coordinator; until then bbm_status() shows which they are.")));
	return true;
}

/*
 * (function text, name text) → what one of our functions that show something
 * of a migration returns on the coordinator, as a jsonb array; NULL if the
 * migration is not the coordinator's, or this is the coordinator.
 */
Datum
bbm_elsewhere(PG_FUNCTION_ARGS)
{
	static const char *const functions[] = {"bbm_status", "bbm_status_detail", "bbm_jobs"};
	char	   *function = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *answer;
	bool		known = false;

	for (int i = 0; i < lengthof(functions); i++)
		known = known || strcmp(function, functions[i]) == 0;
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("function \"%s\" is not one that the coordinator is asked for", function),
				 errdetail("bbm_elsewhere is called by functions of bbm that read."),
				 errhint("Call those.")));
	answer = bbm_forward_query(name, psprintf("SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]') FROM %s.%s(%s) s",
											  bbm_catalog()->schema, function, quote_literal_cstr(name)));
	if (answer == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
}
