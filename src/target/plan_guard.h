/*-------------------------------------------------------------------------
 *
 * plan_guard.h
 *		Refusing a batch that would read the whole table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_PLAN_GUARD_H
#define BBM_TARGET_PLAN_GUARD_H

#include "base/bbm.h"

#include "nodes/plannodes.h"

#include "target/target.h"

extern void bbm_plan_guard_install(void);
extern void bbm_plan_check_start(PlannedStmt *stmt, const char *sql, int nargs, const Oid *types);
extern bool bbm_plan_is_same(const BbmTarget *target, const BbmPartition *partition);
extern bool bbm_plan_is_current(const BbmPartition *partition);
extern int	bbm_plan_execute(BbmTarget *target, BbmPartition *partition, Datum *values, int64 keys);

#endif							/* BBM_TARGET_PLAN_GUARD_H */
