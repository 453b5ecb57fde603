/*-------------------------------------------------------------------------
 *
 * doctor.c
 *		What would keep migrations from running on this server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"		/* get_database_name; from 19 on in utils/lsyscache.h */
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/bbm.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/shmem.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "sql/doctor.h"

PG_FUNCTION_INFO_V1(bbm_server_problems);
PG_FUNCTION_INFO_V1(bbm_owner_problems);
PG_FUNCTION_INFO_V1(bbm_check_server);

#define BBM_PRELOAD_HINT \
	"Add bbm to shared_preload_libraries and restart the server. Without that, CALL bbm_run() runs migrations in a session, and bbm_launch_worker() starts a worker."
#define BBM_ENABLED_HINT \
	"ALTER SYSTEM SET bbm.enabled = on; then SELECT pg_reload_conf(). Until then CALL bbm_run() runs migrations in a session."

static void
warn(bool preloaded)
{
	if (!preloaded)
		ereport(WARNING,
				(errmsg("no worker runs migrations on this server: the library is not preloaded"),
				 errhint("%s", BBM_PRELOAD_HINT)));
	else if (!bbm_enabled)
		ereport(WARNING,
				(errmsg("no worker runs migrations on this server: bbm.enabled is off"),
				 errhint("%s", BBM_ENABLED_HINT)));
}

/*
 * Says that nothing runs by itself, to whoever has just defined or started
 * something.  Without preloading somebody may have launched a worker in this
 * database.  Needs a transaction.
 */
void
bbm_warn_if_nothing_runs(void)
{
	warn(bbm_shared || bbm_launched_permits(bbm_lock_class(), bbm_max_workers) < bbm_max_workers);
}

/* Called by the script of CREATE EXTENSION. */
Datum
bbm_check_server(PG_FUNCTION_ARGS)
{
	warn(bbm_shared != NULL);
	PG_RETURN_VOID();
}

static void
put_problem(ReturnSetInfo *rsinfo, const char *problem, const char *detail, const char *advice)
{
	Datum		values[3] = {CStringGetTextDatum(problem), CStringGetTextDatum(detail), CStringGetTextDatum(advice)};
	bool		nulls[3] = {false, false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The launcher and discovery take a process each, besides the workers. */
static void
check_processes(ReturnSetInfo *rsinfo)
{
	int			needed = bbm_max_workers + 2;
	pid_t		launcher;

	if (max_worker_processes < needed)
		put_problem(rsinfo, "max_worker_processes is too low",
					psprintf("It is %d: the launcher takes one, discovery one, and workers up to bbm.max_workers, which is %d.",
							 max_worker_processes, bbm_max_workers),
					psprintf("Set max_worker_processes to at least %d, plus what else needs some, and restart the server.", needed));
	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	launcher = bbm_shared->launcher_pid;
	LWLockRelease(bbm_shared->lock);
	if (launcher == 0 && !RecoveryInProgress())
		put_problem(rsinfo, "the launcher does not run", "It starts the workers.",
					"The server log says why; the server starts it again within seconds.");
}

/* One row for each thing of the server that keeps migrations from running. */
Datum
bbm_server_problems(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const BbmCatalog *catalog = bbm_catalog_find();

	InitMaterializedSRF(fcinfo, 0);
	if (catalog && !bbm_catalog_matches(catalog))
		put_problem(rsinfo, "extension and library are of different versions",
					psprintf("The extension is %s, the library is %s.", catalog->version, BBM_VERSION),
					"Restart the server if its library is older; then ALTER EXTENSION bbm UPDATE.");
	else if (catalog && catalog->flaw)
		put_problem(rsinfo, "bbm's tables are not as they were created", catalog->flaw, catalog->flaw_hint);
	if (catalog && catalog->strange_trigger_name)
		put_problem(rsinfo, "bbm cannot write its tables", catalog->strange_trigger_name,
					"Drop the trigger, and revoke the privilege TRIGGER on the tables.");
	if (RecoveryInProgress())
		put_problem(rsinfo, "the server is a standby", "Nothing runs here; migrations go on by themselves after a promotion.",
					"Look at the primary.");
	if (bbm_shared == NULL)
		put_problem(rsinfo, "the library is not preloaded", "No worker starts by itself.", BBM_PRELOAD_HINT);
	else
		check_processes(rsinfo);
	if (!bbm_enabled)
		put_problem(rsinfo, "bbm.enabled is off", "No worker starts, and those that work exit after their batch.", BBM_ENABLED_HINT);
	return (Datum) 0;
}

/* Can a worker log in as the role? */
static void
check_login(ReturnSetInfo *rsinfo, Oid owner)
{
	const char *role = quote_identifier(GetUserNameFromId(owner, false));
	const char *detail = psprintf("Workers log in as the role %s, as which the job runs.", role);

	if (!bbm_may_log_in(owner))
		put_problem(rsinfo, "its owner may not log in", detail,
					"Give the role LOGIN (it needs no password), or name another owner with bbm_alter.");
	if (object_aclcheck(DatabaseRelationId, MyDatabaseId, owner, ACL_CONNECT) != ACLCHECK_OK)
		put_problem(rsinfo, "its owner may not connect to the database", detail,
					psprintf("GRANT CONNECT ON DATABASE %s TO %s, or name another owner with bbm_alter.",
							 quote_identifier(get_database_name(MyDatabaseId)), role));
}

/*
 * One row for each thing that keeps the migrations of this owner from running.
 * Where the tables are not as they were created nothing runs, whoever owns it,
 * and bbm_server_problems says so.
 */
Datum
bbm_owner_problems(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			owner = PG_GETARG_OID(0);
	const BbmCatalog *catalog = bbm_catalog_find();

	InitMaterializedSRF(fcinfo, 0);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(owner)))
	{
		put_problem(rsinfo, "its owner does not exist", "Workers log in as the role that owns a migration, as which its job runs.",
					"Name another owner with bbm_alter.");
		return (Datum) 0;
	}
	check_login(rsinfo, owner);
	if (catalog && bbm_catalog_matches(catalog) && catalog->flaw == NULL && !bbm_catalog_trusts(owner))
		put_problem(rsinfo, "bbm's tables belong to a role that must not act for its owner",
					"Who owns the tables can write what a migration does, and it runs with its owner's rights.",
					"Give the tables to a superuser, or to a member of the owner.");
	return (Datum) 0;
}
