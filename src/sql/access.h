/*-------------------------------------------------------------------------
 *
 * access.h
 *		What the SQL-callable functions and the guards share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_ACCESS_H
#define BBM_SQL_ACCESS_H

#include "base/bbm.h"

#include "commands/trigger.h"
#include "fmgr.h"

#include "base/compat.h"

/* A process that writes what only workers write may be the container registry's own worker, left running. */
#define BBM_OTHER_WORKER \
	"If it is the container registry's own worker, turn that off: database.backgroundmigrations.enabled: false in its configuration."

extern void bbm_check_owner(Oid owner, const char *name);
extern void bbm_check_definer(Oid owner, const char *name);
extern bool bbm_may_own(Oid owner);
pg_noreturn extern void bbm_no_such_owner(const char *name);
extern void bbm_check_new_owner(Oid owner, const char *name);
extern void bbm_check_may_log_in(Oid role);
extern bool bbm_may_restore(void);
extern bool bbm_role_may_see(Oid owner);
extern int	bbm_cancel_running(int64 migration_id);
extern int	bbm_count_running(int64 migration_id);
extern void bbm_must_not_be_null(const char *what);
extern char *bbm_name_argument(FunctionCallInfo fcinfo);
extern void bbm_no_such_migration(const char *name);
extern void bbm_notice_no_such_migration(const char *name, const char *suffix);
extern PGDLLEXPORT BbmMigration *bbm_get_migration(const char *name);
extern BbmMigration *bbm_visible_migration(const char *name);
extern void bbm_check_session_owns(const BbmMigration *migration);
extern TriggerData *bbm_trigger_data(FunctionCallInfo fcinfo, const char *function);

#endif							/* BBM_SQL_ACCESS_H */
