/*-------------------------------------------------------------------------
 *
 * txn.h
 *		The transaction envelope, error capture, and the block that runs as
 *		the extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_TXN_H
#define BBM_BASE_TXN_H

#include "base/bbm.h"

/* The search_path of our own statements; pg_temp last, so that it hides nothing. */
#define BBM_SEARCH_PATH "pg_catalog, pg_temp"

/* Makes us detect a deadlock before anybody else, so that we are its victim. */
#define BBM_DEADLOCK_TIMEOUT 10 /* ms */

typedef void (*BbmTxnFn) (void *arg);

/* Where a failure happened, when its SQLSTATE does not show it. */
extern int	bbm_failing_code;

extern void bbm_txn_install(void);
extern void bbm_txn_become_worker(void);
extern void bbm_txn_lock_timeout(int ms);
extern int	bbm_user_settings_begin(const char *search_path);
extern void bbm_user_settings_end(int level);
extern void bbm_txn_fire_deferred(void);
extern void bbm_txn_flush(void);
extern void bbm_txn_discard(void);
extern PGDLLEXPORT ErrorData *bbm_txn_run(BbmTxnFn fn, void *arg, bool synchronous);
extern ErrorData *bbm_txn_try(BbmTxnFn fn, void *arg);
extern ErrorData *bbm_txn_run_bare(BbmTxnFn fn, void *arg);
extern bool bbm_txn_in_worker(void);

typedef struct BbmUserSwitch
{
	Oid			user;
	int			context;
	int			nest_level;		/* 0: the settings are ours already */
} BbmUserSwitch;

extern void bbm_switch_to_extension_owner(BbmUserSwitch *user_switch, Oid to, bool engine);
extern void bbm_restore_user(BbmUserSwitch *user_switch);
extern bool bbm_engine_writes(void);
extern bool bbm_our_statement(void);
extern Oid	bbm_acting_user(void);
/* The settings that a job's text is parsed and run with, until bbm_user_settings_end. */
extern int	bbm_job_settings(const BbmMigration *migration);

#endif							/* BBM_BASE_TXN_H */
