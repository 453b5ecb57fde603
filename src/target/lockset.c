/*-------------------------------------------------------------------------
 *
 * lockset.c
 *		The table locks of a batch: each taken once, first, and as strong as it
 *		will be needed.
 *
 * NOTES
 *	  If a session that has a weak lock on a table requests a stronger one, it
 *	  waits while it has the weak one.  If another session with a lock on the
 *	  table requests a stronger lock as well, as CREATE INDEX followed by ALTER
 *	  TABLE in one transaction does, the server sees at once that both wait for
 *	  each other, and raises an error in the session that came second: the
 *	  application, however short our deadlock_timeout is.  So a batch never has
 *	  a lock on a table while it waits for another lock on the same table.
 *
 *	  What a batch locks is known beforehand for its own table, which every
 *	  batch may write, and for all tables of a statement, from its query.  What
 *	  a function or a trigger locks is seen only when it runs:
 *	  bbm_lockset_note, called by the hook that guards the plan, examines each
 *	  statement that is executed in a batch.  A table on which the batch took
 *	  first a weak and then a strong lock is remembered, and locked strongly
 *	  before each later batch.  What has not been needed for a while is
 *	  forgotten.  Until the first batch of a process has shown it, tables that
 *	  functions and triggers read are locked as if they were written, and the
 *	  batch is requeued if that would wait.  It is also requeued if a command
 *	  in a function would wait for a stronger lock than the batch has on a
 *	  table (lock_at_once); the next batch takes that lock at its start.
 *
 *	  A partition is locked when a statement on its root is planned or its plan
 *	  is initialized, as strongly as that statement locks the root.  To lock
 *	  all partitions beforehand costs a millisecond for a thousand partitions,
 *	  and waits for every session that has locked one of them; so while a batch
 *	  runs, each statement on its table is planned as if it wrote to the table
 *	  (plan_query).
 *
 *	  Locks are taken in the order of the tables' OIDs.  Another session may
 *	  change any of the tables until its lock is granted: after that, it is
 *	  checked that what the batch was resolved for is still current.
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
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

#include "base/compat.h"
#include "base/next_hook.h"
#include "base/user.h"
#include "target/hierarchy.h"
#include "target/target.h"

/* Number of batches without use after which a learned lock is forgotten. */
#define BBM_FORGET_AFTER 64

/* A table that batches of a target have locked. */
typedef struct BbmTableLock
{
	Oid			relid;			/* the hash key */
	LOCKMODE	mode;			/* to take before each batch; NoLock: no early lock is needed */
	LOCKMODE	seen;			/* the first lock that the current batch has taken */
	bool		of_statement;	/* known from the job's statement, and never forgotten */
	uint64		batch;			/* the last batch that has used it */
} BbmTableLock;

struct BbmLockSet
{
	HTAB	   *tables;			/* of BbmTableLock */
	List	   *early;			/* those of them that have a mode */
	uint64		batch;			/* number of the current batch */
	bool		learned;		/* a batch has run to its end */
	bool		calls;			/* the job's statement calls functions that may write */
};

/* The target of the batch that is running in this process; NULL: none. */
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

