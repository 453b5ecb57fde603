/*-------------------------------------------------------------------------
 *
 * view.c
 *		What the views and functions for users are made of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"		/* get_database_name; from 19 on in utils/lsyscache.h */
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/bbm.h"
#include "base/blockers.h"
#include "base/guc.h"
#include "base/impact_counts.h"
#include "base/locks.h"
#include "base/shared.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/standby.h"
#include "base/trouble.h"
#include "base/user.h"
#include "base/wait_state.h"
#include "base/waiting.h"
#include "catalog/claims.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "catalog/shards.h"
#include "engine/claim.h"
#include "engine/event.h"
#include "sql/access.h"
#include "sql/arguments.h"
#include "throttle/pace.h"
#include "throttle/throttle.h"

PG_FUNCTION_INFO_V1(bbm_may_see);
PG_FUNCTION_INFO_V1(bbm_status_name);
PG_FUNCTION_INFO_V1(bbm_own_statement);
PG_FUNCTION_INFO_V1(bbm_is_copy);
PG_FUNCTION_INFO_V1(bbm_waiting_on);
PG_FUNCTION_INFO_V1(bbm_last_transient_error);
PG_FUNCTION_INFO_V1(bbm_live_pace);
PG_FUNCTION_INFO_V1(bbm_impact);
PG_FUNCTION_INFO_V1(bbm_reads);
PG_FUNCTION_INFO_V1(bbm_workers);
PG_FUNCTION_INFO_V1(bbm_throttle);

Datum
bbm_may_see(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(bbm_role_may_see(PG_GETARG_OID(0)));
}

Datum
bbm_status_name(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(bbm_status_word(PG_GETARG_INT16(0))));
}

/* Without shared memory the job table shows it. */
static bool
runs_somewhere(int64 id)
{
	bool		runs = false;
	ListCell   *cell;

	SPI_connect();
	foreach(cell, bbm_jobs_running(id))
	{
		BbmRunningJob *job = lfirst(cell);

		if (bbm_worker_is_alive(bbm_lock_class(), job->worker_id))
			runs = true;
	}
	SPI_finish();
	return runs;
}

/* No job of it is due yet; the caller has to know that all of its ranges are allocated. */
static void
waits_for_retry(int64 id, BbmReason *longest)
{
	BbmUnfinished unfinished;

	SPI_connect();
	bbm_jobs_unfinished(id, &unfinished);
	if (unfinished.jobs > 0 && unfinished.due > GetCurrentTimestamp())
	{
		BbmReason	reason = bbm_reason(bbm_unfinished_to_string(&unfinished), unfinished.due);

		bbm_outlasts(longest, &reason);
	}
	SPI_finish();
}

/*
 * It is to be run, and no worker has come to it so far.  If another migration
 * is at work on its table, a worker would not help.
 */
static const char *
worker_or_table(int64 id)
{
	BbmMigration *migration;
	int64		competitor_id = 0;

	SPI_connect();
	migration = bbm_migration_by_id(id, CurrentMemoryContext);
	if (migration && OidIsValid(migration->table_oid) && get_rel_name(migration->table_oid))
	{
		ListCell   *cell;

		foreach(cell, bbm_competing_migrations(id, migration->table_oid))
		{
			BbmCompetitor *competitor = lfirst(cell);

			if (bbm_competes(migration->table_oid, migration, competitor) &&
				bbm_permits_held(bbm_lock_class(), competitor->id, competitor->workers))
				competitor_id = competitor->id;
		}
	}
	SPI_finish();
	return competitor_id != 0 ? psprintf(BBM_WAITS_FOR_TABLE, competitor_id) : "a worker";
}

/*
 * What a migration waits for: of all known reasons the one that lasts longest;
 * NULL when somebody works on it.
 */
