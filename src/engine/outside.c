/*-------------------------------------------------------------------------
 *
 * outside.c
 *		Does a batch reach outside of this server?
 *
 * NOTES
 *	  Batches commit asynchronously, since a crash that loses a batch loses its
 *	  record with it, and the batch is executed again.  What the batch did on
 *	  another server, or in a file, is not lost with it, and would be done
 *	  twice.  So this file monitors a batch while it runs for anything that may
 *	  do such a thing, and the commit of a batch that did is flushed.
 *
 *	  It detects, at any depth of functions and triggers: a plan that has a
 *	  foreign table or a custom scan; a row that is written to a foreign table
 *	  (routed to a partition, for example) or where the access method of the
 *	  table or an index is not known; a command that is not known to stay in
 *	  this server; and the look-up of a function that is not known to: one in C
 *	  or in an untrusted language.  A function that is declared IMMUTABLE has
 *	  no effects, and most functions that types and indexes consist of are;
 *	  other functions in C are known by their library.
 *
 *	  What may reach outside is assumed to have done so, even if it is in a
 *	  branch that was not taken or was undone with a savepoint: an unnecessary
 *	  flush costs a little, a missing one repeats a batch on the other side.
 *
 *	  Only the process of a batch pays for this: in all others the hooks do
 *	  nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/outside.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "tcop/cmdtag.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/next_hook.h"
#include "base/point.h"

/* How a batch has reached outside. */
typedef enum Way
{
	NO_WAY,
	BY_TABLE,					/* a foreign table */
	BY_SCAN,					/* a custom scan */
	BY_ACCESS_METHOD,			/* of a table or an index that was written */
	BY_FUNCTION,
	BY_COMMAND
} Way;

static bool watching = false;

/* The first that was detected. */
static Way	way = NO_WAY;
static Oid	object;				/* the table, function or the access method's handler */
static const char *name;		/* of the scan or command; the server's string */

static ExecutorStart_hook_type previous_start = NULL;
static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;
static needs_fmgr_hook_type previous_needs = NULL;
static fmgr_hook_type previous_call = NULL;

/*
 * Libraries whose functions have no effect outside of the server's own
 * transaction: those of the server's distribution, and some that are widely
 * installed.
 */
static const char *const local_libraries[] = {
	"_int", "amcheck", "autoinc", "bbm", "bloom", "btree_gin", "btree_gist", "citext", "cube", "dict_int",
	"dict_snowball", "dict_xsyn", "earthdistance", "fuzzystrmatch", "hll", "hstore", "insert_username", "ip4r", "isn",
	"lo", "ltree", "moddatetime", "pageinspect", "pg_trgm", "pgcrypto", "pgrowlocks", "pgstattuple", "plpgsql",
	"postgis-3", "refint", "seg", "tablefunc", "tsm_system_rows", "tsm_system_time", "unaccent", "uuid-ossp", "vector"
};

static bool
is_watched(void)
{
	return watching && way == NO_WAY;
}

static void
reaches(Way by, Oid what, const char *called)
{
	way = by;
	object = what;
	name = called;
}

/* ----------------------------------------------------------------
 * Functions
 * ----------------------------------------------------------------
 */

/* What is known about a function. */
typedef struct Verdict
{
	Oid			function;		/* hash key */
	bool		stays;
} Verdict;

static HTAB *verdicts = NULL;
static bool verdicts_are_old = false;	/* a function or language has changed */

static void
forget_verdicts(Datum arg, int cacheid, uint32 hash)
{
	verdicts_are_old = true;
}

/* Is it a library of the list, in the directory where the server searches for libraries first? */
static bool
is_local_library(const char *path)
{
	const size_t prefix = strlen("$libdir/");
	const size_t suffix = strlen(DLSUFFIX);
	size_t		length;

	if (strncmp(path, "$libdir/", prefix) == 0)
		path += prefix;
	length = strlen(path);
	if (length > suffix && strcmp(path + length - suffix, DLSUFFIX) == 0)
		length -= suffix;
	for (int i = 0; i < lengthof(local_libraries); i++)
	{
		if (strlen(local_libraries[i]) == length && strncmp(local_libraries[i], path, length) == 0)
			return true;
	}
	return false;
}

static bool
is_trusted_language(Oid language)
{
	HeapTuple	tuple = SearchSysCache1(LANGOID, ObjectIdGetDatum(language));
	bool		trusted = HeapTupleIsValid(tuple) && ((Form_pg_language) GETSTRUCT(tuple))->lanpltrusted;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return trusted;
}

/*
 * The statements that a function executes are detected separately.  What else
 * can the function do, judging by its language and its declaration?
 */
