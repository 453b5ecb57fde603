/*-------------------------------------------------------------------------
 *
 * cancel.h
 *		Enforcing a cancel that the owner's code catches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_CANCEL_H
#define BBM_BASE_CANCEL_H

#include "postgres.h"

#include "utils/elog.h"

/* Lives in the caller's stack frame. */
typedef struct BbmCancelGuard
{
	bool		on;
	ErrorContextCallback callback;
} BbmCancelGuard;

extern void bbm_cancel_guard_begin(BbmCancelGuard *guard);
extern void bbm_cancel_guard_end(BbmCancelGuard *guard);
extern ErrorData *bbm_copy_error(void);
extern bool bbm_cancel_seen(void);
extern bool bbm_error_is_cancel(const ErrorData *error);
extern bool bbm_cancel_enforced(void);
extern ErrorData *bbm_make_error(int sqlstate, const char *message, const char *hint);
extern ErrorData *bbm_cancelled_by_user(void);

#endif							/* BBM_BASE_CANCEL_H */
