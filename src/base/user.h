/*-------------------------------------------------------------------------
 *
 * user.h
 *		As which user, and with which settings, a statement runs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_USER_H
#define BBM_BASE_USER_H

#include "base/bbm.h"

/* The search_path of our own statements; pg_temp last, so that it hides nothing. */
#define BBM_SEARCH_PATH "pg_catalog, pg_temp"

extern void bbm_user_install(void);

/* for base/txn.c */
extern void bbm_settings_remember(void);
extern void bbm_settings_pin(void);
extern bool bbm_settings_are_ours(bool ours);

extern void bbm_user_settings_end(int level);

typedef struct BbmUserSwitch
{
	Oid			user;
	int			context;
	int			nest_level;		/* 0: the settings are ours already */
} BbmUserSwitch;

extern void bbm_switch_to_extension_owner(BbmUserSwitch *user_switch, Oid to, bool engine);
extern void bbm_restore_user(BbmUserSwitch *user_switch);
extern bool bbm_engine_writes(void);
extern bool bbm_may_log_in(Oid role);
extern const char *bbm_role_name(Oid role);
extern bool bbm_our_statement(void);
extern Oid	bbm_acting_user(void);
extern Datum bbm_session_settings_now(void);
extern void bbm_job_settings_check(Datum entries);
/* The settings that a job's text is parsed and run with, until bbm_user_settings_end. */
extern int	bbm_job_settings(const BbmMigration *migration);

#endif							/* BBM_BASE_USER_H */
