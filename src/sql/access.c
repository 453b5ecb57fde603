/*-------------------------------------------------------------------------
 *
 * access.c
 *		What the SQL-callable functions and the guards share: whose a
 *		migration is, what its status is called, reporting events,
 *		cancelling batches.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/access.h"

#include "catalog/pg_authid.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/user.h"
#include "catalog/claims.h"
#include "catalog/extension.h"
#include "catalog/job_record.h"
#include "catalog/migrations.h"
#include "catalog/shards.h"

/*
 * Raises an error unless the current user has the rights of this owner.  To those
 * who may see the migration it names the owner.
 */
void
bbm_check_owner(Oid owner, const char *name)
{
	Oid			caller = bbm_acting_user();
	bool		sees = bbm_role_may_see(owner);

	if (!has_privs_of_role(caller, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for migration \"%s\"", name ? name : ""),
				 sees ? errdetail("Role \"%s\" does not have the privileges of its owner, role \"%s\".",
								  bbm_role_name(caller), bbm_role_name(owner)) :
				 errdetail("Role \"%s\" does not have the privileges of its owner.", bbm_role_name(caller)),
				 sees ? errhint("Use the owner's role, or a member of it.") :
				 errhint("Ask a superuser or a member of pg_monitor, who see the owner in bbm_status_detail().")));
}

/*
 * The same for a role that defines what a migration does: that runs as its
 * owner, so the check is the one of SET ROLE.  A membership may give the
 * rights without SET ROLE (16 and later), or SET ROLE without the rights
 * (NOINHERIT).
 */
void
bbm_check_definer(Oid owner, const char *name)
{
	bbm_check_owner(owner, name);
	if (!member_can_set_role(bbm_acting_user(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for migration \"%s\"", name ? name : ""),
				 errdetail("Only who may SET ROLE to its owner may define it, or change what it does."),
				 errhint("Starting, pausing and dropping it asks for the owner's privileges alone.")));
}

/* May the current user make this role the owner of a migration? */
bool
bbm_may_own(Oid owner)
{
	Oid			caller = bbm_acting_user();

	return has_privs_of_role(caller, owner) && member_can_set_role(caller, owner) && bbm_catalog_trusts(owner);
}

/* Raises the error for a role that does not exist and was to own a migration. */
pg_noreturn void
bbm_no_such_owner(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("role \"%s\" does not exist", name),
			 errdetail("The owner is the role that the job runs as."),
			 errhint("Name a role that you may SET ROLE to, with bbm_alter if the migration exists; or leave owner out: then it is you.")));
}

/* Raises an error unless the current user may make this role the owner of a migration. */
void
bbm_check_new_owner(Oid owner, const char *name)
{
	Oid			caller = bbm_acting_user();
	bool		has_privileges = has_privs_of_role(caller, owner);

	if (!has_privileges || !member_can_set_role(caller, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to make role \"%s\" the owner of migration \"%s\"", bbm_role_name(owner), name ? name : ""),
				 has_privileges ? errdetail("Role \"%s\" may not SET ROLE to it.", bbm_role_name(caller)) :
				 errdetail("Role \"%s\" does not have its privileges.", bbm_role_name(caller)),
				 errhint("GRANT %s TO %s, or name another owner.", quote_identifier(bbm_role_name(owner)),
						 quote_identifier(bbm_role_name(caller)))));
}

/* Where a worker logs in as the owner, the owner must be allowed to log in. */
void
bbm_check_may_log_in(Oid role)
{
	if (!bbm_may_log_in(role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" cannot own a migration, because it is not permitted to log in",
						bbm_role_name(role)),
				 errdetail("Before PostgreSQL 17 a background worker cannot run as such a role."),
				 errhint("ALTER ROLE ... LOGIN; without a password nobody can use that.")));
}

/*
 * May the current user write rows of our tables as they were elsewhere?  The
 * owner of the tables may, by the server's rules; so may a superuser.
 */
bool
bbm_may_restore(void)
{
	return object_ownercheck(RelationRelationId, bbm_catalog()->migrations, bbm_acting_user());
}

/*
 * May the current user know about this owner's migrations?  This does not
 * check the session's user: in a SECURITY DEFINER function, or in an index's
 * expression that a superuser's VACUUM evaluates, that is somebody else, who
 * has not asked.
 */
bool
bbm_role_may_see(Oid owner)
{
	Oid			caller = bbm_acting_user();

	return has_privs_of_role(caller, owner) || has_privs_of_role(caller, ROLE_PG_MONITOR);
}

/*
 * Does a process run this job?  The lock of its worker id shows this, unless
 * the job has released all advisory locks of its session; then the lock of the
 * job's row does.
 */
static bool
job_is_alive(const BbmRunningJob *job)
{
	return bbm_worker_is_alive(bbm_lock_class(), job->worker_id) || bbm_job_is_locked(job->id);
}