static bool
judge(HeapTuple tuple)
{
	Form_pg_proc function = (Form_pg_proc) GETSTRUCT(tuple);
	bool		isnull;
	Datum		library;

	if (function->provolatile == PROVOLATILE_IMMUTABLE)
		return true;
	switch (function->prolang)
	{
		case SQLlanguageId:
			return true;
		case INTERNALlanguageId:
			/* the built-in functions that matter are reported when they are executed */
			return function->oid < FirstUnpinnedObjectId;
		case ClanguageId:
			library = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);
			if (isnull)
				return false;
			return is_local_library(TextDatumGetCString(library));
		default:
			return is_trusted_language(function->prolang);
	}
}

/* Needs a transaction, unless the function was met before. */
static bool
stays_here(Oid function)
{
	Verdict    *verdict;
	HeapTuple	tuple;
	bool		stays;

	if (verdicts_are_old)
	{
		hash_destroy(verdicts);
		verdicts = NULL;
		verdicts_are_old = false;
	}
	if (verdicts == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(Verdict), .hcxt = TopMemoryContext};

		verdicts = hash_create("bbm functions", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	verdict = hash_search(verdicts, &function, HASH_FIND, NULL);
	if (verdict)
		return verdict->stays;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	/* dropped: its call fails */
	if (!HeapTupleIsValid(tuple))
		return true;
	BBM_POINT("function_found");
	stays = judge(tuple);
	ReleaseSysCache(tuple);
	/* changed during the look-up: its language's handler may well run what it is now */
	if (verdicts_are_old)
		return false;
	verdict = hash_search(verdicts, &function, HASH_ENTER, NULL);
	verdict->stays = stays;
	return stays;
}

static void
note_function(Oid function)
{
	if (!stays_here(function))
		reaches(BY_FUNCTION, function, NULL);
}

/*
 * For each function that is not built in and that the server looks up to call
 * it, the server asks whether somebody wants to know about its calls.  The
 * look-up is all that we want to know.
 */
static bool
needs_hook(Oid function)
{
	if (is_watched())
		note_function(function);
	return previous_needs && previous_needs(function);
}

/* The server does not ask for functions with settings or rights of their own, but reports their calls. */
static void
call(FmgrHookEventType event, FmgrInfo *info, Datum *private)
{
	if (event == FHET_START && is_watched())
		note_function(info->fn_oid);
	if (previous_call)
		previous_call(event, info, private);
}

static void access_object(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg);

static BbmAccessHook access_hook = {access_object};

/* The server reports built-in functions when a statement that contains them begins. */
static void
access_object(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	/* listeners are notified right after the commit; a large object is written to a file */
	if (access == OAT_FUNCTION_EXECUTE && is_watched() && (object_id == F_PG_NOTIFY || object_id == F_LO_EXPORT))
		reaches(BY_FUNCTION, object_id, NULL);
	if (access_hook.previous)
		access_hook.previous(access, class_id, object_id, sub_id, arg);
}

/* ----------------------------------------------------------------
 * Statements
 * ----------------------------------------------------------------
 */

/* A planstate_tree_walker: stops at the first custom scan. */
static bool
find_custom_scan(PlanState *state, void *arg)
{
	if (IsA(state, CustomScanState))
	{
		reaches(BY_SCAN, InvalidOid, ((CustomScanState *) state)->methods->CustomName);
		return true;
	}
	return planstate_tree_walker(state, find_custom_scan, arg);
}

/* Foreign tables are in the range table, including those that a view or a join on the other server hides. */
static void
note_plan(QueryDesc *query)
{
	ListCell   *cell;

	foreach(cell, query->plannedstmt->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_FOREIGN_TABLE)
		{
			reaches(BY_TABLE, rte->relid, NULL);
			return;
		}
	}
	if (query->planstate)
		(void) find_custom_scan(query->planstate, NULL);
}

/*
 * Is the function known to stay here, without a look-up?  After an error there must
 * be none: the transaction may hold a lock under which no other may be taken.
 */
static bool
is_known_to_stay(Oid function)
{
	const Verdict *verdict;

	/* the server's own */
	if (function < FirstGenbkiObjectId)
		return true;
	if (verdicts == NULL || verdicts_are_old)
		return false;
	verdict = hash_search(verdicts, &function, HASH_FIND, NULL);
	return verdict && verdict->stays;
}

static void
note_access_method(Relation rel, bool failed)
{
	if (!OidIsValid(rel->rd_amhandler) || !is_watched() || is_known_to_stay(rel->rd_amhandler))
		return;
	if (failed || !stays_here(rel->rd_amhandler))
		reaches(BY_ACCESS_METHOD, RelationGetRelid(rel), NULL);
}

static void
note_written(const List *results, bool failed)
{
	const ListCell *cell;

	foreach(cell, results)
	{
		const ResultRelInfo *result = lfirst(cell);
		Relation	rel = result->ri_RelationDesc;

		if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			reaches(BY_TABLE, RelationGetRelid(rel), NULL);
		note_access_method(rel, failed);
		for (int i = 0; i < result->ri_NumIndices; i++)
		{
			if (result->ri_IndexRelationDescs[i])
				note_access_method(result->ri_IndexRelationDescs[i], failed);
		}
		if (!is_watched())
			return;
	}
}

