/*-------------------------------------------------------------------------
 *
 * txn.h
 *		The transaction envelope, and error capture.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_TXN_H
#define BBM_BASE_TXN_H

#include "base/bbm.h"

/* Makes us detect a deadlock before anybody else, so that we are its victim. */
#define BBM_DEADLOCK_TIMEOUT 10 /* ms */

typedef void (*BbmTxnFn) (void *arg);

/* Where a failure happened, when its SQLSTATE does not show it. */
extern int	bbm_failing_code;

extern void bbm_txn_become_worker(void);
extern void bbm_txn_lock_timeout(int ms);
extern void bbm_txn_lock_limits(int ms, bool local);
extern void bbm_txn_fire_deferred(void);
extern void bbm_txn_flush(void);
extern void bbm_txn_discard(void);
extern PGDLLEXPORT ErrorData *bbm_txn_run(BbmTxnFn fn, void *arg, bool synchronous);
extern ErrorData *bbm_txn_try(BbmTxnFn fn, void *arg);
extern void bbm_txn_take_back(BbmTxnFn fn, void *arg);
extern ErrorData *bbm_txn_part(BbmTxnFn fn, void *arg);
extern ErrorData *bbm_txn_run_bare(BbmTxnFn fn, void *arg);
extern bool bbm_txn_in_worker(void);

#endif							/* BBM_BASE_TXN_H */
