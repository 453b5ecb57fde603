/*-------------------------------------------------------------------------
 *
 * cluster.c
 *		The migration of a distributed table as a whole, on the coordinator,
 *		and whether the part of it that is about a shard may run on this node.
 *
 * NOTES
 *	  The batches are the nodes' own: each node has a migration for each of its
 *	  shards, made of the shard's record, and runs it like any other.  The
 *	  migration of the table has no batch.  It has the nodes begin, from time to
 *	  time, with the shards that they have got, and asks how far they are; and it
 *	  is finished when each shard that there is then is.  While the coordinator is
 *	  away, the nodes go on with what they have.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/cluster.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/errors.h"
#include "catalog/events.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/shard_control.h"
#include "catalog/shard_errors.h"
#include "catalog/shard_records.h"
#include "catalog/shards.h"
#include "catalog/totals.h"
#include "engine/verify.h"
#include "target/relation.h"

/*
 * How often the nodes are asked, and how often when one of them does not answer:
 * the process stays meanwhile, so that the status shows which.
 */
#define BBM_CLUSTER_POLL_MS 1000
#define BBM_CLUSTER_SILENT_POLL_MS 1500

/* ... after they have begun, as a small table is done soon; and when they seem to end, not more often than that. */
#define BBM_CLUSTER_FIRST_POLL_MS 250
#define BBM_CLUSTER_LAST_POLL_MS 150

/* How often those are tried that do not know of a pause yet: the status shows them without a process. */
#define BBM_CLUSTER_REACH_MS 5000

/* How often the sums over its shards are made. */
#define BBM_CLUSTER_SUMS_MS 3000

/* ----------------------------------------------------------------
 * On the node of a shard
 * ----------------------------------------------------------------
 */

/* The whole migration is paused: so is the part of it that is about this shard, until the coordinator starts it. */
static void
pause_here(const BbmMigration *migration)
{
	BbmDefinition d = {0};
	BbmStatus	status;

	if (!bbm_migration_lock(migration->id, &status) || (status != BBM_ACTIVE && status != BBM_RUNNING))
		return;
	bbm_definition_set(&d, "status", Int16GetDatum(BBM_PAUSED));
	bbm_migration_write(migration->id, &d, true);
}

/*
 * Checks, before the migration of a shard is resolved, whether the shard is
 * this node's and the whole migration is not paused; if not, ends or pauses
 * it.  A migration that ends here is only what this node knew about the shard:
 * what is done in it is in its record, wherever that is now.
 *
 * The shard's record is locked before the migration's row, as everywhere.  The
 * coordinator may start the whole migration between our check and our commit:
 * then it finds this one paused, and starts it.
 */
bool
bbm_shard_may_run(const BbmMigration *migration)
{
	BbmShard   *shard = bbm_shard_open(migration, false);
	BbmShardState state = shard ? bbm_shard_enter(shard) : BBM_SHARD_GONE;

	bbm_shard_close(shard);
	if (state == BBM_SHARD_PAUSED)
		pause_here(migration);
	else if (state == BBM_SHARD_GONE)
	{
		ereport(LOG,
				(errmsg("migration \"%s\" ends on this node: shard " INT64_FORMAT " is not here, is done, or was taken over",
						bbm_printable(migration->name), migration->shard_id)));
		bbm_ours_begin();
		bbm_migration_delete(migration->id);
		bbm_ours_end();
	}
	return state == BBM_SHARD_OURS;
}

/* ----------------------------------------------------------------
 * On the coordinator
 * ----------------------------------------------------------------
 */

typedef struct ClusterStep
{
	BbmEngine  *engine;
	const BbmMigration *migration;
	MemoryContext context;		/* what is found is allocated here */
	bool		ours;			/* no other process does this just now */
	bool		held;			/* a session is pausing it, and has not committed yet */
	BbmClusterReport report;
	BbmClusterState state;
	char	   *errors;			/* all quarantined rows, if there are new ones; or NULL */
	int			empty;			/* shards that have neither a row nor a record */
	char	   *places;			/* where the shards were when it began; NULL: it has not */
	bool		stale;			/* out of decide: nothing, as somebody has changed the row since */
	bool		moved;			/* out of compare_shards: they are not there any more */
	TimestampTz updated_at;		/* out of decide: when it was made running */
	char	   *unreached;		/* out of reach: the nodes that still do not know */
	BbmStatus	status;			/* out: the migration's */
} ClusterStep;