/* From the next batch on, locks the table in this mode before the batch begins. */
static void
lock_early(BbmTarget *target, BbmTableLock *lock, LOCKMODE mode)
{
	MemoryContext old;

	/* ShareLock is stronger only by its number, and does not let its holder write */
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
 * Locks known beforehand
 * ----------------------------------------------------------------
 */

typedef struct StatementTables
{
	BbmTarget  *target;
	Oid			partition;
} StatementTables;

/* May the function write to a table, by its declaration?  Built-in functions do not. */
static bool
may_write(Oid function, void *arg)
{
	return function >= FirstNormalObjectId && func_volatile(function) == PROVOLATILE_VOLATILE;
}

/* A walker over the range tables and functions of a query. */
static bool
add_tables(Node *node, void *arg)
{
	StatementTables *to = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		const RangeTblEntry *rte = (RangeTblEntry *) node;

		/* an expanded view (RTE_SUBQUERY) is locked as well */
		if (OidIsValid(rte->relid) && rte->relid != to->partition &&
			(rte->rtekind == RTE_RELATION || rte->rtekind == RTE_SUBQUERY))
		{
			BbmTableLock *lock = entry_of(to->target->locks, rte->relid);
			bool		is_written = rte->rtekind == RTE_RELATION && to->target->has_partitions &&
				to->partition == to->target->relid && bbm_partitions_include(to->partition, rte->relid);

			lock->of_statement = true;
			lock_early(to->target, lock, is_written ? Max(rte->rellockmode, BBM_WORK_LOCK) : rte->rellockmode);
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
 * Adds the tables of a job's statement that was prepared for a partition.  The
 * partition itself is locked anyway while it is worked on.  A statement on the
 * table as a whole writes its partitions, even those that it names only to
 * read them.
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
 * Until a first batch has shown which tables are written, a table that the
 * statement reads is locked as if it were written: only if that lock is free,
 * or, where a trigger or a function may write the table, by waiting for it.
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

/* Drops what is known of tables that have not been used for a while: a job may make tables of its own in each batch. */
static void
forget_unused(struct BbmLockSet *set)
{
	HASH_SEQ_STATUS status;
	BbmTableLock *lock;

	hash_seq_init(&status, set->tables);
	while ((lock = hash_seq_search(&status)) != NULL)
	{
		if (lock->mode == NoLock && !lock->of_statement && set->batch - lock->batch > BBM_FORGET_AFTER)
			(void) hash_search(set->tables, &lock->relid, HASH_REMOVE, NULL);
	}
}

/*
 * Takes the table locks of a batch that works on this table, until its
 * transaction ends; waits at most lock_timeout for each.  From here on, what
 * the batch executes is examined, until bbm_lockset_end or the end of the
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
	if (set->batch % BBM_FORGET_AFTER == 0)
		forget_unused(set);
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
 * Locks seen during execution
 * ----------------------------------------------------------------
 */

/*
 * A statement of the running batch is about to be executed, and has its locks.
 * Remembers the tables that the batch had locked in another mode before.
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
		/* the server decides the order within one statement, so either lock may come first */
		else if (lock->seen != rte->rellockmode)
			lock_early(working, lock, Max(lock->seen, rte->rellockmode));
	}
}

/* Does this transaction have a lock on the table, but none as strong as this? */
static bool
holds_weaker(Oid relid, LOCKMODE mode)
{
	bool		holds = false;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (LOCKMODE m = AccessShareLock; m <= AccessExclusiveLock; m++)
	{
		if (!LockHeldByMe(&tag, m, false))
			continue;
		if (m >= mode)
			return false;
		holds = true;
	}
	return holds;
}

/*
 * A command is going to lock the table.  The batch must not wait for that lock
 * while it has a weaker one on the table: if it would wait, it is requeued,
 * and the next batch takes the lock before it begins.
 */
static void
lock_at_once(Oid relid, LOCKMODE mode)
{
	BbmTableLock *lock;

	if (!holds_weaker(relid, mode))
	{
		/* taken early, and still needed */
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

/* Commands that a job's function may execute, and the locks that they are going to take. */
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
utility(BBM_UTILITY_PARAMETERS)
{
	if (working && !bbm_engine_writes())
		lock_for_command(pstmt->utilityStmt);
	bbm_next_utility(previous_utility, BBM_UTILITY_ARGUMENTS);
}

/*
 * Locks of other commands are seen at the end of the batch, from the locks
 * that it has on its own table.
 */
static void
note_stronger(BbmTarget *target, Oid relid)
{
	LOCKTAG		tag;
	BbmTableLock *lock = NULL;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	for (LOCKMODE mode = AccessExclusiveLock; mode > BBM_WORK_LOCK; mode--)
	{
		if (!LockHeldByMe(&tag, mode, false))
			continue;
		lock = entry_of(target->locks, relid);
		lock->batch = target->locks->batch;
		lock_early(target, lock, mode);
		return;
	}
}

/* The batch has done its work; a batch that fails ends with its transaction. */
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

/* Is a batch running?  Then a plan that is made takes locks that suffice for all of the batch. */
bool
bbm_lockset_is_on(void)
{
	return working != NULL;
}

/* The target is closed: nothing may use it any more. */
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

/* Is it the table of the running batch, or one of its partitions or child tables? */
static bool
is_of_target(Oid relid)
{
	return relid == working->relid || (working->has_partitions && bbm_partitions_include(working->relid, relid));
}

/*
 * A walker over a query that is about to be planned.  A table that the query
 * names is locked by now, and the batch's own table as strongly as for
 * writing.  Planning locks the partitions of that table that a statement
 * reads; they must be locked as if they were written.  Until a first batch has
 * shown which other tables are written, all tables that functions and triggers
 * read are locked that way.  The batch does not wait for that lock, as it has
 * the weak one: if another session is in the way, the batch is requeued.
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

/* Called once per process, from _PG_init. */
void
bbm_lockset_install(void)
{
	RegisterXactCallback(end_with_transaction, NULL);
	previous_planner = planner_hook;
	planner_hook = plan_query;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