static const char *
what_it_waits_for(int64 id, Oid owner)
{
	BbmWaiting *waiting = palloc(sizeof(BbmWaiting));
	BbmReason  *reason = &waiting->longest;
	TimestampTz now = GetCurrentTimestamp();

	bbm_waiting_read(id, owner, waiting);
	if (waiting->works)
		*reason = waiting->of_batch;
	else if (waiting->blocked.count > 0)
		return bbm_blockers_to_string(&waiting->blocked);
	else if (!waiting->anybody && !bbm_enabled)
		return "bbm.enabled, which is off";
	else if (waiting->idle || (!waiting->anybody && reason->text[0] == '\0'))
		waits_for_retry(id, reason);
	if (reason->text[0] == '\0' && waiting->anybody)
		*reason = waiting->of_batch;
	if (reason->text[0] != '\0')
		return reason->text;
	if (waiting->anybody)
		return NULL;
	if (!waiting->requested)
		return "the next poll";
	/* until then no worker would find anything to do, as after errors in a row: there is no lack of them */
	return waiting->requested_for > now ?
		psprintf("its next try, in %d s", (int) (TimestampDifferenceMilliseconds(now, waiting->requested_for) / 1000) + 1) :
		worker_or_table(id);
}

Datum
bbm_is_copy(PG_FUNCTION_ARGS)
{
	char	   *origin = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(bbm_migration_is_copy(origin, PG_ARGISNULL(1) || PG_GETARG_BOOL(1)));
}

/* Is the migration this owner's, and one that the caller may see? */
static bool
may_ask(int64 id, Oid owner)
{
	return bbm_role_may_see(owner) && bbm_migration_is_of(id, owner, GetActiveSnapshot());
}

/*
 * Was it started elsewhere, and its database cloned or restored?  It may have
 * been dropped since may_ask: then it is none, and nothing is known of it.
 */
static bool
is_copy(int64 id)
{
	BbmMigration *migration;
	bool		is;

	SPI_connect();
	migration = bbm_migration_by_id(id, CurrentMemoryContext);
	is = migration && bbm_migration_is_copy(migration->origin, migration->restored);
	SPI_finish();
	return is;
}

/*
 * For the policies of our tables, where they are forced on the owner of the
 * tables: they do not apply to our own statements, which read more than they
 * show.
 */
Datum
bbm_own_statement(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(bbm_our_statement());
}

Datum
bbm_waiting_on(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Oid			owner = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	const char *string;

	/* the id gives access to slots and jobs: it has to belong to that owner */
	if (!may_ask(id, owner))
		PG_RETURN_NULL();
	if (RecoveryInProgress())
		PG_RETURN_TEXT_P(cstring_to_text("a promotion: this server is a standby, and migrations run on its primary"));
	if (is_copy(id))
		PG_RETURN_TEXT_P(cstring_to_text("a start here: the migration was started elsewhere, and its database cloned or restored"));
	if (!bbm_catalog_trusts(owner))
		PG_RETURN_TEXT_P(cstring_to_text("another owner of bbm's tables: this one must not act for the migration's"));
	if (bbm_shared == NULL)
	{
		if (runs_somewhere(id))
			PG_RETURN_NULL();
		PG_RETURN_TEXT_P(cstring_to_text("a worker: the library is not preloaded, so CALL bbm_run or use bbm_launch_worker"));
	}
	string = what_it_waits_for(id, owner);
	if (string == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(string));
}

/* The error that is being retried, which may be in no table as none can be written; or NULL. */
Datum
bbm_last_transient_error(PG_FUNCTION_ARGS)
{
	char	   *trouble = may_ask(PG_GETARG_INT64(0), PG_GETARG_OID(1)) ?
		bbm_trouble_now(PG_GETARG_INT64(0), PG_GETARG_OID(1)) : NULL;

	if (trouble == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(trouble));
}