/* Is it this process that asks the nodes now?  So says the permit; and a session that pauses them goes first. */
static bool
may_ask(ClusterStep *step)
{
	int64		id = step->migration->id;

	step->engine->permit_of = id;
	step->engine->permit = bbm_permit_acquire(bbm_lock_class(), id, 1);
	step->ours = step->engine->permit >= 0;
	step->held = step->ours && !bbm_lock_nodes_at_once(bbm_lock_class(), id);
	return step->ours && !step->held;
}

/* What this process, which may lead several migrations by turns, has done for one of them. */
typedef struct Led
{
	int64		id;
	TimestampTz started_at;		/* the row that the nodes were asked to start ... */
	bool		held;			/* ... which some of them could not do */
	bool		missed;			/* ... or some of them did not hear */
	TimestampTz sums_due;		/* 0: they have not been made */
} Led;

static Led *
led(int64 migration_id)
{
	static List *all = NIL;
	MemoryContext old;
	Led		   *one;
	ListCell   *cell;

	foreach(cell, all)
	{
		one = lfirst(cell);
		if (one->id == migration_id)
			return one;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	one = palloc0(sizeof(Led));
	one->id = migration_id;
	all = lappend(all, one);
	MemoryContextSwitchTo(old);
	return one;
}

/*
 * What the nodes are asked to do.  A migration that was started again gives its
 * failed shards fresh attempts, once: it stays active while a node does not
 * answer, and must not try for ever what fails on the others.
 */
static const char *
action(const BbmMigration *migration)
{
	Led		   *before = led(migration->id);

	if (before->held)
	{
		before->held = false;
		return "start";
	}
	if (migration->status != BBM_ACTIVE || before->started_at == migration->updated_at)
		return "go on";
	before->started_at = migration->updated_at;
	return "start";
}

/*
 * Is a node back that did not hear that the migration was started?  What has
 * failed there had failed before.  All are asked to start again, once: while it
 * is away, what fails on the others counts.
 */
static bool
is_started_late(const ClusterStep *step)
{
	Led		   *before = led(step->migration->id);

	if (!before->missed || step->report.silent > 0)
		return false;
	before->missed = false;
	before->held = true;
	return true;
}

static void
table_has_changed(const BbmMigration *migration)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("table \"%s\" is not distributed as it was when migration \"%s\" was defined", migration->table_name,
					migration->name),
			 errdetail("Its rows have been copied to other shards, and the record of what is done in each says nothing about these."),
			 errhint("Define another migration, whose filter leaves out the rows that are done.")));
}

/*
 * The nodes are asked about the table by its name.  Raises an error if that is
 * not the table of the migration now, and locks it, so that it is until they
 * have answered.
 */
static void
check_name(const BbmMigration *migration)
{
	char	   *name;
	Oid			named;

	LockRelationOid(migration->table_oid, AccessShareLock);
	name = bbm_table_sql_name(migration->table_oid);
	named = bbm_table_find(migration->table_name);
	if (name && named == migration->table_oid)
		return;
	if (name == NULL && OidIsValid(named))
		table_has_changed(migration);
	bbm_failing_code = BBM_CODE_TABLE;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 OidIsValid(named) ?
			 errmsg("table \"%s\" is not the one that migration \"%s\" is about", migration->table_name, migration->name) :
			 errmsg("table \"%s\" does not exist any more", migration->table_name),
			 name ? errdetail("The migration was defined for the table that is now %s.", name) :
			 errdetail("It was there when the migration was defined."),
			 name ? errhint("Name the table as it was; or bbm_drop the migration, and define another one for what is left.") :
			 errhint("bbm_drop the migration.")));
}

