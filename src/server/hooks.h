/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		Commands of the server that affect our processes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_HOOKS_H
#define BBM_SERVER_HOOKS_H

#include "base/bbm.h"

#include "tcop/utility.h"

extern void bbm_hooks_install(void);
extern void bbm_run_utility(ProcessUtility_hook_type previous, PlannedStmt *pstmt, const char *query,
							bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
							QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc);

#endif							/* BBM_SERVER_HOOKS_H */
