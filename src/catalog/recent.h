/*-------------------------------------------------------------------------
 *
 * recent.h
 *		What became of a migration's newest jobs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_RECENT_H
#define BBM_CATALOG_RECENT_H

#include "base/bbm.h"

extern void bbm_recent_jobs(int64 migration_id, int most, int64 *jobs, int64 *failed);

#endif							/* BBM_CATALOG_RECENT_H */