/*
 * Cancels the batches of a migration that live processes run; returns how many
 * there are.  A process may have gone on to another batch by the time the
 * signal arrives: that batch is requeued then, which costs its time and no
 * attempt.  Needs a transaction and SPI; the caller has checked the right to
 * cancel.
 */
int
bbm_cancel_running(int64 migration_id)
{
	List	   *running = bbm_jobs_running(migration_id);
	int			n = 0;
	ListCell   *cell;

	BBM_POINT("cancel-listed");
	foreach(cell, running)
	{
		BbmRunningJob *job = lfirst(cell);
		PGPROC	   *proc;

		if (job->pid == MyProcPid || !job_is_alive(job))
			continue;
		n++;
		/* the row alone does not suffice to signal a process */
		proc = BackendPidGetProc(job->pid);
		if (proc && proc->databaseId == MyDatabaseId && proc->roleId == job->owner)
			kill(job->pid, SIGINT);
	}
	return n;
}

/* How many batches of a migration live processes run.  Needs a transaction and SPI. */
int
bbm_count_running(int64 migration_id)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, bbm_jobs_running(migration_id))
		n += job_is_alive(lfirst(cell));
	return n;
}

/* For a name that was not given. */
void
bbm_must_not_be_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what),
			 errdetail("It says which migration is meant."),
			 errhint("bbm_status() lists those you may see.")));
}

/* The name of a migration, the first argument of most functions. */
char *
bbm_name_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		bbm_must_not_be_null("name");
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/* For a name that no migration has, or none that the current user may see; needs SPI. */
static void
report_missing(int level, const char *name, const char *suffix)
{
	char	   *nearest = bbm_migration_nearest(name, bbm_role_may_see);
	char	   *coordinator = bbm_citus_coordinator();

	ereport(level,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("migration \"%s\" does not exist%s", name, suffix),
			 coordinator ? errdetail("Migrations of distributed tables are on the coordinator, node %s.", coordinator) : 0,
			 nearest ? errhint("Perhaps you meant \"%s\". bbm_status() lists those you may see.", nearest) :
			 errhint("bbm_status() lists those you may see.")));
}

/* Raises the error for such a name; needs SPI. */
void
bbm_no_such_migration(const char *name)
{
	report_missing(ERROR, name, "");
	pg_unreachable();
}

/* The same for a call that does not mind; needs SPI. */
void
bbm_notice_no_such_migration(const char *name, const char *suffix)
{
	report_missing(NOTICE, name, suffix);
}

/* The migration of that name, which the current user must own; needs SPI. */
BbmMigration *
bbm_get_migration(const char *name)
{
	BbmMigration *migration = bbm_migration_by_name(name);

	if (migration == NULL)
		bbm_no_such_migration(name);
	bbm_check_owner(migration->owner, name);
	return migration;
}

/* The migration of that name, if the current user may see it; else NULL.  Needs SPI. */
BbmMigration *
bbm_visible_migration(const char *name)
{
	BbmMigration *migration = bbm_migration_by_name(name);

	return migration && bbm_role_may_see(migration->owner) ? migration : NULL;
}

/*
 * A job could reset the role, or the session authorization, of a session that
 * merely switched to the owner, so the session must have logged in as the
 * owner.
 */
void
bbm_check_session_owns(const BbmMigration *migration)
{
	if (GetAuthenticatedUserId() != migration->owner || GetSessionUserId() != migration->owner ||
		GetUserId() != migration->owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot run migration \"%s\" in this session", migration->name),
				 errdetail("Its job runs as role \"%s\", which this session did not log in as.",
						   bbm_role_name(migration->owner)),
				 errhint("Log in as that role, or start it for the background workers with bbm_start.")));
	bbm_catalog_check_trust(migration->owner);
}

/*
 * Anybody who may execute a trigger function can put it on a table of his own
 * and call it with rows that he chooses, so each trigger function works only
 * on our tables.
 */
TriggerData *
bbm_trigger_data(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *data;

	/* nothing of the trigger data may be read before this check */
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", function),
				 errdetail("It guards the tables of extension \"bbm\"."),
				 errhint("There is no need to call it.")));
	data = (TriggerData *) fcinfo->context;
	/* known for the jobs, which each batch writes; reading pg_depend would take longer than the check is worth */
	if (RelationGetRelid(data->tg_relation) != bbm_catalog()->jobs &&
		getExtensionOfObject(RelationRelationId, RelationGetRelid(data->tg_relation)) != bbm_catalog()->extension)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" works on the tables of extension \"bbm\" alone", function),
				 errdetail("It takes the rows that it is called for to be theirs."),
				 errhint("Drop the trigger that calls it for another table.")));
	return data;
}