/*
 * Is something else quarantined than what is shown?  What verification has found
 * and is done is quarantined no more.  When all shards have ended, there may be
 * as many others.
 */
static bool
errors_differ(const ClusterStep *step)
{
	const BbmClusterState *state = &step->state;

	return state->errors != bbm_errors_count(step->migration->id) ||
		(state->errors > 0 && state->failed + state->finished + step->empty == state->shards);
}

/*
 * Asks all nodes.  No lock of ours is held but the table's, the permit, which says that
 * this process does it, and that of the nodes: a pause may commit meanwhile,
 * and is seen before anything is decided; one that awaits batches waits for us
 * before it writes anything, and we do not ask until it has ended.  A shard
 * that moves meanwhile is reported by one of the two nodes, by both, or by
 * none; it counts as finished only if one of them has read that in its record,
 * which is then true for good.
 */
static void
poll_nodes(void *arg)
{
	ClusterStep *step = arg;
	const BbmMigration *migration = step->migration;
	const char *what;
	MemoryContext old;

	if (!may_ask(step))
		return;
	if (!bbm_citus_is_here() || bbm_citus_local_group() != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("migration \"%s\" is about a distributed table, and this is not the coordinator",
						migration->name),
				 errdetail("Only the coordinator knows which node has which shards."),
				 errhint("Define it again on the coordinator.")));
	check_name(migration);
	old = MemoryContextSwitchTo(step->context);
	step->places = bbm_shard_places(migration->table_oid);
	what = action(migration);
	bbm_cluster_ask(GetUserId(), NULL, bbm_shards_sync_command(migration->shard_record, migration->table_name, what),
					&step->report);
	if (strcmp(what, "start") == 0)
		led(migration->id)->missed = step->report.silent > 0;
	BBM_POINT("cluster-reported");
	bbm_cluster_state(migration->shard_record, migration->table_oid, step->report.shards, &step->state);
	/* what follows is about all shards; a node that does not answer may have none of them */
	if (step->state.missing == 0 && step->state.unrecorded > 0)
		step->empty = bbm_shard_records_complete(migration->owner, migration->shard_record, migration->table_oid,
												 step->state.shards);
	if (step->state.missing == 0 && step->state.same_table && errors_differ(step))
		step->errors = bbm_shard_errors_read(migration->shard_record, migration->table_oid);
	MemoryContextSwitchTo(old);
}

/*
 * After an error: was a shard moved or split since the poll began?  Citus then
 * raises errors of its own, for what it has planned with the shards that were
 * there, and the next poll may succeed.
 */
static void
compare_shards(void *arg)
{
	ClusterStep *step = arg;

	BBM_POINT("shards-compare");
	step->moved = step->places && strcmp(step->places, bbm_shard_places(step->migration->table_oid)) != 0;
}

/*
 * Has it failed?  Where rows are not as they should be, all shards are verified
 * first, so that it is started again once and not shard by shard.
 */
static bool
has_failed(const ClusterStep *step)
{
	const BbmClusterState *state = &step->state;

	return state->failed > state->not_right ||
		(state->failed > 0 && state->failed + state->finished + step->empty == state->shards);
}

/* What verification has found in all shards together. */
static void
fail_by_verification(const ClusterStep *step)
{
	const BbmClusterState *state = &step->state;
	ErrorData	error = {
		.sqlerrcode = ERRCODE_CHECK_VIOLATION,
		.message = psprintf(BBM_VERIFICATION_FOUND, state->found),
		.detail = psprintf("They are in %d of %d shards. %s", state->not_right, state->shards,
						   state->detail ? state->detail : ""),
		.hint = BBM_VERIFICATION_HINT
	};

	bbm_migration_fail(step->migration->id, BBM_CODE_UNKNOWN, &error);
}