/* The pace of the processes that work on a migration, and why it is what it is. */
Datum
bbm_live_pace(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	bool		nulls[2] = {true, true};
	double		share;
	int			why;

	if (may_ask(PG_GETARG_INT64(0), PG_GETARG_OID(1)) && bbm_slots_pace(PG_GETARG_INT64(0), &share, &why))
	{
		values[0] = Float8GetDatum(share);
		values[1] = CStringGetTextDatum(bbm_pace_reason_to_string((BbmPaceReason) why));
		nulls[0] = nulls[1] = false;
	}
	return bbm_result_row(fcinfo, 2, values, nulls);
}

/* What it does to the statements of others that run while it does, in the last minutes that it ran. */
Datum
bbm_impact(PG_FUNCTION_ARGS)
{
	Datum		values[6];
	bool		nulls[6] = {true, true, true, true, true, true};

	if (bbm_shared && may_ask(PG_GETARG_INT64(0), PG_GETARG_OID(1)))
	{
		BbmHistogram histograms[BBM_WINDOW_KINDS];
		BbmImpact	impact;

		(void) bbm_impact_read(PG_GETARG_INT64(0), histograms);
		impact = bbm_impact_between(&histograms[BBM_WINDOW_SILENT], &histograms[BBM_WINDOW_WORKED]);
		values[0] = Float8GetDatum(impact.mean);
		values[1] = Float8GetDatum(impact.p99);
		values[2] = Int64GetDatum(impact.statements);
		values[3] = Float8GetDatum(impact.mean_error);
		values[4] = Float8GetDatum(impact.mean_us / 1000);
		values[5] = Float8GetDatum(impact.p99_us / 1000);
		nulls[0] = nulls[4] = !impact.has_mean;
		nulls[3] = !impact.has_error;
		nulls[1] = nulls[5] = !impact.has_p99;
		nulls[2] = false;
	}
	return bbm_result_row(fcinfo, 6, values, nulls);
}

/*
 * Is there something to read about the migration of this name; NULL: about
 * all?  Reports if not, and on a standby where one is.  Called once in each
 * call of a function that reads; a view says nothing.
 */
Datum
bbm_reads(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		is_there = true;

	bbm_notice_standby();
	if (name)
	{
		SPI_connect();
		is_there = bbm_visible_migration(name) != NULL;
		/* the coordinator of a distributed database may have it */
		if (!is_there && bbm_citus_coordinator() == NULL)
			bbm_notice_no_such_migration(name, "");
		SPI_finish();
	}
	PG_RETURN_BOOL(is_there);
}

static const char *
kind_word(BbmKind kind)
{
	static const char *const string[] = {"worker", "launched worker", "foreground", "discovery"};

	return string[kind];
}

