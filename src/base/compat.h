/*-------------------------------------------------------------------------
 *
 * compat.h
 *		The only file that checks PG_VERSION_NUM.
 *
 * Each difference between the supported majors is an inline function or a
 * macro with the newest server's meaning.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_COMPAT_H
#define BBM_BASE_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_tablespace.h"
#include "commands/event_trigger.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "replication/slot.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/wait_event.h"

/* 18 has moved NewExplainState */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 150000
#error "bbm needs PostgreSQL 15 or later"
#endif

/* The server's own from 18 on. */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* 17 lets a background worker log in as a role without LOGIN. */
#if PG_VERSION_NUM >= 170000
#define BBM_CONNECT_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#define BBM_OWNER_NEEDS_LOGIN false
#else
#define BBM_CONNECT_FLAGS 0
#define BBM_OWNER_NEEDS_LOGIN true
#endif

/* 19 passes the planner the EXPLAIN that it plans for. */
#if PG_VERSION_NUM >= 190000
#define BBM_PLANNER_PARAMETERS \
	Query *parse, const char *query_string, int cursor_options, ParamListInfo bound_params, ExplainState *es
#define BBM_PLANNER_ARGUMENTS parse, query_string, cursor_options, bound_params, es
#else
#define BBM_PLANNER_PARAMETERS Query *parse, const char *query_string, int cursor_options, ParamListInfo bound_params
#define BBM_PLANNER_ARGUMENTS parse, query_string, cursor_options, bound_params
#endif

/* Before 18 there was a parameter for callers that run a plan more than once. */
#if PG_VERSION_NUM >= 180000
#define BBM_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define BBM_RUN_ARGUMENTS query, direction, count
#else
#define BBM_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define BBM_RUN_ARGUMENTS query, direction, count, execute_once
#endif

/* From 19 on, DROP DATABASE and similar commands terminate a worker; before, our hook asks it to exit. */
#ifdef BGWORKER_INTERRUPTIBLE
#define BBM_WORKER_INTERRUPTIBLE BGWORKER_INTERRUPTIBLE
#else
#define BBM_WORKER_INTERRUPTIBLE 0
#endif

/* 17 has a time limit for transactions that ends the session: we turn it off. */
#define BBM_HAS_TRANSACTION_TIMEOUT (PG_VERSION_NUM >= 170000)

static inline IndexScanDesc
bbm_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 190000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0, SO_NONE);
#elif PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/*
 * Raises an error unless the current user may do what the plan does to its
 * relations, by the server's own privileges.  An ExecutorCheckPerms_hook is
 * not called here: it expects to be called within an execution of the plan,
 * and is called in each.
 */
static inline void
bbm_check_privileges(PlannedStmt *stmt)
{
	ExecutorCheckPerms_hook_type hook = ExecutorCheckPerms_hook;

	ExecutorCheckPerms_hook = NULL;
	PG_TRY();
	{
#if PG_VERSION_NUM >= 160000
		ExecCheckPermissions(stmt->rtable, stmt->permInfos, true);
#else
		ExecCheckRTPerms(stmt->rtable, true);
#endif
	}
	PG_FINALLY();
	{
		ExecutorCheckPerms_hook = hook;
	}
	PG_END_TRY();
}

/*
 * 16: an executor's start that only explains needs no parameter's value.  Before, it computes which partitions
 * are left out with the parameters' values, by functions perhaps that raise an error for NULL: leave out none.
 */
#if PG_VERSION_NUM < 160000
#define EXEC_FLAG_EXPLAIN_GENERIC 0

static inline void
bbm_leave_out_none(Plan *plan)
{
	List	   *below = NIL;
	ListCell   *cell;

	if (plan == NULL)
		return;
	if (IsA(plan, Append))
	{
		((Append *) plan)->part_prune_info = NULL;
		below = ((Append *) plan)->appendplans;
	}
	else if (IsA(plan, MergeAppend))
	{
		((MergeAppend *) plan)->part_prune_info = NULL;
		below = ((MergeAppend *) plan)->mergeplans;
	}
	else if (IsA(plan, SubqueryScan))
		bbm_leave_out_none(((SubqueryScan *) plan)->subplan);
	foreach(cell, below)
		bbm_leave_out_none(lfirst(cell));
	bbm_leave_out_none(plan->lefttree);
	bbm_leave_out_none(plan->righttree);
}
#endif

/* The statement for a start with EXEC_FLAG_EXPLAIN_GENERIC. */
static inline PlannedStmt *
bbm_generic_statement(PlannedStmt *stmt)
{
#if PG_VERSION_NUM < 160000
	ListCell   *cell;

	/* a cached plan is not ours to change */
	stmt = copyObject(stmt);
	bbm_leave_out_none(stmt->planTree);
	foreach(cell, stmt->subplans)
		bbm_leave_out_none(lfirst(cell));
#endif
	return stmt;
}

