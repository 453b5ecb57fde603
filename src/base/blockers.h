/*-------------------------------------------------------------------------
 *
 * blockers.h
 *		The lock that a process of bbm waits for, and its blockers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_BLOCKERS_H
#define BBM_BASE_BLOCKERS_H

#include "base/bbm.h"

#include "storage/lock.h"

#include "base/shared.h"

extern void bbm_blockers_work_on(int64 migration_id);
extern void bbm_blockers_begin(void);
extern void bbm_blockers_poll(void);
extern void bbm_blockers_over(void);
extern bool bbm_blockers_caused(const ErrorData *error, BbmBlockers *blockers);
extern char *bbm_blockers_to_string(const BbmBlockers *blockers);
extern void bbm_blockers_name(ErrorData *error, const char *string);
extern const char *bbm_blockers_of(const ErrorData *error);

#endif							/* BBM_BASE_BLOCKERS_H */
