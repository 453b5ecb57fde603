/*-------------------------------------------------------------------------
 *
 * guards.h
 *		The triggers of our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_GUARDS_H
#define BBM_GUARDS_H

#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"

extern TriggerData *bbm_trigger_data(FunctionCallInfo fcinfo, const char *function);

#endif							/* BBM_GUARDS_H */
