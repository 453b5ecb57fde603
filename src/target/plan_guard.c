/*-------------------------------------------------------------------------
 *
 * plan_guard.c
 *		Refusing a batch that would read the whole table.
 *
 * NOTES
 *	  A batch is to cost what its rows cost.  One whose condition no index can
 *	  answer reads the whole table for each of its thousands of batches, and
 *	  nobody notices until the server is busy with nothing else.  So while a
 *	  job runs, each statement's plan is looked at when its execution is about
 *	  to begin: the very plan it would run with, custom or generic, be it the
 *	  job's own statement or one inside its function, a trigger's included.  One
 *	  that writes a distributed table is refused there as well.
 *
 *	  Plans are kept.  Which kind of plan is left to the server, which for a
 *	  batch of a large table plans for each range anew, save in the commonest
 *	  case, where that comes to the same each time: see bbm_plan_choose.  A plan
 *	  that was made when the table was small may still be there when it has
 *	  grown and before it is analyzed; so at first all plans are made anew and
 *	  the batch is tried again.
 *
 *-------------------------------------------------------------------------
 */
#include "target/plan_guard.h"

#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/plancat.h"
#include "parser/parsetree.h"
#include "storage/bufmgr.h"
#include "utils/plancache.h"
#include "utils/rel.h"

#include "base/bbm.h"
#include "base/spi.h"
#include "base/txn.h"
#include "target/lockset.h"
#include "target/order.h"
#include "target/relation.h"
#include "target/target.h"

/* A smaller table may be read whenever the planner likes: it takes a few milliseconds. */
#define BBM_GUARD_PAGES 1000
/* ... and so may any by a batch of this share of its rows. */
#define BBM_GUARD_SHARE 0.1

/* Whose table is guarded now, in this process, and for a batch of how many keys; NULL none. */
static BbmTarget *guarded = NULL;
static bool in_batch = false;	/* guarded or not */
static Oid	guarded_partition;
static int64 guarded_keys;

static ExecutorStart_hook_type previous_start = NULL;

/* Is the range table entry the guarded table, or a partition or child of it? */
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

/* Is the relation so large that a batch of this many keys must not read all of it? */
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

/* An index of only some rows may be read from end to end. */
static bool
is_whole_index(List *condition, Relation index)
{
	return condition == NIL && index && RelationGetIndexPredicate(index) == NIL;
}

/*
 * A planstate_tree_walker: stops at the first node that reads all of the
 * guarded table, and leaves its relation in *found.  What is below a LIMIT
 * stops early, as far as anybody can tell.
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

/* What EXPLAIN would say of an execution that has been set up. */
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

static CachedPlanSource *
plan_source(const BbmPartition *partition)
{
	return linitial(SPI_plan_get_plan_sources(partition->plan));
}

static void
refuse(QueryDesc *query, Relation rel)
{
	if (!guarded->planned_anew)
	{
		guarded->planned_anew = true;
		plan_source(guarded->partition)->cursor_options &= ~CURSOR_OPT_GENERIC_PLAN;
		ResetPlanCache();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the plan of the batch would read all of table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It may have been made when the table was smaller, and is made anew.")));
	}
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
		bbm_check_plan_writes_here(query->plannedstmt);
	if (previous_start)
		previous_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	bbm_lockset_note(query->plannedstmt);
	if (guarded && !(eflags & EXEC_FLAG_EXPLAIN_ONLY) && find_full_scan(query->planstate, &found))
		refuse(query, found);
}

/* Hooks the guard in; once a process, from _PG_init. */
void
bbm_plan_guard_install(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = guarded_start;
}

/* Does it change the rows of a scan of the target's index between two bounds, and nothing else? */
static bool
is_plain(const BbmPartition *partition, const PlannedStmt *stmt)
{
	ModifyTable *modify = (ModifyTable *) stmt->planTree;
	IndexScan  *scan;

	if (!IsA(modify, ModifyTable) || (stmt->commandType != CMD_UPDATE && stmt->commandType != CMD_DELETE) ||
		stmt->subplans != NIL || list_length(modify->resultRelations) != 1)
		return false;
	scan = (IndexScan *) outerPlan(modify);
	return scan && IsA(scan, IndexScan) && scan->indexid == partition->index && list_length(scan->indexqual) >= 2;
}

/* The same of all partitions of the target, each by an index? */
static bool
is_plain_hierarchy(const PlannedStmt *stmt)
{
	ModifyTable *modify = (ModifyTable *) stmt->planTree;
	Plan	   *below;
	ListCell   *cell;

	if (!IsA(modify, ModifyTable) || (stmt->commandType != CMD_UPDATE && stmt->commandType != CMD_DELETE) ||
		stmt->subplans != NIL)
		return false;
	below = outerPlan(modify);
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

/* Is the plan so simple that it is the same for each range? */
static bool
is_same_for_all(const BbmTarget *target, const BbmPartition *partition, const PlannedStmt *stmt)
{
	/* where the key tells the partition, one that is planned for a range leaves out the others */
	if (partition->as_one_table)
		return is_plain_hierarchy(stmt) && !bbm_order_key_leads(target);
	return is_plain(partition, stmt);
}

/*
 * A statement that is plain has the same plan for each range, and is executed
 * with a generic one: to plan it again for each costs as much as a small batch.
 * The server would not see that, since it takes an unknown range for half a
 * percent of the table.  Called when the job has been prepared, and again when
 * the generic plan has changed.  Needs what executing it needs.
 */
void
bbm_plan_choose(const BbmTarget *target, BbmPartition *partition)
{
	CachedPlanSource *source;
	CachedPlan *plan;

	/* who only looks has prepared none */
	if (partition->plan == NULL || (!OidIsValid(partition->index) && !partition->as_one_table) ||
		(target->form != BBM_JOB_STATEMENT && target->form != BBM_JOB_COMPOSED))
		return;
	source = plan_source(partition);
	/* the generic one; none if a rule made several statements of it */
	plan = bbm_spi_cached_plan(partition->plan);
	if (plan == NULL)
		return;
	if (list_length(plan->stmt_list) == 1 && is_same_for_all(target, partition, linitial_node(PlannedStmt,
																							  plan->stmt_list)))
		source->cursor_options |= CURSOR_OPT_GENERIC_PLAN;
	else
		source->cursor_options &= ~CURSOR_OPT_GENERIC_PLAN;
	partition->plan_generation = source->generation;
	ReleaseCachedPlan(plan, CurrentResourceOwner);
}

/*
 * Executes the target's job, for a batch of that many keys, under the guard.
 * Needs a transaction, SPI, a snapshot and the settings of the job; returns what
 * SPI_execute_plan does.
 */
int
bbm_plan_execute(BbmTarget *target, BbmPartition *partition, Datum *values, int64 keys)
{
	BbmTarget  *outer = guarded;
	bool		outer_batch = in_batch;
	Oid			outer_partition = guarded_partition;
	int64		outer_keys = guarded_keys;
	int			result;

	if ((plan_source(partition)->cursor_options & CURSOR_OPT_GENERIC_PLAN) != 0 &&
		plan_source(partition)->generation != partition->plan_generation)
		bbm_plan_choose(target, partition);
	guarded = target->migration->allow_full_scan ? NULL : target;
	guarded_partition = partition->relid;
	guarded_keys = keys;
	in_batch = true;
	PG_TRY();
	{
		result = bbm_spi_execute_plan(partition->plan, values, NULL, false, 0);
		target->planned_anew = false;
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
