/*-------------------------------------------------------------------------
 *
 * pacing.h
 *		Pausing between batches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_PACING_H
#define BBM_THROTTLE_PACING_H

#include "base/bbm.h"

extern void bbm_pacing_begin(const BbmMigration *migration, TimestampTz now);
extern void bbm_pacing_check_locks(void);
extern void bbm_pacing_end(const BbmMigration *migration, double units);
extern void bbm_pacing_failed(const BbmMigration *migration);
extern bool bbm_pacing_pauses(TimestampTz now, TimestampTz *due);
extern const char *bbm_pacing_reason(void);
extern bool bbm_pacing_is_slow(const BbmMigration *migration);

#endif							/* BBM_THROTTLE_PACING_H */
