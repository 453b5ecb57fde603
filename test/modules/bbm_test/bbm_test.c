/*-------------------------------------------------------------------------
 *
 * bbm_test.c
 *		Entry points for the tests.
 *
 * A test declares these functions, to reach code that has no SQL function of
 * its own or more than one.  They call what bbm exports (PGDLLEXPORT in its
 * headers), so bbm has to be loaded first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/requests.h"
#include "target/cascade.h"
#include "target/relation.h"
#include "target/statement.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bbm_test_statement);
PG_FUNCTION_INFO_V1(bbm_test_condition);
PG_FUNCTION_INFO_V1(bbm_test_cascades);
PG_FUNCTION_INFO_V1(bbm_test_call_past_leaving);
PG_FUNCTION_INFO_V1(bbm_test_requests);
PG_FUNCTION_INFO_V1(bbm_test_has_access_hook);

static char *
text_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/*
 * (regclass, set text, "filter" text, range text, returning boolean, key smallint[],
 * allow_key_change boolean) → the checked UPDATE, or DELETE without a set.
 */
Datum
bbm_test_statement(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	BbmStatementParts parts = {
		.verb = PG_ARGISNULL(1) ? BBM_DELETE : BBM_UPDATE,
		.set = text_or_null(fcinfo, 1),
		.condition = text_or_null(fcinfo, 2)
	};
	ArrayType  *key = PG_GETARG_ARRAYTYPE_P(5);

	bbm_statement_check(relid, &parts, (AttrNumber *) ARR_DATA_PTR(key),
						ArrayGetNItems(ARR_NDIM(key), ARR_DIMS(key)), PG_GETARG_BOOL(6));
	PG_RETURN_TEXT_P(cstring_to_text(bbm_statement_compose(&parts, bbm_table_sql_name(relid),
														   quote_identifier(get_rel_name(relid)),
														   text_or_null(fcinfo, 3),
														   PG_GETARG_BOOL(4) ? parts.condition : NULL)));
}

/* (regclass, condition text, what text, range text) → the SELECT that counts. */
Datum
bbm_test_condition(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	BbmStatementParts parts = {.verb = BBM_DELETE, .condition = text_to_cstring(PG_GETARG_TEXT_PP(1))};

	bbm_statement_check_condition(relid, parts.condition, text_to_cstring(PG_GETARG_TEXT_PP(2)));
	PG_RETURN_TEXT_P(cstring_to_text(bbm_statement_count(&parts, bbm_table_sql_name(relid),
														 quote_identifier(get_rel_name(relid)),
														 text_or_null(fcinfo, 3))));
}

/* (regclass) → what bbm_delete reports about foreign keys. */
Datum
bbm_test_cascades(PG_FUNCTION_ARGS)
{
	char	   *text = bbm_statement_cascades(PG_GETARG_OID(0));

	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

/*
 * (wanted integer): simulates that a worker of the caller's has polled and
 * found nothing, another one requests that many workers, and only then the
 * first reports that it exits.
 */
Datum
bbm_test_call_past_leaving(PG_FUNCTION_ARGS)
{
	uint64		generation = bbm_request_generation(MyDatabaseId, GetUserId());

	bbm_request_workers(MyDatabaseId, GetUserId(), PG_GETARG_INT32(0));
	bbm_request_fulfil(MyDatabaseId, GetUserId(), generation, DT_NOEND, false);
	PG_RETURN_VOID();
}

/*
 * (n integer, due timestamptz): requests of so many other owners, who do not exist,
 * that are due then.
 */
Datum
bbm_test_requests(PG_FUNCTION_ARGS)
{
	for (int i = 0; i < PG_GETARG_INT32(0); i++)
	{
		Oid			owner = 4000000000U + i;
		uint64		generation = bbm_request_generation(MyDatabaseId, owner);

		bbm_request_fulfil(MyDatabaseId, owner, generation, PG_GETARG_TIMESTAMPTZ(1), false);
	}
	PG_RETURN_VOID();
}

/* () → boolean: is there an object_access_hook, which the server has to take into account? */
Datum
bbm_test_has_access_hook(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(object_access_hook != NULL);
}
