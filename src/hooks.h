/*-------------------------------------------------------------------------
 *
 * hooks.h
 *		Commands of the server that our processes must know of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_HOOKS_H
#define BBM_HOOKS_H

#include "tcop/utility.h"

extern void bbm_hooks_install(void);
extern void bbm_run_utility(ProcessUtility_hook_type previous, PlannedStmt *pstmt, const char *query,
							bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
							QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc);

/* Events of this transaction, told to the launcher when it has committed. */
extern void bbm_wake_at_commit(Oid owner);
extern void bbm_notify_at_commit(const char *json);

#endif							/* BBM_HOOKS_H */