static void
fail(const ClusterStep *step)
{
	const BbmClusterState *state = &step->state;
	const char *code = state->sqlstate;
	ErrorData	error = {0};

	error.sqlerrcode = code && strlen(code) == 5 ? MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]) :
		ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	error.message = state->failure ? state->failure : "it failed on its node";
	error.detail = psprintf("Shard %s, one of %d that have failed.%s%s", state->failed_shard, state->failed,
							state->detail ? " " : "", state->detail ? state->detail : "");
	error.hint = "When the cause is gone, start it again: the shards go on where they are.";
	bbm_migration_fail(step->migration->id, BBM_CODE_ATTEMPTS, &error);
}

/* The sums over the shards, of which rate and ETA are made; the rate counts from when they are begun. */
static void
keep_books(const ClusterStep *step)
{
	Led		   *before = led(step->migration->id);
	TimestampTz now = GetCurrentTimestamp();
	BbmElapsed	elapsed = {.resumes = before->sums_due == 0};
	BbmIdleTime idle;
	BbmTotals	totals;

	if (!elapsed.resumes && !bbm_time_has_come(now, before->sums_due, BBM_CLUSTER_SUMS_MS))
		return;
	bbm_idle_time(step->migration->id, now, true, &idle);
	elapsed.left_out_ms = idle.left_out_ms;
	elapsed.paced_ms = idle.paced_ms;
	bbm_totals_advance(step->migration->id, &elapsed, &totals);
	before->sums_due = TimestampTzPlusMilliseconds(now, BBM_CLUSTER_SUMS_MS);
}

/*
 * Shards are paused in their record, and the migration is not: when this server has
 * crashed while a transaction ended, it may have committed on nodes alone, or
 * on some of them later than one that came after it.  As nobody has changed the
 * migration's row since the nodes were asked, it is the row that holds.
 */
static void
release_held(const ClusterStep *step)
{
	if (step->state.held == 0)
		return;
	bbm_shard_record_activate(step->migration->owner, step->migration->shard_record, true);
	led(step->migration->id)->held = true;
}

/*
 * Decides by what the nodes have said.  The row's lock and the migration's
 * lock are held from the check of the status to the commit: no pause can
 * intervene.  What the nodes have said may be out of date by now, but a shard
 * that was finished stays so unless somebody has what is quarantined tried
 * again, which changes the row; and no shard is added to a table but by a split,
 * whose parts are as far as the whole was.
 */
static void
decide(void *arg)
{
	ClusterStep *step = arg;
	const BbmMigration *migration = step->migration;
	const BbmClusterState *state = &step->state;

	BBM_POINT("cluster-decides");
	if (!bbm_migration_lock(migration->id, &step->status) ||
		(step->status != BBM_ACTIVE && step->status != BBM_RUNNING))
		return;
	step->stale = !bbm_migration_is_as_read(migration);
	if (step->stale)
		return;
	if (!state->same_table)
		table_has_changed(migration);
	bbm_cluster_show(migration->id, step->report.shards, state->missing == 0);
	if (step->errors)
		bbm_shard_errors_show(migration->id, step->errors);
	keep_books(step);
	release_held(step);
	if (has_failed(step) && !is_started_late(step))
	{
		if (state->failed > state->not_right)
			fail(step);
		else
			fail_by_verification(step);
		step->status = BBM_FAILED;
	}
	else if (state->shards > 0 && state->finished + step->empty == state->shards)
	{
		bbm_migration_finish(migration->id);
		bbm_events_prune();
		ForceSyncCommit();
		step->status = BBM_FINISHED;
	}
	else if (step->status == BBM_ACTIVE && step->report.silent == 0)
	{
		BbmDefinition d = {0};

		bbm_definition_set(&d, "status", Int16GetDatum(BBM_RUNNING));
		if (!migration->was_started)
			bbm_definition_set(&d, "started_at", TimestampTzGetDatum(GetCurrentTimestamp()));
		bbm_migration_write(migration->id, &d, true);
		step->status = BBM_RUNNING;
		step->updated_at = bbm_migration_by_id(migration->id, CurrentMemoryContext)->updated_at;
	}
}