/* From 17 on an extension has wait events of its own. */
static inline uint32
bbm_wait_event_allocate(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * Its DROP DATABASE has failed midway: nobody can ever connect to it again.
 * Newer minor releases have this.
 */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

/* Range table indexes of the tables that a plan writes. */
static inline Bitmapset *
bbm_result_relations(const PlannedStmt *stmt)
{
#if PG_VERSION_NUM >= 190000
	return stmt->resultRelationRelids;
#else
	Bitmapset  *relations = NULL;
	ListCell   *cell;

	foreach(cell, stmt->resultRelations)
		relations = bms_add_member(relations, lfirst_int(cell));
	return relations;
#endif
}

/*
 * OIDs of the tables that a plan writes, as far as it shows them: for rows
 * routed to partitions, the root's.
 */
static inline List *
bbm_written_tables(PlannedStmt *stmt)
{
	const AclMode writes = ACL_INSERT | ACL_UPDATE | ACL_DELETE;
	List	   *tables = NIL;
	Bitmapset  *results;
	ListCell   *cell;
	int			i = -1;

	/* locking rows needs the same permission */
	if (stmt->commandType == CMD_UTILITY || (stmt->commandType == CMD_SELECT && !stmt->hasModifyingCTE))
		return NIL;
	results = bbm_result_relations(stmt);
	while ((i = bms_next_member(results, i)) >= 0)
		tables = lappend_oid(tables, rt_fetch(i, stmt->rtable)->relid);
#if PG_VERSION_NUM >= 160000
	foreach(cell, stmt->permInfos)
	{
		RTEPermissionInfo *info = lfirst_node(RTEPermissionInfo, cell);

		if (info->requiredPerms & writes)
			tables = lappend_oid(tables, info->relid);
	}
#else
	foreach(cell, stmt->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

		if (rte->rtekind == RTE_RELATION && (rte->requiredPerms & writes))
			tables = lappend_oid(tables, rte->relid);
	}
#endif
	return tables;
}

/* 16 has one function for the owner of any object, and one for privileges to it. */
#if PG_VERSION_NUM < 160000
static inline bool
object_ownercheck(Oid class, Oid object, Oid role)
{
	return class == RelationRelationId ? pg_class_ownercheck(object, role) :
		class == DatabaseRelationId ? pg_database_ownercheck(object, role) : pg_extension_ownercheck(object, role);
}

static inline AclResult
object_aclcheck(Oid class, Oid object, Oid role, AclMode mode)
{
	return class == TableSpaceRelationId ? pg_tablespace_aclcheck(object, role, mode) :
		class == DatabaseRelationId ? pg_database_aclcheck(object, role, mode) : pg_proc_aclcheck(object, role, mode);
}

/* What SET ROLE checks.  16 has memberships that inherit but do not allow SET ROLE. */
#define member_can_set_role(member, role) is_member_of_role(member, role)
#endif

/* 17 has changed the parameters. */
#if PG_VERSION_NUM < 170000
#define getIdentitySequence(rel, attnum, missing_ok) getIdentitySequence(RelationGetRelid(rel), attnum, missing_ok)
#define LockHeldByMe(tag, mode, or_stronger) LockHeldByMe(tag, mode)
#endif

static inline FuncDetailCode
bbm_func_detail(List *name, int nargs, Oid *argtypes, Oid *funcid, Oid *rettype)
{
	bool		retset;
	int			nvargs;
	Oid			vatype;
	Oid		   *true_typeids;
	List	   *defaults;

#if PG_VERSION_NUM >= 190000
	int			fgc_flags;

	return func_get_detail(name, NIL, NIL, nargs, argtypes, false, false, false, &fgc_flags,
						   funcid, rettype, &retset, &nvargs, &vatype, &true_typeids, &defaults);
#else
	return func_get_detail(name, NIL, NIL, nargs, argtypes, false, false, false,
						   funcid, rettype, &retset, &nvargs, &vatype, &true_typeids, &defaults);
#endif
}

/* May the role change rows of the table, or some column of them? */
static inline bool
bbm_may_write(Oid relid, Oid role)
{
	return pg_class_aclcheck(relid, role, ACL_INSERT | ACL_UPDATE | ACL_DELETE | ACL_TRUNCATE) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, role, ACL_INSERT | ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
}

/* The process of a virtual transaction, or NULL when it has ended. */
static inline PGPROC *
bbm_vxid_process(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM >= 170000
	return ProcNumberGetProc(vxid.procNumber);
#else
	return BackendIdGetProc(vxid.backendId);
#endif
}

/* One of the pgstat_fetch_stat_numbackends() processes in the local copy; numbered from 1. */
static inline PgBackendStatus *
bbm_backend_status(int n)
{
#if PG_VERSION_NUM >= 160000
	LocalPgBackendStatus *local = pgstat_get_local_beentry_by_index(n);
#else
	LocalPgBackendStatus *local = pgstat_fetch_stat_local_beentry(n);
#endif

	return local ? &local->backendStatus : NULL;
}

static inline bool
bbm_may_vacuum(Oid relid, Oid role)
{
#if PG_VERSION_NUM >= 170000
	bool		may = pg_class_aclcheck(relid, role, ACL_MAINTAIN) == ACLCHECK_OK;
#else
	bool		may = object_ownercheck(RelationRelationId, relid, role);
#endif

	return may || object_ownercheck(DatabaseRelationId, MyDatabaseId, role);
}

/* An invalidated slot keeps no WAL. */
static inline bool
bbm_slot_is_void(const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 160000
	return data->invalidated != RS_INVAL_NONE || data->restart_lsn == InvalidXLogRecPtr;
#else
	return data->restart_lsn == InvalidXLogRecPtr;
#endif
}

/* Has the server given the slot up, so that it keeps no rows either, whatever its xmin? */
static inline bool
bbm_slot_is_lost(const ReplicationSlotPersistentData *data)
{
#if PG_VERSION_NUM >= 160000
	return data->invalidated != RS_INVAL_NONE;
#else
	return data->invalidated_at != InvalidXLogRecPtr && data->restart_lsn == InvalidXLogRecPtr;
#endif
}

/* Is the column free of nulls for certain? 18 has NOT NULL constraints that are not valid for all rows. */
static inline bool
bbm_column_not_null(TupleDesc desc, AttrNumber attnum)
{
	if (!TupleDescAttr(desc, attnum - 1)->attnotnull)
		return false;
#ifdef ATTNULLABLE_INVALID
	return TupleDescCompactAttr(desc, attnum - 1)->attnullability != ATTNULLABLE_INVALID;
#else
	return true;
#endif
}

/* Does every row satisfy the constraint, or make it unknown? 18 has constraints that are not enforced. */
static inline bool
bbm_check_is_valid(const ConstrCheck *check)
{
#if PG_VERSION_NUM >= 180000
	return check->ccenforced && check->ccvalid;
#else
	return check->ccvalid;
#endif
}

static inline bool
bbm_has_returning(const UpdateStmt *stmt)
{
#if PG_VERSION_NUM >= 180000
	return stmt->returningClause != NULL;
#else
	return stmt->returningList != NIL;
#endif
}

#if PG_VERSION_NUM >= 160000
static inline dlist_node *
bbm_next_link(dlist_head *list, dlist_node *previous)
{
	if (previous == NULL)
		return dlist_is_empty(list) ? NULL : dlist_head_node(list);
	return dlist_has_next(list, previous) ? dlist_next_node(list, previous) : NULL;
}
#endif

/*
 * The next of a process's locks in a partition; the first after NULL, NULL
 * after the last.  Caller holds the partition's LWLock.
 */
static inline PROCLOCK *
bbm_next_of_proc(PGPROC *proc, int partition, PROCLOCK *previous)
{
#if PG_VERSION_NUM >= 160000
	dlist_node *link = bbm_next_link(&proc->myProcLocks[partition], previous ? &previous->procLink : NULL);

	return link ? dlist_container(PROCLOCK, procLink, link) : NULL;
#else
	SHM_QUEUE  *list = &proc->myProcLocks[partition];

	return (PROCLOCK *) SHMQueueNext(list, previous ? &previous->procLink : list, offsetof(PROCLOCK, procLink));
#endif
}

/* The same for processes that hold or await a lock. */
static inline PROCLOCK *
bbm_next_of_lock(LOCK *lock, PROCLOCK *previous)
{
#if PG_VERSION_NUM >= 160000
	dlist_node *link = bbm_next_link(&lock->procLocks, previous ? &previous->lockLink : NULL);

	return link ? dlist_container(PROCLOCK, lockLink, link) : NULL;
#else
	SHM_QUEUE  *list = &lock->procLocks;

	return (PROCLOCK *) SHMQueueNext(list, previous ? &previous->lockLink : list, offsetof(PROCLOCK, lockLink));
#endif
}

/*
 * How often this process found the WAL buffers full, and had to write some of
 * them.  Before 18 it counts from the last report of its statistics.
 */
static inline int64
bbm_wal_buffers_full(void)
{
#if PG_VERSION_NUM >= 180000
	return pgWalUsage.wal_buffers_full;
#else
	return PendingWalStats.wal_buffers_full;
#endif
}

/* Which indexes an update has to write: 16 distinguishes those that only summarize. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes BbmUpdateIndexes;
#else
typedef bool BbmUpdateIndexes;
#endif

/* Index entries of a new version of a row, as its update has said. */
static inline void
bbm_insert_index_tuples(ResultRelInfo *result, EState *estate, TupleTableSlot *slot, BbmUpdateIndexes indexes)
{
#if PG_VERSION_NUM >= 190000
	uint32		flags = indexes == TU_Summarizing ? EIIT_ONLY_SUMMARIZING : 0;

	(void) ExecInsertIndexTuples(result, estate, flags, slot, NIL, NULL);
#elif PG_VERSION_NUM >= 160000
	(void) ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL, indexes == TU_Summarizing);
#else
	(void) ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL);
#endif
}

/* When a file was changed: the nanoseconds after the second, which systems have under different names. */
#ifdef __APPLE__
#define BBM_STAT_MTIME_NS(status) ((status)->st_mtimespec.tv_nsec)
#else
#define BBM_STAT_MTIME_NS(status) ((status)->st_mtim.tv_nsec)
#endif

#endif							/* BBM_BASE_COMPAT_H */
