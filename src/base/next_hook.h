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

#endif							/* BBM_BASE_NEXT_HOOK_H */
