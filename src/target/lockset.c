/*-------------------------------------------------------------------------
 *
 * lockset.c
 *		The table locks of a batch: each taken once, first, and as strong as it
 *		will be needed.
 *
 * NOTES
 *	  A session that has a weak lock of a table and asks for a stronger one
 *	  waits with the weak one in its hands.  If somebody who holds the table
 *	  asks for a stronger lock as well, as CREATE INDEX followed by ALTER TABLE
 *	  in one transaction does, the server sees at once that both wait for each
 *	  other, and fails the one that has come second: the application, however
 *	  short the deadlock_timeout of ours.  So a batch has no lock of a table
 *	  while it waits for another one of the same table.
 *
 *	  What a batch locks is known beforehand: its own table, as every batch may
 *	  write it; and all tables of a statement, from its query.  What a function
 *	  or a trigger locks shows when it runs: each statement that is executed in
 *	  a batch is looked at (bbm_lockset_note, from the hook in which the plan
 *	  is guarded), and a table of which it took first a weak and then a strong
 *	  lock is remembered, and locked strongly before each batch to come.  What
 *	  has not been needed for a while is forgotten.  Until a first batch of a
 *	  process has shown it, tables that functions and triggers read are locked
 *	  as if to be written, and the batch is requeued where that would wait.
 *	  So it is where a command of a function would wait for more than the batch
 *	  has of a table (lock_at_once); the next has it from the beginning.
 *
 *	  A partition is locked when a statement over its root is planned or its
 *	  plan is set up, as strong as the root is by that statement.  To lock all
 *	  beforehand costs a millisecond for a thousand partitions, and waits for
 *	  whoever has any of them; so while a batch runs, each statement over its
 *	  table is planned as if it would write to it (plan_query).
 *
 *	  Locks are taken in the order of the tables' OIDs.  Another session may
 *	  change any of the tables until its lock is had: what the batch is resolved
 *	  for is looked at after that.
 *
 *-------------------------------------------------------------------------
 */
#include "target/lockset.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

#include "base/compat.h"
#include "base/txn.h"
#include "target/hierarchy.h"
#include "target/target.h"

/* What was learned is forgotten when so many batches have not needed it. */
#define BBM_FORGET_AFTER 64

/* A table that batches of a target have locked. */
typedef struct BbmTableLock
{
	Oid			relid;			/* the key */
	LOCKMODE	mode;			/* to take before each batch; NoLock: the table need not be locked so early */
	LOCKMODE	seen;			/* the first lock that the batch at hand has taken */
	bool		of_statement;	/* known from the job's statement, and not to be forgotten */
	uint64		batch;			/* the last that has used it */
} BbmTableLock;

struct BbmLockSet
{
	HTAB	   *tables;			/* of BbmTableLock */
	List	   *early;			/* those of them that have a mode */
	uint64		batch;			/* number of the batch at hand */
	bool		learned;		/* a batch has run to its end */
	bool		calls;			/* the job's statement has functions that may write */
};

/* Whose batch is in flight in this process; NULL none. */
static BbmTarget *working = NULL;

static planner_hook_type previous_planner = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

static struct BbmLockSet *
set_of(BbmTarget *target)
{
	if (target->locks == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(BbmTableLock), .hcxt = target->context};
		struct BbmLockSet *set = MemoryContextAllocZero(target->context, sizeof(struct BbmLockSet));

		set->tables = hash_create("bbm tables locked", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		target->locks = set;
	}
	return target->locks;
}

static BbmTableLock *
entry_of(struct BbmLockSet *set, Oid relid)
{
	bool		existed;
	BbmTableLock *lock = hash_search(set->tables, &relid, HASH_ENTER, &existed);

	if (!existed)
	{
		lock->mode = lock->seen = NoLock;
		lock->of_statement = false;
		lock->batch = 0;
	}
	return lock;
}

