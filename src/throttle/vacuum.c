/*-------------------------------------------------------------------------
 *
 * vacuum.c
 *		Vacuuming the table that batches have filled with dead tuples.
 *
 * The vacuum runs as the migration's owner, with the owner's rights, between
 * two batches.  A session that waits for the table longer than
 * bbm.max_blocking_time gets it: the vacuum is cancelled as a batch would be.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/cancel.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/slots.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "throttle/signal.h"

/* Between two vacuums for one migration: a vacuum that does not help must not be repeated all the time. */
#define BBM_VACUUM_AGAIN_MS (10 * 1000)

typedef struct VacuumArgs
{
	const BbmMigration *migration;
	MemoryContext context;		/* outlives the transactions of the vacuum */
	Oid			relid;
	const char *name;
} VacuumArgs;

/*
 * VACUUM commits by itself, so nothing is held from the check to its work: it
 * skips a table that is dropped or gets another owner in between.  It takes
 * the lock that autovacuum would take, for which it waits at most
 * lock_timeout.  It runs as a utility command, for extensions that hook into
 * those; the OID, not the name, determines which table the server takes.
 */
static void
vacuum_one(void *arg)
{
	VacuumArgs *args = arg;
	char	   *table = get_rel_name(args->relid);
	Oid			schema = get_rel_namespace(args->relid);
	VacuumStmt *stmt;
	PlannedStmt *command;
	QueryCompletion completion;

	if (table == NULL)
		return;
	if (!bbm_may_vacuum(args->relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to vacuum \"%s\"", args->name),
				 errdetail("The worker is logged in as the migration's owner, who is not the table's."),
				 errhint("Leave it to autovacuum, or turn bbm.vacuum off.")));
	MemoryContextSwitchTo(args->context);
	stmt = makeNode(VacuumStmt);
	stmt->is_vacuumcmd = true;
	stmt->rels = list_make1(makeVacuumRelation(makeRangeVar(get_namespace_name(schema), pstrdup(table), -1),
											   args->relid, NIL));
	/*
	 * To return empty pages at the table's end to the operating system takes
	 * an ACCESS EXCLUSIVE lock, which a standby replays and cancels its
	 * queries for: that is for the table's owner to decide, not for us.
	 */
	stmt->options = list_make1(makeDefElem("truncate", (Node *) makeString("off"), -1));
	command = makeNode(PlannedStmt);
	command->commandType = CMD_UTILITY;
	command->canSetTag = true;
	command->utilityStmt = (Node *) stmt;
	InitializeQueryCompletion(&completion);
	debug_query_string = psprintf("VACUUM (TRUNCATE off) %s", quote_qualified_identifier(get_namespace_name(schema), table));
	bbm_lock_watch_begin(bbm_setting_int(args->migration, BBM_MAX_BLOCKING_TIME), 0);
	BBM_POINT("vacuum-checked");
	ProcessUtility(command, debug_query_string, false, PROCESS_UTILITY_TOPLEVEL, NULL, NULL, None_Receiver,
				   &completion);
	bbm_lock_watch_end();
}

static ErrorData *
run_vacuum(const BbmMigration *migration, Oid relid, const char *name, BbmLockWatchStop *stop)
{
	VacuumArgs	args = {.migration = migration, .relid = relid, .name = name};
	ErrorData  *error;

	args.context = AllocSetContextCreate(CurrentMemoryContext, "bbm vacuum", ALLOCSET_SMALL_SIZES);
	PortalContext = args.context;
	pgstat_report_activity(STATE_RUNNING, "VACUUM");
	error = bbm_txn_run_bare(vacuum_one, &args);
	*stop = bbm_lock_watch_outcome();
	bbm_lock_watch_pause();
	pgstat_report_activity(STATE_IDLE, NULL);
	PortalContext = NULL;
	debug_query_string = NULL;
	MemoryContextDelete(args.context);
	return error;
}

/* Only one worker of a migration vacuums, and not again at once. */
static bool
take_its_time(const BbmReading *reading)
{
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, reading->migration->id, reading->now);
	bool		mine = bbm_time_has_come(reading->now, entry->vacuum_after, BBM_VACUUM_AGAIN_MS);

	if (mine)
		entry->vacuum_after = TimestampTzPlusMilliseconds(reading->now, BBM_VACUUM_AGAIN_MS);
	bbm_wait_states_unlock();
	return mine;
}

static bool
has_dead(Oid relid)
{
	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_dead_tuples, ObjectIdGetDatum(relid))) > 0;
}

/*
 * Vacuums the relations of the target that have dead tuples, if the migration
 * asks for it and it is this worker's task; returns true when that has been
 * done.  Called between transactions.
 */
bool
bbm_vacuum_instead(BbmReading *reading)
{
	BbmThrottle *state = reading->state;
	int			n = state->nrelations;
	BbmReason	vacuums;

	if (!bbm_setting_bool(reading->migration, BBM_VACUUM) || !bbm_txn_in_worker() || !take_its_time(reading))
		return false;
	/* this takes as long as it takes */
	vacuums = bbm_reason("dead tuples: its worker vacuums the table", DT_NOEND);
	bbm_slot_wait_with(reading->migration->id, &vacuums);
	for (int i = 0; i < n; i++)
	{
		/* a TOAST table follows its table, and is vacuumed with it */
		bool		with_toast = i + 1 < n && state->is_toast[i + 1];
		BbmLockWatchStop stop;
		ErrorData  *error;

		if (state->is_toast[i] || !(has_dead(state->relations[i]) ||
									(with_toast && has_dead(state->relations[i + 1]))))
			continue;
		error = run_vacuum(reading->migration, state->relations[i], state->names[i], &stop);
		if (error == NULL)
			continue;
		if (bbm_error_is_cancel(error) && stop == BBM_STOP_NONE)
			reading->cancelled = error;
		else if (stop == BBM_STOP_NONE)
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("migration \"%s\": could not vacuum the table: %s",
							bbm_printable(reading->migration->name), bbm_printable(error->message))));
		bbm_reading_throttles(reading, "the table could not be vacuumed: %s",
							  stop == BBM_STOP_NONE ? error->message : "others waited for it");
		return false;
	}
	pgstat_clear_snapshot();
	state->dead_until = 0;
	reading->now = GetCurrentTimestamp();
	return true;
}
