/*-------------------------------------------------------------------------
 *
 * plan_guard.c
 *		Refusing a batch that would read the whole table.
 *
 * NOTES
 *	  A batch must cost only what its rows cost.  If no index can serve its
 *	  condition, each of thousands of batches reads the whole table, and nobody
 *	  notices until the server is busy with nothing else.  So while a job runs,
 *	  each statement's plan is checked when its execution is about to begin:
 *	  the actual plan, custom or generic, whether of the job's own statement or
 *	  of one inside its function, or in a trigger.  A statement that writes a
 *	  distributed table is refused there as well.
 *
 *	  A plan that was made when the table was small must not be executed when
 *	  the table has grown.  So a statement is planned for each range, except in
 *	  the most common case, in which all ranges have the same plan, whatever
 *	  the table's size: see bbm_plan_is_same.  A plan that the job's function
 *	  keeps is refused when it is too old, and ANALYZE voids it.
 *
 *-------------------------------------------------------------------------
 */
#include "target/plan_guard.h"

#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/plancat.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "tcop/dest.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/next_hook.h"
#include "base/spi.h"
#include "base/txn.h"
#include "target/lockset.h"
#include "target/order.h"
#include "target/relation.h"
#include "target/target.h"

/* The planner may choose to read all of a smaller table: that takes a few milliseconds. */
#define BBM_GUARD_PAGES 1000
/* ... and so may a batch of at least this fraction of its rows read any table. */
#define BBM_GUARD_SHARE 0.1

/* The target whose table is guarded now in this process (NULL: none), and the number of keys of its batch. */
static BbmTarget *guarded = NULL;
static const BbmTarget *in_batch = NULL;	/* also for a batch that is not guarded */
static Oid	guarded_partition;
static int64 guarded_keys;

static ExecutorStart_hook_type previous_start = NULL;

/* Is the range table entry the guarded table, or one of its partitions or child tables? */
static bool
is_guarded(const PlanState *state, Index rti)
{
	PlannedStmt *stmt = state->state->es_plannedstmt;
	bool		switched = true;

	while (switched)
	{
		ListCell   *cell;

		Oid			relid = rt_fetch(rti, stmt->rtable)->relid;

		if (relid == guarded->relid || relid == guarded_partition)
			return true;
		switched = false;
		foreach(cell, stmt->appendRelations)
		{
			AppendRelInfo *child = lfirst(cell);

			if (child->child_relid == rti)
			{
				rti = child->parent_relid;
				switched = true;
				break;
			}
		}
	}
	return false;
}

/* Is the relation so large that a batch of guarded_keys keys must not read all of it? */
static bool
is_too_much(Relation rel)
{
	BlockNumber pages;
	double		tuples;
	double		visible;

	if (RelationGetNumberOfBlocks(rel) < BBM_GUARD_PAGES)
		return false;
	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	return guarded_keys < tuples * BBM_GUARD_SHARE;
}

/* Does the index scan read a whole index?  A partial index may be read from end to end. */
static bool
is_whole_index(List *condition, Relation index)
{
	return condition == NIL && index && RelationGetIndexPredicate(index) == NIL;
}

/*
 * A planstate_tree_walker: stops at the first node that reads all of the
 * guarded table, and returns its relation in *found.  Nodes below a LIMIT are
 * assumed to stop early.
 */
static bool
find_full_scan(PlanState *state, void *found)
{
	bool		full = false;

	if (IsA(state, LimitState))
		return false;
	if (IsA(state, SeqScanState))
		full = true;
	else if (IsA(state, IndexScanState))
		full = is_whole_index(((IndexScan *) state->plan)->indexqual, ((IndexScanState *) state)->iss_RelationDesc);
	else if (IsA(state, IndexOnlyScanState))
		full = is_whole_index(((IndexOnlyScan *) state->plan)->indexqual,
							  ((IndexOnlyScanState *) state)->ioss_RelationDesc);

	if (full && is_guarded(state, ((Scan *) state->plan)->scanrelid) &&
		is_too_much(((ScanState *) state)->ss_currentRelation))
	{
		*(Relation *) found = ((ScanState *) state)->ss_currentRelation;
		return true;
	}
	return planstate_tree_walker(state, find_full_scan, found);
}

/* The output of EXPLAIN for an initialized execution. */
static char *
explain(QueryDesc *query)
{
	ExplainState *state = NewExplainState();

	state->costs = true;
	ExplainPrintPlan(state, query);
	while (state->str->len > 0 && state->str->data[state->str->len - 1] == '\n')
		state->str->data[--state->str->len] = '\0';
	return state->str->data;
}

pg_noreturn static void
refuse(QueryDesc *query, Relation rel)
{
	bbm_failing_code = BBM_CODE_SIGNATURE;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("the batch would read all of table \"%s\"", RelationGetRelationName(rel)),
			 errdetail("It is about " INT64_FORMAT " rows, and its plan is:\n%s", guarded_keys, explain(query)),
			 errhint("Create an index that its condition can use, or ANALYZE the table. If it is meant to be so, set allow_full_scan of the migration.")));
}

static void
guarded_start(QueryDesc *query, int eflags)
{
	Relation	found = NULL;

	if (in_batch)
		bbm_check_plan_writes_here(query->plannedstmt, in_batch->shard != NULL);
	bbm_next_start(previous_start, query, eflags);
	bbm_lockset_note(query->plannedstmt);
	if (guarded && !(eflags & EXEC_FLAG_EXPLAIN_ONLY) && find_full_scan(query->planstate, &found))
		refuse(query, found);
}

/* Installs the hook; called once per process, from _PG_init. */
void
bbm_plan_guard_install(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = guarded_start;
}