/* From the next batch on the table is locked so before it begins. */
static void
lock_early(BbmTarget *target, BbmTableLock *lock, LOCKMODE mode)
{
	MemoryContext old;

	/* the one that is stronger by its number alone, and lets nobody write to it */
	if (mode == ShareLock)
		mode = ShareRowExclusiveLock;
	if (mode <= lock->mode)
		return;
	if (lock->mode == NoLock)
	{
		old = MemoryContextSwitchTo(target->context);
		target->locks->early = lappend(target->locks->early, lock);
		MemoryContextSwitchTo(old);
	}
	lock->mode = mode;
}

/* ----------------------------------------------------------------
 * What is known beforehand
 * ----------------------------------------------------------------
 */

typedef struct StatementTables
{
	BbmTarget  *target;
	Oid			partition;
} StatementTables;

/* May it write, as far as its declaration tells?  The server's own do not, to a table. */
static bool
may_write(Oid function, void *arg)
{
	return function >= FirstNormalObjectId && func_volatile(function) == PROVOLATILE_VOLATILE;
}

/* A walker over the range tables, and the functions, of a query. */
static bool
add_tables(Node *node, void *arg)
{
	StatementTables *to = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		const RangeTblEntry *rte = (RangeTblEntry *) node;

		/* a view that was expanded keeps its lock as well */
		if (OidIsValid(rte->relid) && rte->relid != to->partition &&
			(rte->rtekind == RTE_RELATION || rte->rtekind == RTE_SUBQUERY))
		{
			BbmTableLock *lock = entry_of(to->target->locks, rte->relid);

			lock->of_statement = true;
			lock_early(to->target, lock, rte->rellockmode);
		}
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, add_tables, arg, QTW_EXAMINE_RTES_BEFORE);
	if (check_functions_in_node(node, may_write, NULL))
		to->target->locks->calls = true;
	return expression_tree_walker(node, add_tables, arg);
}

/*
 * Adds the tables of a job's statement that was prepared for a partition.  That one
 * is locked anyway, while it is worked on.
 */
void
bbm_lockset_add_plan(BbmTarget *target, Oid partition, SPIPlanPtr plan)
{
	StatementTables to = {target, partition};
	ListCell   *source;
	ListCell   *query;

	(void) set_of(target);
	foreach(source, SPI_plan_get_plan_sources(plan))
	{
		foreach(query, ((CachedPlanSource *) lfirst(source))->query_list)
			(void) add_tables(lfirst(query), &to);
	}
}

static int
by_relid(const ListCell *a, const ListCell *b)
{
	const BbmTableLock *x = lfirst(a);
	const BbmTableLock *y = lfirst(b);

	return x->relid < y->relid ? -1 : x->relid > y->relid;
}

/*
 * Before a first batch has shown what is written, what the statement reads is
 * locked as if it were, at once or, if a trigger or a function may be what writes
 * it, later.
 */
static void
lock_unlearned(const struct BbmLockSet *set, const BbmTableLock *lock, Oid own)
{
	if (lock->mode < BBM_WORK_LOCK && get_rel_relkind(lock->relid) == RELKIND_RELATION &&
		!IsCatalogRelationOid(lock->relid))
	{
		if (ConditionalLockRelationOid(lock->relid, BBM_WORK_LOCK))
			return;
		if (set->calls || bbm_has_triggers(own))
		{
			LockRelationOid(lock->relid, BBM_WORK_LOCK);
			return;
		}
	}
	LockRelationOid(lock->relid, lock->mode);
}

/*
 * Takes the table locks of a batch that works on this table, until its
 * transaction ends; waits at most lock_timeout for each.  What the batch
 * executes from here on is looked at, until bbm_lockset_end or the end of the
 * transaction.
 */
