/*-------------------------------------------------------------------------
 *
 * next_hook.h
 *		What our hooks call: the hook that was there before, or the server's
 *		own function.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_NEXT_HOOK_H
#define BBM_BASE_NEXT_HOOK_H

#include "base/bbm.h"

#include "catalog/objectaccess.h"
#include "executor/executor.h"
#include "tcop/utility.h"

#include "base/compat.h"

#define BBM_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *query, bool read_only_tree, ProcessUtilityContext context, ParamListInfo params, \
		QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc
#define BBM_UTILITY_ARGUMENTS pstmt, query, read_only_tree, context, params, env, dest, qc

static inline void
bbm_next_utility(ProcessUtility_hook_type previous, BBM_UTILITY_PARAMETERS)
{
	(previous ? previous : standard_ProcessUtility) (BBM_UTILITY_ARGUMENTS);
}

static inline void
bbm_next_start(ExecutorStart_hook_type previous, QueryDesc *query, int eflags)
{
	(previous ? previous : standard_ExecutorStart) (query, eflags);
}

static inline void
bbm_next_run(ExecutorRun_hook_type previous, BBM_RUN_PARAMETERS)
{
	(previous ? previous : standard_ExecutorRun) (BBM_RUN_ARGUMENTS);
}

static inline void
bbm_next_finish(ExecutorFinish_hook_type previous, QueryDesc *query)
{
	(previous ? previous : standard_ExecutorFinish) (query);
}

/*
 * An object_access_hook that is there only while it is needed.  Whatever it does,
 * that one is there makes the server, from 17 on, work out the search_path anew
 * each time that it changes, as in each call of a function with a setting of it.
 */
typedef struct BbmAccessHook
{
	object_access_hook_type hook;
	object_access_hook_type previous;
	bool		is_there;
} BbmAccessHook;

static inline void
bbm_access_hook_begin(BbmAccessHook *own)
{
	if (own->is_there)
		return;
	own->previous = object_access_hook;
	object_access_hook = own->hook;
	own->is_there = true;
}

/* It stays where a library that was loaded meanwhile calls it. */
static inline void
bbm_access_hook_end(BbmAccessHook *own)
{
	if (!own->is_there || object_access_hook != own->hook)
		return;
	object_access_hook = own->previous;
	own->is_there = false;
}

#endif							/* BBM_BASE_NEXT_HOOK_H */