/* What finds the rows that an UPDATE or a DELETE changes, which has nothing else to do; else NULL. */
static Plan *
plan_of_rows(const PlannedStmt *stmt)
{
	if (!IsA(stmt->planTree, ModifyTable) || (stmt->commandType != CMD_UPDATE && stmt->commandType != CMD_DELETE) ||
		stmt->subplans != NIL)
		return NULL;
	return outerPlan(stmt->planTree);
}

/* Does the statement only change the rows between two bounds, of the target's index or of blocks? */
static bool
is_plain(const BbmPartition *partition, const PlannedStmt *stmt)
{
	IndexScan  *scan = (IndexScan *) plan_of_rows(stmt);

	if (scan && list_length(((ModifyTable *) stmt->planTree)->resultRelations) != 1)
		return false;
	if (scan && IsA(scan, TidRangeScan))
		return true;
	return scan && IsA(scan, IndexScan) && scan->indexid == partition->index && list_length(scan->indexqual) >= 2;
}

/* The same for all partitions of the target, each with an index scan? */
static bool
is_plain_hierarchy(const PlannedStmt *stmt)
{
	Plan	   *below = plan_of_rows(stmt);
	ListCell   *cell;

	if (below && IsA(below, Result))
		below = outerPlan(below);
	if (below == NULL || !IsA(below, Append))
		return false;
	foreach(cell, ((Append *) below)->appendplans)
	{
		if (!IsA(lfirst(cell), IndexScan) || list_length(((IndexScan *) lfirst(cell))->indexqual) < 2)
			return false;
	}
	return true;
}

/*
 * Is the generic plan of the job, which is a statement, so simple that it is
 * the same for each range?  To plan each range would cost as much as a small
 * batch, and the server would do so, since it estimates half a percent of the
 * table for an unknown range.  Needs what executing the statement needs.
 */
bool
bbm_plan_is_same(const BbmTarget *target, const BbmPartition *partition)
{
	CachedPlan *plan = bbm_spi_cached_plan(partition->plan);
	PlannedStmt *stmt;
	bool		same = false;

	if (plan == NULL)
		return false;
	/* a rule may have rewritten the statement: to several, to none, or to a NOTIFY, which has no plan */
	stmt = list_length(plan->stmt_list) == 1 ? linitial_node(PlannedStmt, plan->stmt_list) : NULL;
	/* if the key determines the partition, a plan made for one range leaves out the other partitions */
	if (stmt && stmt->commandType != CMD_UTILITY)
		same = partition->as_one_table ? is_plain_hierarchy(stmt) && !bbm_order_key_leads(target) :
			is_plain(partition, stmt);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	return same;
}

/* Is the generic plan still the one that bbm_plan_is_same has seen?  ANALYZE, for one, voids it. */
bool
bbm_plan_is_current(const BbmPartition *partition)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(partition->plan));

	return source->is_valid && source->gplan && source->gplan->is_valid;
}

/*
 * Executes the target's job under the guard, for a batch of that many keys.
 * Needs a transaction, SPI, a snapshot and the settings of the job; returns
 * the result of SPI_execute_plan.
 */
int
bbm_plan_execute(BbmTarget *target, BbmPartition *partition, Datum *values, int64 keys)
{
	BbmTarget  *outer = guarded;
	const BbmTarget *outer_batch = in_batch;
	Oid			outer_partition = guarded_partition;
	int64		outer_keys = guarded_keys;
	int			result;

	guarded = target->migration->allow_full_scan ? NULL : target;
	guarded_partition = partition->relid;
	guarded_keys = keys;
	in_batch = target;
	PG_TRY();
	{
		result = bbm_spi_execute_plan(partition->plan, values, NULL, false, 0);
	}
	PG_FINALLY();
	{
		guarded = outer;
		in_batch = outer_batch;
		guarded_partition = outer_partition;
		guarded_keys = outer_keys;
	}
	PG_END_TRY();
	return result;
}

/* What the server says does not say when, or what to do. */
static void
start_error(void *arg)
{
	if (geterrcode() != ERRCODE_FEATURE_NOT_SUPPORTED && geterrcode() != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		return;
	errdetail("The server does not begin to execute such a statement.");
	if (geterrcode() == ERRCODE_FEATURE_NOT_SUPPORTED)
		errhint("Name a table that can be written.");
}

/*
 * Raises the errors that the server raises when the execution of the statement
 * begins: for functions that the owner may not execute, a table that is
 * published and has no replica identity, a foreign table that cannot be
 * written.  Nothing is executed, so no hook must see it.
 */
void
bbm_plan_check_start(PlannedStmt *stmt, const char *sql, int nargs, const Oid *types)
{
	ExecutorCheckPerms_hook_type hook = ExecutorCheckPerms_hook;
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = start_error};
	ParamListInfo params = makeParamList(nargs);
	QueryDesc  *query;

	/* a plan that another extension has made does what that likes when it begins */
	if (IsA(stmt->planTree, CustomScan))
		return;
	for (int i = 0; i < nargs; i++)
		params->params[i] = (ParamExternData) {.isnull = true, .ptype = types[i]};
	PushActiveSnapshot(GetTransactionSnapshot());
	stmt = bbm_generic_statement(stmt);
	query = CreateQueryDesc(stmt, sql, GetActiveSnapshot(), InvalidSnapshot, None_Receiver, params, NULL, 0);
	error_context_stack = &callback;
	ExecutorCheckPerms_hook = NULL;
	PG_TRY();
	{
		standard_ExecutorStart(query, EXEC_FLAG_EXPLAIN_ONLY | EXEC_FLAG_EXPLAIN_GENERIC);
	}
	PG_FINALLY();
	{
		ExecutorCheckPerms_hook = hook;
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	standard_ExecutorEnd(query);
	FreeQueryDesc(query);
	PopActiveSnapshot();
}