static void
put_worker(ReturnSetInfo *rsinfo, int pid, const char *kind, Oid database, Oid owner, int64 migration_id,
		   int64 job, TimestampTz since, const char *waiting_on)
{
	/* the ids of migrations are this database's */
	BbmMigration *migration = migration_id != 0 && database == MyDatabaseId ?
		bbm_migration_by_id(migration_id, CurrentMemoryContext) : NULL;
	char	   *role = GetUserNameFromId(owner, true);
	char	   *database_name = get_database_name(database);
	NameData	names[2] = {{{0}}};
	Datum		values[8] = {
		Int32GetDatum(pid), NameGetDatum(&names[0]), migration ? CStringGetTextDatum(migration->name) : (Datum) 0,
		Int64GetDatum(job), TimestampTzGetDatum(since), CStringGetTextDatum(waiting_on), CStringGetTextDatum(kind),
		NameGetDatum(&names[1])
	};
	bool		nulls[8] = {
		false, role == NULL, migration == NULL, job == 0, since == 0, waiting_on[0] == '\0', false,
			database_name == NULL
	};

	if (role)
		namestrcpy(&names[0], role);
	if (database_name)
		namestrcpy(&names[1], database_name);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
make_ascii(char *text)
{
	for (; *text; text++)
	{
		if (IS_HIGHBIT_SET(*text))
			*text = '?';
	}
}

/* Without shared memory: the jobs that live processes run. */
static void
put_running(ReturnSetInfo *rsinfo)
{
	ListCell   *cell;

	foreach(cell, bbm_jobs_running(0))
	{
		BbmRunningJob *job = lfirst(cell);

		if (bbm_role_may_see(job->owner) && bbm_worker_is_alive(bbm_lock_class(), job->worker_id))
			put_worker(rsinfo, job->pid, "worker", MyDatabaseId, job->owner, job->migration_id, job->id, 0, "");
	}
}

static void
put_slots(ReturnSetInfo *rsinfo, bool with_launcher)
{
	/* copied first: nothing that allocates memory may run under the lock */
	int			nslots = bbm_shared->nslots;
	BbmSlot    *slots = palloc(nslots * sizeof(BbmSlot));
	int			launcher;

	LWLockAcquire(bbm_shared->lock, LW_SHARED);
	memcpy(slots, bbm_shared->slots, nslots * sizeof(BbmSlot));
	launcher = bbm_shared->launcher_pid;
	LWLockRelease(bbm_shared->lock);

	if (with_launcher && launcher != 0)
		put_worker(rsinfo, launcher, "launcher", InvalidOid, InvalidOid, 0, 0, 0, "");
	for (int i = 0; i < nslots; i++)
	{
		BbmSlot    *slot = &slots[i];

		/* another database may have another encoding */
		if (slot->database != MyDatabaseId)
			make_ascii(slot->waiting_on.text);
		else if (slot->blocked.count > 0)
			bbm_clip(slot->waiting_on.text, bbm_blockers_to_string(&slot->blocked), BBM_WAITING_LENGTH);
		if (slot->in_use && slot->pid != 0 && (!OidIsValid(slot->owner) || bbm_role_may_see(slot->owner)))
			put_worker(rsinfo, slot->pid, kind_word(slot->kind), slot->database, slot->owner, slot->migration_id,
					   slot->job_id, slot->since, slot->waiting_on.text);
	}
}

Datum
bbm_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	bbm_notice_standby();
	SPI_connect();
	if (bbm_shared)
		put_slots(rsinfo, !PG_ARGISNULL(0) && PG_GETARG_BOOL(0));
	else
		put_running(rsinfo);
	SPI_finish();
	return (Datum) 0;
}

static void
put_string(Datum *values, bool *nulls, int i, const char *string)
{
	nulls[i] = string == NULL;
	if (string)
		values[i] = CStringGetTextDatum(string);
}

static void
put_signal(void *arg, const BbmThrottleRow *row)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[8] = {0};
	bool		nulls[8] = {false};

	put_string(values, nulls, 0, row->signal);
	put_string(values, nulls, 1, row->value);
	put_string(values, nulls, 2, row->limit);
	/* to a thousandth */
	values[3] = Float8GetDatum(rint(row->share * 1000) / 1000);
	nulls[3] = !row->has_share;
	values[4] = BoolGetDatum(row->reason != NULL);
	nulls[4] = !row->checked;
	put_string(values, nulls, 5, row->checked ? row->reason : "only its workers check it");
	put_string(values, nulls, 6, row->setting);
	values[7] = Float8GetDatum(rint(row->microseconds * 1000) / 1000);
	nulls[7] = !row->checked;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* What a migration would wait for now, signal by signal. */
Datum
bbm_throttle(PG_FUNCTION_ARGS)
{
	char	   *name = bbm_name_argument(fcinfo);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	BbmMigration *migration;

	InitMaterializedSRF(fcinfo, 0);
	bbm_not_on_standby("bbm_throttle()");
	SPI_connect();
	migration = bbm_visible_migration(name);
	/* as in bbm_status: no row for a migration that does not exist, or that the caller may not see */
	if (migration == NULL)
		bbm_notice_no_such_migration(name, "");
	else
	{
		MemoryContext old = MemoryContextSwitchTo(rsinfo->econtext->ecxt_per_query_memory);

		bbm_throttle_show(migration, migration->table_oid, put_signal, rsinfo);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return (Datum) 0;
}
