/*-------------------------------------------------------------------------
 *
 * import.c
 *		bbm_import: imports what the GitLab container registry's own tables
 *		have.
 *
 * NOTES
 *	  All of the originals is read and checked before anything is written
 *	  (sql/registry_tables.c), and an error in between undoes everything.  What
 *	  is written gets ids of ours.
 *
 *	  The container registry's worker records a batch in another transaction
 *	  than the batch.  Only a job that it has recorded as finished is known to
 *	  be done: any other job is executed again, and the report says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/bbm.h"
#include "base/compat.h"
#include "base/standby.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/import.h"
#include "catalog/migrations.h"
#include "engine/event.h"
#include "sql/access.h"
#include "sql/registry_tables.h"

PG_FUNCTION_INFO_V1(bbm_import);

static void
name_row(void *arg)
{
	const BbmForeignMigration *m = arg;

	errcontext("importing the migration with id " INT64_FORMAT ", \"%s\"", m->id, m->name);
}

/* What the reader of the report has to know. */
static char *
note(const BbmForeignMigration *m, BbmStatus status, bool again)
{
	int			unfinished = m->n_jobs - m->n_finished;
	StringInfoData string;

	initStringInfo(&string);
	if (again)
		appendStringInfoString(&string, "imported again; ");
	if (m->status != (int) status)
		appendStringInfo(&string, "was %s; ", bbm_status_word(m->status));
	if (status == BBM_FINISHED && unfinished > 0)
		appendStringInfo(&string, "finished there, but for jobs that are not: %d; ", unfinished);
	else if (unfinished > 0)
		appendStringInfo(&string, "jobs that are done again, as it is not known whether they were: %d; ", unfinished);
	if (status == BBM_FINISHED && bbm_foreign_has_ranges(m) && (m->n_jobs == 0 || m->jobs[m->n_jobs - 1].max < m->max))
		appendStringInfoString(&string, "finished there before its last key; ");
	if (bbm_foreign_has_ranges(m) && m->n_jobs > 0 && m->jobs[m->n_jobs - 1].max > m->max)
		appendStringInfoString(&string, "its max_value has been lowered below its last range; ");
	if (string.len == 0)
		return NULL;
	string.data[string.len - 2] = '\0';
	return string.data;
}

typedef struct Import
{
	ReturnSetInfo *rsinfo;
	Oid			owner;
} Import;

/* "known": the caller may know the status of the migration that has the name here. */
static void
report(const Import *import, const BbmForeignMigration *m, BbmStatus status, bool known, bool taken, const char *string)
{
	bool		has_cursor = taken && m->has_last && bbm_foreign_has_ranges(m);
	Datum		values[] = {
		CStringGetTextDatum(m->name), CStringGetTextDatum(bbm_status_word(status)),
		Int64GetDatum(taken ? m->n_finished : 0), Int64GetDatum(taken ? m->n_jobs - m->n_finished : 0),
		Int64GetDatum(m->last), string ? CStringGetTextDatum(string) : (Datum) 0
	};
	bool		nulls[] = {false, !known, false, false, !has_cursor, string == NULL};

	tuplestore_putvalues(import->rsinfo->setResult, import->rsinfo->setDesc, values, nulls);
}

/*
 * A migration that has the name here is deleted, if it was imported and
 * nothing has happened to it since.  We hold its row's lock and its own lock
 * until the end of the transaction: nobody starts or changes it between our
 * check of what has happened and the DELETE.  Returns false when it stays,
 * with the reason.
 */
static bool
make_room(const BbmMigration *known, char **why)
{
	BbmStatus	status;
	char	   *event;

	if (!has_privs_of_role(bbm_acting_user(), known->owner))
	{
		*why = "left as it is: a migration of another role has the name";
		return false;
	}
	/* it was deleted meanwhile */
	if (!bbm_migration_lock(known->id, &status))
		return true;
	event = bbm_import_last_event(known->id);
	if (event == NULL || strcmp(event, "imported") != 0)
	{
		*why = psprintf("left as it is: a migration here has the name; last event: %s", event ? event : "not known");
		return false;
	}
	bbm_migration_delete(known->id);
	return true;
}

static void
import_one(const Import *import, BbmForeignMigration *m)
{
	BbmMigration *known = bbm_migration_by_name(m->name);
	BbmStatus	status = m->status == BBM_FINISHED || m->status == BBM_FAILED ? m->status : BBM_PAUSED;
	ErrorContextCallback context = {.callback = name_row, .arg = m, .previous = error_context_stack};
	char	   *why = NULL;
	int64		id;

	error_context_stack = &context;
	if (known && !make_room(known, &why))
		report(import, m, known->status, has_privs_of_role(bbm_acting_user(), known->owner), false, why);
	else
	{
		if (status != BBM_FINISHED)
			m->finished_at = 0;
		id = bbm_import_migration(m, status, namespace_search_path, GetUserNameFromId(import->owner, false));
		bbm_import_jobs(id, m, m->jobs, m->n_jobs);
		bbm_report_act(id, m->name, "imported", status, import->owner,
					   psprintf("from the registry's row with id " INT64_FORMAT, m->id));
		report(import, m, status, true, true, note(m, status, known != NULL));
	}
	error_context_stack = context.previous;
}

/* The role that is to own the migrations: the caller, or a role that the caller may SET ROLE to. */
static Oid
owner_of(FunctionCallInfo fcinfo, int n)
{
	Oid			owner = PG_ARGISNULL(n) ? GetUserId() : get_role_oid(NameStr(*PG_GETARG_NAME(n)), true);

	if (!OidIsValid(owner))
		bbm_no_such_owner(NameStr(*PG_GETARG_NAME(n)));
	if (!member_can_set_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to import migrations for role \"%s\"", GetUserNameFromId(owner, false)),
				 errdetail("Jobs run as the owner of their migration, so only who may SET ROLE to it may give it some."),
				 errhint("Leave owner out for migrations of your own, or call it as a superuser.")));
	bbm_check_may_log_in(owner);
	bbm_catalog_check_trust(owner);
	return owner;
}

/* bbm_import(migrations, jobs, owner) */
Datum
bbm_import(PG_FUNCTION_ARGS)
{
	Import		import = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	BbmForeignMigration *list;
	int			n;

	bbm_must_be_writable("bbm_import()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "migrations" : "jobs"),
				 errdetail("It is the table that is taken over."),
				 errhint("Name the registry's table as it was renamed.")));
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	import.owner = owner_of(fcinfo, 2);
	list = bbm_foreign_read(PG_GETARG_OID(0), PG_GETARG_OID(1), &n);
	for (int i = 0; i < n; i++)
		import_one(&import, &list[i]);
	SPI_finish();
	return (Datum) 0;
}
