/*-------------------------------------------------------------------------
 *
 * control.c
 *		bbm_start, bbm_pause, bbm_cancel, bbm_retry, bbm_wait,
 *		bbm_ensure_finished.
 *
 * Starting and pausing are the UPDATE that the runbook has, by a user who is
 * checked to own the migration; the table's triggers do the rest of the work.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/commit.h"
#include "base/impact_counts.h"
#include "base/locks.h"
#include "base/shmem.h"
#include "base/slots.h"
#include "base/standby.h"
#include "base/wait_event.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/migrations.h"
#include "engine/event.h"
#include "sql/access.h"
#include "sql/cluster.h"
#include "sql/cluster_control.h"
#include "sql/doctor.h"
#include "sql/forward.h"

PG_FUNCTION_INFO_V1(bbm_start);
PG_FUNCTION_INFO_V1(bbm_pause);
PG_FUNCTION_INFO_V1(bbm_cancel);
PG_FUNCTION_INFO_V1(bbm_retry);
PG_FUNCTION_INFO_V1(bbm_wait);
PG_FUNCTION_INFO_V1(bbm_ensure_finished);

/* With shared memory we are informed of changes; this interval is for those that nobody reports. */
#define BBM_NEXT_POLL_MS 1000
#define BBM_POLL_MS 100
#define BBM_NODES_POLL_MS 500
#define BBM_CANCEL_AGAIN 10		/* polls between two signals */

/* Raises an error in a transaction that would never see the end of a wait. */
static void
check_isolation(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait in a transaction of isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("It would never see the state change."),
				 errhint("Use READ COMMITTED.")));
}

/* Sleeps until some state has changed, at most this long. */
static void
wait_for_change(long ms)
{
	if (bbm_shared)
		(void) ConditionVariableTimedSleep(&bbm_shared->changed, Min(ms, BBM_NEXT_POLL_MS),
										   bbm_wait_event(BBM_WAIT_STATE));
	else
		bbm_sleep(Min(ms, BBM_POLL_MS), BBM_WAIT_STATE);
	CHECK_FOR_INTERRUPTS();
}

/* Called so that no change is missed between a poll and the sleep that follows. */
static void
begin_wait(void)
{
	bbm_impact_leave_out();
	if (bbm_shared)
		ConditionVariablePrepareToSleep(&bbm_shared->changed);
}

static void
end_wait(void)
{
	ConditionVariableCancelSleep();
}

/* The migration of that name, which the caller may control.  One that is about a shard goes as the whole does. */
static BbmMigration *
controlled(const char *name, const char *verb)
{
	BbmMigration *migration = bbm_get_migration(name);

	if (migration->shard_id != 0)
		bbm_check_not_of_cluster(migration, verb, BBM_OF_THE_WHOLE);
	return migration;
}

/* All migrations with these statuses that the caller may control, without those that are about a shard. */
static List *
mine_with_status(List *statuses)
{
	List	   *mine = NIL;
	ListCell   *cell;

	foreach(cell, bbm_migrations_with_status(statuses))
	{
		BbmMigration *migration = lfirst(cell);

		if (migration->shard_id == 0 && has_privs_of_role(GetUserId(), migration->owner))
			mine = lappend(mine, migration);
	}
	return mine;
}

/*
 * Can it be started as far as its owner is concerned?  A cloned or restored
 * one is given to the role here that has its owner's name.  If not, a WARNING
 * says so: it must not keep the others from being started.
 */
static bool
check_owner_is_here(const BbmMigration *migration)
{
	BbmDefinition d;
	const char *name;
	Oid			owner;

	if (!bbm_migration_is_copy(migration->origin, migration->restored) ||
		!bbm_migration_definition(migration->id, &d) || !bbm_definition_has(&d, "owner"))
		return true;
	name = NameStr(*DatumGetName(bbm_definition_get(&d, "owner")));
	owner = get_role_oid(name, true);
	if (OidIsValid(owner) && (owner == migration->owner || bbm_may_own(owner)))
		return true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("migration \"%s\" was not started", migration->name),
			 OidIsValid(owner) ? errdetail("Its owner is role \"%s\", for which you may not start it here.", name) :
			 errdetail("Its owner was role \"%s\", which does not exist here.", name),
			 errhint("bbm_alter(..., owner => ...) gives it to another role.")));
	return false;
}

