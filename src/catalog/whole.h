/*-------------------------------------------------------------------------
 *
 * whole.h
 *		How much a migration has to do, and how much of it is done.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_WHOLE_H
#define BBM_CATALOG_WHOLE_H

#include "base/bbm.h"

#include "base/progress.h"
#include "catalog/totals.h"

extern void bbm_whole_of(const BbmMigration *migration, const BbmTotals *totals, int64 total, BbmWhole *whole);

#endif							/* BBM_CATALOG_WHOLE_H */