/*
 * The migration is paused, or has failed, and some nodes could not be reached.
 * They are asked first, without a lock of the migration; if other nodes are
 * away now, those that have come back are paused.  A session may start it before
 * we have its lock: then the nodes know, and there is nothing left to do.
 */
static void
reach(void *arg)
{
	ClusterStep *step = arg;
	const BbmMigration *migration = step->migration;
	char	   *silent = NULL;

	step->unreached = migration->unreached_nodes;
	if (!may_ask(step))
		return;
	bbm_cluster_ask(migration->owner, migration->shard_record, bbm_shards_record_command(migration->shard_record),
					&step->report);
	silent = bbm_unreached_nodes(&step->report);
	if (silent && strcmp(silent, migration->unreached_nodes) == 0)
		return;
	if (bbm_migration_lock(migration->id, &step->status) &&
		(step->status == BBM_PAUSED || step->status == BBM_FAILED))
	{
		bbm_shard_record_pause(migration->owner, migration->shard_record, migration->table_name, &step->report);
		bbm_unreached_nodes_write(migration->id, &step->report);
		silent = bbm_unreached_nodes(&step->report);
	}
	else
		silent = NULL;
	step->unreached = silent ? MemoryContextStrdup(step->context, silent) : NULL;
}

/* What the migration waits for, as bbm_status() shows it. */
static char *
waits_for(const ClusterStep *step)
{
	const BbmClusterState *state = &step->state;
	char	   *shards = psprintf("its nodes: %d of %d shards done%s", state->finished, state->shards,
								  state->not_right > 0 ? psprintf(", %d verified and not right", state->not_right) : "");

	if (step->report.trouble)
		return psprintf("%d of %d nodes that do not answer (%s); %s", step->report.silent, step->report.nodes,
						step->report.trouble, shards);
	return state->waiting ? psprintf("%s; one waits for %s", shards, state->waiting) : shards;
}

/* The migration of a distributed table does not run, but some nodes do not know that yet: pauses it there. */
BbmOutcome
bbm_reach_nodes(BbmEngine *engine, const BbmMigration *migration)
{
	ClusterStep step = {.engine = engine, .migration = migration, .context = CurrentMemoryContext};
	ErrorData  *error = bbm_txn_run(reach, &step, false);
	BbmReason	reason;

	bbm_release_permit(engine);
	/* it does not run, so no error fails it */
	if (error)
		return bbm_try_later(engine, migration->id, migration->name, error);
	bbm_trouble_over(migration->id, engine->owner, migration->name, true);
	if (!step.ours)
		return BBM_NOTHING;
	if (step.unreached == NULL)
	{
		ereport(LOG,
				(errmsg("all nodes know that migration \"%s\" does not run", bbm_printable(migration->name))));
		bbm_state_changed();
		return BBM_WORKED;
	}
	reason = bbm_reason(psprintf("nodes that do not know yet that it does not run: %s", step.unreached),
						TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_CLUSTER_REACH_MS));
	return bbm_wait_until(migration->id, &reason);
}

/*
 * When the nodes were last asked about a migration, as it was then: until when
 * they are not to be asked again, and how far they were.
 */
typedef struct Asked
{
	int64		id;
	TimestampTz updated_at;
	BbmReason	reason;
	TimestampTz at;
	int64		keys;
	int			late;			/* how often more was done than was estimated */
} Asked;

/*
 * This process is woken for other reasons as well, and each question costs a
 * node a new session, whose start its workers take for an application's need of
 * the CPUs.  Whatever is to be asked at once has changed the migration's row.
 */
static Asked *
asked_about(const BbmMigration *migration)
{
	static Asked asked[16];

	return &asked[migration->id % lengthof(asked)];
}

static bool
is_asked(const Asked *asked, const BbmMigration *migration)
{
	return asked->id == migration->id && asked->updated_at == migration->updated_at &&
		!bbm_time_has_come(GetCurrentTimestamp(), asked->reason.due, BBM_CLUSTER_SILENT_POLL_MS);
}