/* Those that can be started. */
static List *
startable(List *migrations)
{
	List	   *result = NIL;
	ListCell   *cell;

	foreach(cell, migrations)
	{
		if (check_owner_is_here(lfirst(cell)) && bbm_cluster_may_start(lfirst(cell)))
			result = lappend(result, lfirst(cell));
	}
	return result;
}

static int
set_all(List *migrations, BbmStatus status)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, migrations)
	{
		if (bbm_migration_set_status(((BbmMigration *) lfirst(cell))->id, status))
			n++;
	}
	return n;
}

/* Also bbm_resume. */
Datum
bbm_start(PG_FUNCTION_ARGS)
{
	List	   *migrations;
	int			n;
	Datum		result;

	/* which of its names was called */
	bbm_must_be_writable(psprintf("%s()", get_func_name(fcinfo->flinfo->fn_oid)));
	if (!PG_ARGISNULL(0) && bbm_forward(fcinfo, bbm_name_argument(fcinfo), &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	if (PG_ARGISNULL(0))
		migrations = startable(mine_with_status(list_make1_int(BBM_PAUSED)));
	else
		migrations = list_make1(controlled(bbm_name_argument(fcinfo), "start"));
	n = set_all(migrations, BBM_ACTIVE);
	SPI_finish();
	if (n > 0)
		bbm_warn_if_nothing_runs();
	PG_RETURN_INT32(n);
}

/*
 * Cancels, or just counts, the batches in flight.  The caller has paused the
 * migrations in this transaction, so that no batch follows: a claim waits for
 * our locks.  "strict": an error if that cannot be said of some node.
 */
static int
batches_in_flight(List *migrations, bool cancel, bool strict)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, migrations)
	{
		BbmMigration *migration = lfirst(cell);

		n += bbm_is_of_cluster(migration) ? bbm_cluster_pause(migration, cancel, strict) :
			cancel ? bbm_cancel_running(migration->id) : bbm_count_running(migration->id);
	}
	return n;
}

/* Called at the end of a wait, also by FATAL. */
static void
no_more_waiting(int code, Datum arg)
{
	bbm_await_batches(false);
}

static bool
any_has_nodes(List *migrations)
{
	ListCell   *cell;

	foreach(cell, migrations)
	{
		if (bbm_is_of_cluster(lfirst(cell)))
			return true;
	}
	return false;
}

/* Waits until no batch of them is in flight. */
static void
wait_for_batches(List *migrations, bool cancel)
{
	begin_wait();
	bbm_ours_begin();
	bbm_await_batches(true);
	PG_ENSURE_ERROR_CLEANUP(no_more_waiting, (Datum) 0);
	{
		/*
		 * A signal that came between two transactions of a process is kept
		 * for the next one; but one may be lost, as when all that it ends is
		 * the wait of a commit for a standby.  So it is sent again.
		 */
		for (int i = 1;; i++)
		{
			bool		nodes = any_has_nodes(migrations);
			int			n;

			/* an SPI level of its own, so that a long wait leaves nothing in memory */
			SPI_connect();
			n = batches_in_flight(migrations, cancel && (nodes || i % BBM_CANCEL_AGAIN == 0), true);
			SPI_finish();
			if (n == 0)
				break;
			/* nothing of theirs wakes us */
			if (nodes)
				bbm_sleep(BBM_NODES_POLL_MS, BBM_WAIT_STATE);
			else
				wait_for_change(BBM_POLL_MS);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(no_more_waiting, (Datum) 0);
	no_more_waiting(0, (Datum) 0);
	bbm_ours_end();
	end_wait();
}

/*
 * Pauses, and cancels and waits as requested.  Returns how many were paused;
 * *cancelled is how many batches there were to cancel.
 */
static int
pause_all(List *migrations, bool cancel, bool wait, int *cancelled)
{
	int			n;

	if (cancel || wait)
		bbm_cluster_hold(migrations);
	if (wait)
		bbm_cluster_check_pause(migrations);
	n = set_all(migrations, BBM_PAUSED);
	bbm_cluster_pause_again(migrations);
	*cancelled = 0;
	if (wait)
		check_isolation();
	if (cancel)
		*cancelled = batches_in_flight(migrations, true, wait);
	if (wait)
		wait_for_batches(migrations, cancel);
	return n;
}

/* Somebody has paused all that is this node's: what belongs to a whole goes on, and he may not know that. */
static void
warn_of_shards(void)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, bbm_migrations_with_status(list_make2_int(BBM_ACTIVE, BBM_RUNNING)))
		n += ((BbmMigration *) lfirst(cell))->shard_id != 0;
	if (n > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg_plural("%d migration of a shard goes on", "%d migrations of shards go on", n, n),
				 errdetail("They are parts of migrations of distributed tables, which are on the coordinator."),
				 errhint("Pause those, by their names here or on the coordinator.")));
}