void
bbm_lockset_take(BbmTarget *target, Oid relid)
{
	struct BbmLockSet *set = set_of(target);
	BbmTableLock own = {.relid = relid, .mode = BBM_WORK_LOCK};
	List	   *locks = list_make1(&own);
	ListCell   *cell;

	set->batch++;
	foreach(cell, set->early)
	{
		BbmTableLock *lock = lfirst(cell);

		if (!lock->of_statement && set->batch - lock->batch > BBM_FORGET_AFTER)
		{
			lock->mode = NoLock;
			set->early = foreach_delete_current(set->early, cell);
		}
		else if (lock->relid == relid)
			own.mode = Max(own.mode, lock->mode);
		else
			locks = lappend(locks, lock);
	}
	list_sort(locks, by_relid);
	foreach(cell, locks)
	{
		BbmTableLock *lock = lfirst(cell);

		if (set->learned)
			LockRelationOid(lock->relid, lock->mode);
		else
			lock_unlearned(set, lock, relid);
	}
	list_free(locks);
	working = target;
}

/* ----------------------------------------------------------------
 * What shows when it runs
 * ----------------------------------------------------------------
 */

/*
 * A statement of the batch in flight is about to be executed, and has its locks.
 * Remembers what of them was had in another mode before.
 */
void
bbm_lockset_note(const PlannedStmt *stmt)
{
	struct BbmLockSet *set;
	ListCell   *cell;

	if (working == NULL || bbm_engine_writes())
		return;
	set = working->locks;
	foreach(cell, stmt->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);
		BbmTableLock *lock;

		if (!OidIsValid(rte->relid) || (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_SUBQUERY))
			continue;
		lock = entry_of(set, rte->relid);
		if (lock->batch != set->batch)
		{
			lock->batch = set->batch;
			lock->seen = rte->rellockmode;
		}
		/* the order within one statement is the server's, so either comes first */
		else if (lock->seen != rte->rellockmode)
			lock_early(working, lock, Max(lock->seen, rte->rellockmode));
	}
}

/* Has this transaction a lock of the table, but none that is as strong? */
static bool
holds_weaker(Oid relid, LOCKMODE mode)
{
	bool		holds = false;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (LOCKMODE m = AccessShareLock; m <= AccessExclusiveLock; m++)
	{
		if (!bbm_lock_is_mine(&tag, m))
			continue;
		if (m >= mode)
			return false;
		holds = true;
	}
	return holds;
}

/*
 * A command is going to lock the table.  What the batch has of it already must
 * not be in its hands while it waits: if it would, the batch is requeued, and
 * the next one has the lock before it begins.
 */
static void
lock_at_once(Oid relid, LOCKMODE mode)
{
	BbmTableLock *lock;

	if (!holds_weaker(relid, mode))
	{
		/* had early, and still needed */
		lock = hash_search(working->locks->tables, &relid, HASH_FIND, NULL);
		if (lock && lock->mode >= mode)
			lock->batch = working->locks->batch;
		return;
	}
	lock = entry_of(working->locks, relid);
	lock->batch = working->locks->batch;
	lock_early(working, lock, mode);
	if (!ConditionalLockRelationOid(relid, mode))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on relation \"%s\"", get_rel_name(relid)),
				 errdetail("The batch has a weaker lock of it, and must not wait for a stronger one."),
				 errhint("It is tried again.")));
}

static void
lock_range(const RangeVar *range, LOCKMODE mode)
{
	Oid			relid = RangeVarGetRelid(range, NoLock, true);
	ListCell   *cell;

	if (!OidIsValid(relid))
		return;
	foreach(cell, range->inh ? bbm_partitions_all(relid) : list_make1_oid(relid))
		lock_at_once(lfirst_oid(cell), mode);
}

static void
lock_ranges(const List *ranges, LOCKMODE mode)
{
	const ListCell *cell;

	foreach(cell, ranges)
		lock_range(lfirst_node(RangeVar, cell), mode);
}