/*
 * By now it is known which tables were written, including partitions that rows
 * were routed to, and so are their indexes.  This runs after an error as well:
 * the batch may go on, and not every server undoes what it did since a
 * savepoint.
 */
static void
note_results(const EState *estate, bool failed)
{
	if (is_watched())
		note_written(estate->es_opened_result_relations, failed);
	if (is_watched())
		note_written(estate->es_tuple_routing_result_relations, failed);
}

static bool
writes(const QueryDesc *query)
{
	return bbm_result_relations(query->plannedstmt) != NULL;
}

static void
start(QueryDesc *query, int eflags)
{
	bbm_next_start(previous_start, query, eflags);
	if (is_watched())
		note_plan(query);
}

static void
run(BBM_RUN_PARAMETERS)
{
	if (!is_watched() || !writes(query))
	{
		bbm_next_run(previous_run, BBM_RUN_ARGUMENTS);
		return;
	}
	PG_TRY();
	{
		bbm_next_run(previous_run, BBM_RUN_ARGUMENTS);
	}
	PG_CATCH();
	{
		note_results(query->estate, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	note_results(query->estate, false);
}

/* What a WITH writes that the statement has not read to its end is written here. */
static void
finish(QueryDesc *query)
{
	if (!is_watched() || !writes(query))
	{
		bbm_next_finish(previous_finish, query);
		return;
	}
	PG_TRY();
	{
		bbm_next_finish(previous_finish, query);
	}
	PG_CATCH();
	{
		note_results(query->estate, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	note_results(query->estate, false);
}

/* ----------------------------------------------------------------
 * Commands
 * ----------------------------------------------------------------
 */

/*
 * Commands that a batch may well consist of, and that do nothing outside
 * except through the statements and functions in them, which are detected.
 * Other commands are rare in a batch, and many of them flush anyway.
 */
static bool
command_stays_here(Node *command)
{
	switch (nodeTag(command))
	{
		case T_CallStmt:
		case T_ClosePortalStmt:
		case T_ConstraintsSetStmt:
		case T_DeallocateStmt:
		case T_DeclareCursorStmt:
		case T_DiscardStmt:
		case T_DoStmt:
		case T_DropStmt:
		case T_ExecuteStmt:
		case T_ExplainStmt:
		case T_FetchStmt:
		case T_LockStmt:
		case T_PrepareStmt:
		case T_TransactionStmt:
		case T_VariableSetStmt:
		case T_VariableShowStmt:
			return true;
		case T_CreateStmt:
			return ((CreateStmt *) command)->relation->relpersistence == RELPERSISTENCE_TEMP;
		case T_CreateTableAsStmt:
			return ((CreateTableAsStmt *) command)->into->rel->relpersistence == RELPERSISTENCE_TEMP;
		default:
			return false;
	}
}

static void
utility(BBM_UTILITY_PARAMETERS)
{
	if (is_watched() && !command_stays_here(pstmt->utilityStmt))
		reaches(BY_COMMAND, InvalidOid, GetCommandTagName(CreateCommandTag(pstmt->utilityStmt)));
	bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
}

/* ----------------------------------------------------------------
 * A batch
 * ----------------------------------------------------------------
 */

void
bbm_outside_begin(void)
{
	watching = true;
	way = NO_WAY;
	bbm_access_hook_begin(&access_hook);
}

bool
bbm_outside_end(void)
{
	watching = false;
	return way != NO_WAY;
}

static char *
table_to_string(const char *format)
{
	char	   *table = get_rel_name(object);

	/* another transaction has dropped it at this moment */
	return psprintf(format, table ? table : "?");
}

char *
bbm_outside_to_string(void)
{
	switch (way)
	{
		case BY_TABLE:
			return table_to_string(_("foreign table \"%s\""));
		case BY_ACCESS_METHOD:
			return table_to_string(_("the access method of \"%s\""));
		case BY_SCAN:
			return psprintf(_("custom scan \"%s\""), name);
		case BY_FUNCTION:
			return psprintf(_("function %s"), format_procedure(object));
		case BY_COMMAND:
			return psprintf(_("command %s"), name);
		case NO_WAY:
			break;
	}
	return pstrdup(_("nothing"));
}

/* A batch that fails does not reach bbm_outside_end. */
static void
end_with_transaction(XactEvent event, void *arg)
{
	watching = false;
	bbm_access_hook_end(&access_hook);
}

/* Called once per process, from _PG_init. */
void
bbm_outside_install(void)
{
	RegisterXactCallback(end_with_transaction, NULL);
	CacheRegisterSyscacheCallback(PROCOID, forget_verdicts, (Datum) 0);
	CacheRegisterSyscacheCallback(LANGOID, forget_verdicts, (Datum) 0);
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	previous_needs = needs_fmgr_hook;
	needs_fmgr_hook = needs_hook;
	previous_call = fmgr_hook;
	fmgr_hook = call;
}
