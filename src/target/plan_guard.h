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

#include "target/target.h"

extern void bbm_plan_guard_install(void);
extern void bbm_plan_choose(const BbmTarget *target, BbmPartition *partition);
extern int	bbm_plan_execute(BbmTarget *target, BbmPartition *partition, Datum *values, int64 keys);

#endif							/* BBM_TARGET_PLAN_GUARD_H */
