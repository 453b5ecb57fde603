/*-------------------------------------------------------------------------
 *
 * merge.h
 *		Merging finished jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_MERGE_H
#define BBM_CATALOG_MERGE_H

#include "base/bbm.h"

#include "catalog/totals.h"

extern PGDLLEXPORT void bbm_jobs_merge(int64 migration_id, int retention, const BbmTotals *totals);
extern void bbm_jobs_forget(int64 migration_id);

#endif							/* BBM_CATALOG_MERGE_H */