Datum
bbm_pause(PG_FUNCTION_ARGS)
{
	bool		cancel = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		wait = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	List	   *migrations;
	int			cancelled;
	int			n;
	Datum		result;

	bbm_must_be_writable("bbm_pause()");
	if (!PG_ARGISNULL(0) && bbm_forward_pause(fcinfo, bbm_name_argument(fcinfo), &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	if (PG_ARGISNULL(0))
		migrations = mine_with_status(list_make2_int(BBM_ACTIVE, BBM_RUNNING));
	else
		migrations = list_make1(controlled(bbm_name_argument(fcinfo), "pause"));
	n = pause_all(migrations, cancel, wait, &cancelled);
	if (PG_ARGISNULL(0))
		warn_of_shards();
	SPI_finish();
	PG_RETURN_INT32(n);
}

Datum
bbm_cancel(PG_FUNCTION_ARGS)
{
	char	   *name;
	int			cancelled;
	Datum		result;

	bbm_must_be_writable("bbm_cancel()");
	name = bbm_name_argument(fcinfo);
	if (bbm_forward(fcinfo, name, &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	(void) pause_all(list_make1(controlled(name, "cancel")), true, true, &cancelled);
	SPI_finish();
	PG_RETURN_INT32(cancelled);
}

Datum
bbm_retry(PG_FUNCTION_ARGS)
{
	char	   *name;
	BbmMigration *migration;
	BbmUnfinished unfinished;
	BbmStatus	status;
	int64		quarantined;
	Datum		result;

	bbm_must_be_writable("bbm_retry()");
	name = bbm_name_argument(fcinfo);
	if (bbm_forward(fcinfo, name, &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	migration = controlled(name, "retry");
	bbm_cluster_hold(list_make1(migration));
	/* it must not fail, and no job be claimed, between the check and the fresh attempts */
	if (!bbm_migration_lock(migration->id, &status))
		bbm_no_such_migration(name);
	bbm_jobs_unfinished(migration->id, &unfinished);
	(void) bbm_jobs_refresh(migration->id);
	/* before the rows: what verification has found begins to be done */
	if (status == BBM_FAILED && !bbm_is_of_cluster(migration))
		(void) bbm_migration_set_status(migration->id, BBM_ACTIVE);
	quarantined = bbm_is_of_cluster(migration) ? bbm_cluster_retry(migration) :
		bbm_jobs_have_repair(migration->id) ? bbm_errors_count(migration->id) : bbm_errors_retry(migration->id);
	if (status == BBM_FINISHED && quarantined > 0)
	{
		bbm_migration_reopen(migration->id);
		bbm_wake_at_commit(migration->owner);
	}
	else if (status == BBM_FAILED && bbm_is_of_cluster(migration))
		(void) bbm_migration_set_status(migration->id, BBM_ACTIVE);
	else if (status == BBM_ACTIVE || status == BBM_RUNNING)
		/* a change of the row, so that a sleeping worker polls at once */
		bbm_migration_write(migration->id, &(BbmDefinition) {0}, false);
	SPI_finish();
	if (status == BBM_FAILED || (status == BBM_FINISHED && quarantined > 0))
		bbm_warn_if_nothing_runs();
	PG_RETURN_INT64(unfinished.failed + quarantined);
}

/* Until when a wait goes on, if the clock was set back since "before": no longer for that. */
static TimestampTz
until_by_clock(TimestampTz until, TimestampTz now, TimestampTz before)
{
	return until == DT_NOEND || now >= before ? until : until - (before - now);
}

/*
 * Waits for a migration that is on the coordinator; returns what bbm_wait
 * returns, or NULL if there is none.
 */
static char *
wait_elsewhere(const char *name, TimestampTz until)
{
	TimestampTz before = GetCurrentTimestamp();

	for (;;)
	{
		char	   *status = bbm_forward_query(name, psprintf("SELECT %s.bbm_wait(%s, '0')", bbm_catalog()->schema,
															  quote_literal_cstr(name)));
		TimestampTz now = GetCurrentTimestamp();

		until = until_by_clock(until, now, before);
		before = now;
		if (status == NULL || strncmp(status, "finished", 8) == 0 || strncmp(status, "failed", 6) == 0 || now >= until)
			return status;
		pfree(status);
		bbm_sleep(until == DT_NOEND ? BBM_NEXT_POLL_MS :
				  Min(BBM_NEXT_POLL_MS, TimestampDifferenceMilliseconds(now, until)), BBM_WAIT_STATE);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Reports what would make a wait last for ever; called once, when it begins.  One
 * with a limit returns that the migration is paused.
 */
static void
warn_of_endless_wait(const BbmMigration *migration, bool limited)
{
	if (migration->status == BBM_PAUSED && !limited)
		ereport(NOTICE,
				(errmsg("migration \"%s\" is paused", migration->name),
				 errhint("bbm_start starts it; until somebody does, there is nothing to wait for.")));
	else if (migration->status == BBM_ACTIVE)
		bbm_warn_if_nothing_runs();
}

/* What the server says of a timeout that cannot be added to the time. */
static void
timeout_error(void *arg)
{
	errdetail("The wait would end at a time that no timestamp can have.");
	errhint("Give a shorter timeout, or none to wait without a limit.");
}

/* When a wait ends that begins at that time; at once with a negative timeout, however long before all timestamps. */
static TimestampTz
end_of_timeout(TimestampTz begins, Datum timeout)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = timeout_error};
	Interval	zero = {0};
	Datum		until;

	if (DatumGetBool(DirectFunctionCall2(interval_lt, timeout, IntervalPGetDatum(&zero))))
		return begins;
	error_context_stack = &callback;
	until = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(begins), timeout);
	error_context_stack = callback.previous;
	return DatumGetTimestampTz(until);
}

Datum
bbm_wait(PG_FUNCTION_ARGS)
{
	char	   *name = bbm_name_argument(fcinfo);
	TimestampTz before = GetCurrentTimestamp();
	TimestampTz until = PG_ARGISNULL(1) ? DT_NOEND : end_of_timeout(before, PG_GETARG_DATUM(1));
	int			status;
	const char *quarantined = "";
	bool		begins = true;
	MemoryContext context = CurrentMemoryContext;
	char	   *there;

	check_isolation();
	bbm_notice_standby();
	there = wait_elsewhere(name, until);
	if (there)
		PG_RETURN_TEXT_P(cstring_to_text(there));
	bbm_ours_begin();
	begin_wait();
	for (;;)
	{
		BbmMigration *migration;
		TimestampTz now = GetCurrentTimestamp();

		until = until_by_clock(until, now, before);
		before = now;
		SPI_connect();
		migration = bbm_visible_migration(name);
		if (migration == NULL)
			bbm_no_such_migration(name);
		status = migration->status;
		if (begins && now < until && !RecoveryInProgress())
			warn_of_endless_wait(migration, until != DT_NOEND);
		begins = false;
		/* SPI's memory ends with it */
		if (status == BBM_FINISHED)
			quarantined = MemoryContextStrdup(context, bbm_quarantined_to_string(migration->id));
		SPI_finish();
		if (status == BBM_FINISHED || status == BBM_FAILED || now >= until)
			break;
		wait_for_change(until == DT_NOEND ? BBM_NEXT_POLL_MS :
						Max(TimestampDifferenceMilliseconds(now, until), 1));
	}
	end_wait();
	bbm_ours_end();
	/* rows that were not done must not look like success */
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s%s", bbm_status_word(status), quarantined)));
}

/* Adds a sentence to a text, once. */
static void
add_sentence(StringInfo text, const char *sentence)
{
	if (strstr(text->data, sentence) == NULL)
		appendStringInfo(text, "%s%s", text->len > 0 ? " " : "", sentence);
}

/* Adds what to do about a failure: the hint that was recorded with the error, which may be bbm's or another one. */
static void
add_failure_hint(const BbmProgress *progress, StringInfo hint)
{
	if (progress->hint)
		add_sentence(hint, progress->hint);
	if (progress->hint == NULL || strstr(progress->hint, "bbm_") == NULL)
		add_sentence(hint, "Correct the cause of a failure, then call bbm_retry.");
}

/*
 * Describes why a migration does not count as finished, and what to do about
 * it; adds nothing when it does.
 */
static void
describe_unfinished(const BbmMigration *migration, StringInfo detail, StringInfo hint)
{
	const char *name = migration->name;
	BbmProgress progress;
	const char *quarantined;

	switch (migration->status)
	{
		case BBM_FINISHED:
			quarantined = bbm_quarantined_to_string(migration->id);
			if (!migration->was_done)
			{
				add_sentence(detail, psprintf("Migration \"%s\" was inserted as finished and has never run.", name));
				add_sentence(hint, "Drop what was inserted as finished and define it anew, to have it done.");
			}
			else if (quarantined[0] != '\0')
			{
				add_sentence(detail, psprintf("Migration \"%s\" is finished%s.", name, quarantined));
				add_sentence(hint, BBM_QUARANTINE_HINT);
			}
			break;
		case BBM_FAILED:
			bbm_migration_progress(migration->id, CurrentMemoryContext, &progress);
			add_sentence(detail, psprintf("Migration \"%s\" has failed%s%s.", name, progress.error ? ": " : "",
										  progress.error ? progress.error : ""));
			add_failure_hint(&progress, hint);
			break;
		case BBM_PAUSED:
			add_sentence(detail, psprintf("Migration \"%s\" is paused.", name));
			add_sentence(hint, "bbm_start starts what is paused, or CALL bbm_run finishes it in this session.");
			break;
		default:
			add_sentence(detail, psprintf("Migration \"%s\" is %s.", name, bbm_status_word(migration->status)));
			add_sentence(hint, "bbm_wait waits for what is active or running, or CALL bbm_run finishes it in this session.");
			break;
	}
}

/* The same for one that is on the coordinator; false if there is none. */
static bool
describe_elsewhere(const char *name, StringInfo detail, StringInfo hint)
{
	const char *schema = bbm_catalog()->schema;
	char	   *literal = quote_literal_cstr(name);
	char	   *status = bbm_forward_query(name, psprintf("SELECT coalesce(max(status), '') FROM %s.bbm_status(%s)", schema,
														  literal));

	if (status == NULL || status[0] == '\0')
		return false;
	if (strcmp(status, "finished") == 0)
		/* whether the work is done: an error if not */
		(void) bbm_forward_query(name, psprintf("SELECT %s.bbm_ensure_finished(%s)", schema, literal));
	else
	{
		add_sentence(detail, psprintf("Migration \"%s\", on the coordinator, is %s.", name, status));
		add_sentence(hint, "bbm_wait waits for what is active or running; bbm_start starts what is paused.");
	}
	return true;
}

Datum
bbm_ensure_finished(PG_FUNCTION_ARGS)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;
	StringInfoData detail;
	StringInfoData hint;

	if (PG_ARGISNULL(0))
		bbm_must_not_be_null("names");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	/* a list that was computed, and came out empty, must not be taken for one of finished migrations */
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("names must not be empty"),
				 errdetail("It says which migrations must be finished, and without any there is nothing to check."),
				 errhint("Name each migration that the change relies on; bbm_status() lists those you may see.")));
	initStringInfo(&detail);
	initStringInfo(&hint);
	SPI_connect();
	for (int i = 0; i < n; i++)
	{
		char	   *name;
		BbmMigration *migration;

		if (nulls[i])
			bbm_must_not_be_null("names");
		name = TextDatumGetCString(names[i]);
		migration = bbm_visible_migration(name);
		if (migration == NULL && describe_elsewhere(name, &detail, &hint))
			continue;

		/* a misspelt name must not be taken for a finished migration */
		if (migration == NULL)
			bbm_no_such_migration(name);
		describe_unfinished(migration, &detail, &hint);
	}
	if (RecoveryInProgress() && hint.len > 0)
	{
		resetStringInfo(&hint);
		appendStringInfoString(&hint, "This server is a standby: do what is to be done on its primary.");
	}
	if (detail.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("not all migrations are finished"),
				 errdetail_internal("%s", detail.data),
				 errhint("%s", hint.data)));
	SPI_finish();
	PG_RETURN_VOID();
}
