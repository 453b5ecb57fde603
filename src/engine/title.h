/*-------------------------------------------------------------------------
 *
 * title.h
 *		What a process that runs jobs shows of itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_TITLE_H
#define BBM_ENGINE_TITLE_H

#include "base/bbm.h"

#include "catalog/totals.h"
#include "target/target.h"

extern void bbm_title_update(BbmTarget *target, const BbmTotals *totals);
extern void bbm_title_show(const BbmTarget *target);

#endif							/* BBM_ENGINE_TITLE_H */
