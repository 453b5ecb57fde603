/*-------------------------------------------------------------------------
 *
 * arguments.c
 *		The arguments of a call, by the names of the function's parameters, and
 *		a result that is a row.
 *
 * NOTES
 *	  The names are those of pg_proc, so that the order of the parameters in
 *	  the install script is nobody's concern, and a parameter that is named
 *	  like an option is read by catalog/options.c.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/arguments.h"

#include "access/htup_details.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

BbmArguments
bbm_arguments(FunctionCallInfo fcinfo)
{
	BbmArguments arguments = {.fcinfo = fcinfo};
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	Form_pg_proc function;
	char	   *modes;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	function = (Form_pg_proc) GETSTRUCT(tuple);
	arguments.n = get_func_arg_info(tuple, &arguments.types, &arguments.names, &modes);
	arguments.required = function->pronargs - function->pronargdefaults;
	ReleaseSysCache(tuple);
	return arguments;
}

/* -1 when it is NULL, or no parameter. */
static int
find(const BbmArguments *arguments, const char *name, Oid type)
{
	for (int i = 0; i < arguments->n; i++)
	{
		if (strcmp(arguments->names[i], name) == 0 && arguments->types[i] == type)
			return arguments->fcinfo->args[i].isnull ? -1 : i;
	}
	return -1;
}

bool
bbm_argument_is_true(const BbmArguments *arguments, const char *name)
{
	int			i = find(arguments, name, BOOLOID);

	return i >= 0 && DatumGetBool(arguments->fcinfo->args[i].value);
}

/* NULL when NULL. */
char *
bbm_argument_text(const BbmArguments *arguments, const char *name)
{
	int			i = find(arguments, name, TEXTOID);

	return i >= 0 ? TextDatumGetCString(arguments->fcinfo->args[i].value) : NULL;
}

/*
 * Reads those that are options of a migration, and checks each by itself.
 * NULL is as good as none; with "all", those that are required must be there.
 */
void
bbm_arguments_read(const BbmArguments *arguments, bool all, BbmDefinition *d)
{
	for (int i = 0; i < arguments->n; i++)
	{
		const BbmOption *option = bbm_option_of_parameter(arguments->names[i]);
		NullableDatum argument = arguments->fcinfo->args[i];
		Oid			type = arguments->types[i];

		if (option == NULL)
			continue;
		if (all && (option->flags & BBM_REQUIRED) == BBM_REQUIRED)
			bbm_argument_require(!argument.isnull, arguments->names[i], i >= arguments->required);
		if (argument.isnull)
			continue;
		/* a literal is an integer, so no parameter is a smallint */
		if (type != option->type && !(type == INT4OID && option->type == INT2OID))
			elog(ERROR, "parameter \"%s\" of function %u has type %u", arguments->names[i],
				 arguments->fcinfo->flinfo->fn_oid, type);
		bbm_option_check(option, argument.value, type);
		bbm_definition_set(d, option->column, type == option->type ? argument.value :
						   Int16GetDatum((int16) DatumGetInt32(argument.value)));
	}
}

/* Raises an error unless the parameter is given. */
void
bbm_argument_require(bool given, const char *name, bool has_default)
{
	if (!given)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errdetail("A migration needs it."),
				 has_default ? errhint("Leave it out for its default.") : errhint("Give a value; it has no default.")));
}

/* The row that a function returns which is declared with so many OUT parameters. */
Datum
bbm_result_row(FunctionCallInfo fcinfo, int n, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record"),
				 errdetail("It returns several columns."),
				 errhint("Call it in FROM.")));
	if (desc->natts != n)
		elog(ERROR, "function %u is not declared as it should be", fcinfo->flinfo->fn_oid);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