/* Commands that a job may have in a function, and the locks that they are going to take. */
static void
lock_for_command(Node *command)
{
	switch (nodeTag(command))
	{
		case T_LockStmt:
			lock_ranges(((LockStmt *) command)->relations, ((LockStmt *) command)->mode);
			break;
		case T_TruncateStmt:
			lock_ranges(((TruncateStmt *) command)->relations, AccessExclusiveLock);
			break;
		case T_AlterTableStmt:
			lock_range(((AlterTableStmt *) command)->relation,
					   AlterTableGetLockLevel(((AlterTableStmt *) command)->cmds));
			break;
		case T_IndexStmt:
			lock_range(((IndexStmt *) command)->relation, ShareLock);
			break;
		case T_CreateTrigStmt:
			lock_range(((CreateTrigStmt *) command)->relation, ShareRowExclusiveLock);
			break;
		default:
			break;
	}
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (working && !bbm_engine_writes())
		lock_for_command(pstmt->utilityStmt);
	if (previous_utility)
		previous_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

/*
 * Locks of other commands show in what the batch holds at its end of the tables
 * that it had early.
 */
static void
note_stronger(BbmTarget *target, Oid relid)
{
	LOCKTAG		tag;
	BbmTableLock *lock = NULL;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (LOCKMODE mode = AccessExclusiveLock; mode > BBM_WORK_LOCK; mode--)
	{
		if (!bbm_lock_is_mine(&tag, mode))
			continue;
		lock = entry_of(target->locks, relid);
		lock->batch = target->locks->batch;
		lock_early(target, lock, mode);
		return;
	}
}

/* The batch has done its work; one that fails ends with its transaction. */
void
bbm_lockset_end(void)
{
	BbmTarget  *target = working;

	working = NULL;
	if (target == NULL)
		return;
	if (target->form != BBM_JOB_COMPOSED && target->form != BBM_JOB_STATEMENT)
	{
		note_stronger(target, target->relid);
		if (target->partition && target->partition->relid != target->relid)
			note_stronger(target, target->partition->relid);
	}
	target->locks->learned = true;
}

/* The target is closed: nothing may look at it any more. */
void
bbm_lockset_forget(const BbmTarget *target)
{
	if (working == target)
		working = NULL;
}

static void
end_with_transaction(XactEvent event, void *arg)
{
	working = NULL;
}

/* Is it the table of the batch in flight, or part of it? */
static bool
is_of_target(Oid relid)
{
	return relid == working->relid || (working->has_partitions && bbm_partitions_include(working->relid, relid));
}

/*
 * A walker over a query that is about to be planned.  A table that is named in
 * it is locked by now, and the batch's own as strong as it is written.  What a
 * statement reads of that one's partitions is locked when it is planned, and is
 * to be locked as if it were written.  Before a first batch has shown which
 * others are written, all that functions and triggers read are locked so.  That
 * is not waited for, as the weak lock is there: who is in the way has the batch
 * requeued.
 */
static bool
raise_locks(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;
		bool		of_target;

		if (rte->rtekind != RTE_RELATION || rte->rellockmode >= BBM_WORK_LOCK || IsCatalogRelationOid(rte->relid) ||
			(rte->relkind != RELKIND_RELATION && rte->relkind != RELKIND_PARTITIONED_TABLE))
			return false;
		of_target = is_of_target(rte->relid);
		if (!of_target && (working->locks->learned || entry_of(working->locks, rte->relid)->of_statement))
			return false;
		if (!ConditionalLockRelationOid(rte->relid, BBM_WORK_LOCK))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not obtain lock on relation \"%s\"", get_rel_name(rte->relid)),
					 errdetail("The batch reads it, and is not known not to write it: it must not wait for that later."),
					 errhint("It is tried again.")));
		if (of_target && rte->inh && bbm_has_partitions(rte->relid))
			rte->rellockmode = BBM_WORK_LOCK;
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, raise_locks, arg, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, raise_locks, arg);
}

static PlannedStmt *
plan_query(BBM_PLANNER_PARAMETERS)
{
	if (working && !bbm_engine_writes())
		(void) raise_locks((Node *) parse, NULL);
	if (previous_planner)
		return previous_planner(BBM_PLANNER_ARGUMENTS);
	return standard_planner(BBM_PLANNER_ARGUMENTS);
}

/* Once a process, from _PG_init. */
void
bbm_lockset_install(void)
{
	RegisterXactCallback(end_with_transaction, NULL);
	previous_planner = planner_hook;
	planner_hook = plan_query;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