/* After an error: is that no wonder, or can it not be said just now? */
static bool
shards_have_moved(ClusterStep *step)
{
	/* what the error was about */
	int			step_code = bbm_failing_code;
	bool		moved = bbm_txn_run(compare_shards, step, false) != NULL || step->moved;

	bbm_failing_code = step_code;
	return moved;
}

/*
 * In how many milliseconds are the nodes to be asked again?  When more is done
 * than was estimated, the end is near, or nobody knows: so they are asked soon, and
 * then less and less often.
 */
static int
ask_again_in(Asked *asked, const ClusterStep *step, TimestampTz now)
{
	int64		left = step->state.total - step->state.keys;
	int64		done = step->state.keys - asked->keys;

	if (step->report.silent > 0)
		return BBM_CLUSTER_SILENT_POLL_MS;
	if (asked->id != step->migration->id || step->state.total == 0)
		return BBM_CLUSTER_POLL_MS;
	if (left <= 0 && done > 0)
		return bbm_poll_less_often_ms(asked->late++, BBM_CLUSTER_LAST_POLL_MS, BBM_CLUSTER_POLL_MS);
	return bbm_poll_when_done_ms(left, done, now - asked->at, BBM_CLUSTER_LAST_POLL_MS, BBM_CLUSTER_POLL_MS);
}

/* They have been asked, about the row as it is then; returns what the migration waits for, and until when. */
static BbmReason
keep_asked(Asked *asked, const ClusterStep *step, TimestampTz updated_at)
{
	TimestampTz now = GetCurrentTimestamp();
	int			ms = step->updated_at != 0 ? BBM_CLUSTER_FIRST_POLL_MS : ask_again_in(asked, step, now);
	int			late = step->updated_at != 0 || asked->id != step->migration->id ? 0 : asked->late;

	*asked = (Asked) {step->migration->id, updated_at,
		bbm_reason(waits_for(step), TimestampTzPlusMilliseconds(now, ms)), now, step->state.keys, late};
	return asked->reason;
}

/* The migration of a distributed table: asks the nodes how far they are, and waits. */
BbmOutcome
bbm_lead_cluster(BbmEngine *engine, const BbmMigration *migration)
{
	ClusterStep step = {.engine = engine, .migration = migration, .context = CurrentMemoryContext};
	Asked	   *asked = asked_about(migration);
	ErrorData  *error;
	BbmReason	reason;
	bool		ends;

	if (is_asked(asked, migration))
		return bbm_wait_until(migration->id, &asked->reason);
	error = bbm_txn_run(poll_nodes, &step, false);
	if (error == NULL && step.ours && !step.held)
		error = bbm_txn_run(decide, &step, false);
	bbm_release_permit(engine);
	if (error && shards_have_moved(&step))
		return bbm_try_later(engine, migration->id, migration->name, error);
	if (error)
		return bbm_fail_or_wait(engine, migration, error);
	bbm_trouble_over(migration->id, engine->owner, migration->name, true);
	if (!step.ours)
		return BBM_NOTHING;
	/* somebody has changed the row since: asks again */
	if (step.stale)
		return BBM_WORKED;
	if (step.held)
	{
		reason = bbm_reason("a session that pauses it",
							TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_CLUSTER_POLL_MS));
		return bbm_wait_until(migration->id, &reason);
	}
	ends = step.status == BBM_FINISHED || step.status == BBM_FAILED;
	if (ends || step.status != migration->status)
	{
		ereport(LOG,
				(errmsg("migration \"%s\" %s", bbm_printable(migration->name),
						step.status == BBM_FINISHED ? "is finished" : step.status == BBM_FAILED ? "failed" :
						step.status == BBM_RUNNING ? "is running" : "is paused or gone")));
		bbm_state_changed();
		/* it was this process that has changed the row, which says nothing new */
		if (step.updated_at != 0)
			(void) keep_asked(asked, &step, step.updated_at);
		return BBM_WORKED;
	}
	reason = keep_asked(asked, &step, migration->updated_at);
	return bbm_wait_until(migration->id, &reason);
}
