/*-------------------------------------------------------------------------
 *
 * trouble.h
 *		Transient errors, and when to try again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_TROUBLE_H
#define BBM_BASE_TROUBLE_H

#include "base/bbm.h"

#include "base/shared.h"

extern char *bbm_error_to_string(const ErrorData *error);
extern TimestampTz bbm_trouble_met(int64 migration_id, Oid owner, const char *name, const ErrorData *error,
								   bool is_lock, bool in_batch);
extern bool bbm_trouble_blocked(int64 migration_id, Oid owner, const ErrorData *error);
extern void bbm_trouble_forget(int64 migration_id);
extern void bbm_trouble_over(int64 migration_id, Oid owner, const char *name, bool batch_done);
extern bool bbm_trouble_waits(int64 migration_id, Oid owner, BbmReason *reason, TimestampTz *since);
extern char *bbm_trouble_now(int64 migration_id, Oid owner);
extern void bbm_trouble_reasons(int64 migration_id, Oid owner, TimestampTz now, BbmReason *longest,
								BbmReason *of_batch);

#endif							/* BBM_BASE_TROUBLE_H */
