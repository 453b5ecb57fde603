/*-------------------------------------------------------------------------
 *
 * forward.h
 *		Calls about a migration of a distributed table (Citus), on a node that
 *		is not the coordinator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_FORWARD_H
#define BBM_SQL_FORWARD_H

#include "base/bbm.h"

#include "fmgr.h"

extern bool bbm_forward(FunctionCallInfo fcinfo, const char *name, Datum *result);
extern bool bbm_forward_pause(FunctionCallInfo fcinfo, const char *name, Datum *result);
extern bool bbm_forward_definition(FunctionCallInfo fcinfo, const char *name, const char *table, int64 *id);
extern char *bbm_forward_query(const char *name, const char *sql);

#endif							/* BBM_SQL_FORWARD_H */
