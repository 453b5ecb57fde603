/*-------------------------------------------------------------------------
 *
 * access.h
 *		What the SQL-callable functions and the guards share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ACCESS_H
#define BBM_ACCESS_H

#include "catalog.h"

extern const char *bbm_status_word(int status);
extern void bbm_tell_event(int64 id, const char *name, const char *event, BbmStatus status, Oid owner,
						   const char *detail);
extern void bbm_check_owner(Oid owner, const char *name);
extern void bbm_check_definer(Oid owner, const char *name);
extern void bbm_check_max_attempts(const int *max_attempts);
extern void bbm_check_may_log_in(Oid role);
extern bool bbm_may_restore(void);
extern bool bbm_role_may_see(Oid owner);
extern bool bbm_job_is_alive(const BbmRunningJob *job);
extern int	bbm_cancel_running(int64 migration_id);
extern void bbm_must_not_be_null(const char *what);
extern BbmMigration *bbm_get_migration(const char *name);
extern void bbm_check_session_owns(const BbmMigration *migration);

#endif							/* BBM_ACCESS_H */
