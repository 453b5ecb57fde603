/*-------------------------------------------------------------------------
 *
 * planguard.h
 *		Refusing a batch that would read the whole table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_PLANGUARD_H
#define BBM_PLANGUARD_H

#include "strategy.h"

extern void bbm_plan_guard_install(void);
extern void bbm_plan_choose(const BbmTarget *target, BbmPartition *partition);
extern int	bbm_plan_execute(BbmTarget *target, BbmPartition *partition, Datum *values, int64 keys);

#endif							/* BBM_PLANGUARD_H */
