/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *		Which migration next.
 *
 * NOTES
 *	  A step does one thing for one migration (engine/step.c).  A migration
 *	  keeps the process for a time slice; then the migrations of the highest
 *	  priority come first, which grows while a migration waits, and of these
 *	  the ones with the fewest processes, so that a small migration does not
 *	  wait for a large one.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/scheduler.h"

#include "base/blockers.h"
#include "base/clock.h"
#include "base/impact_counts.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/printable.h"
#include "base/requests.h"
#include "base/slots.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "engine/error_class.h"
#include "engine/step.h"
#include "target/target.h"

/* ----------------------------------------------------------------
 * Beginning and end
 * ----------------------------------------------------------------
 */

static void
acquire_worker_id(void *arg)
{
	BbmEngine  *engine = arg;

	engine->lock_class = bbm_lock_class();
	bbm_catalog_check_trust(engine->owner);
	engine->worker_id = bbm_worker_id_acquire(engine->lock_class);
}

/*
 * Creates an engine for this owner's migrations, or for one alone.  Called
 * between transactions of the driver; returns NULL, with the error, when the
 * extension does not exist here or is of another version, or when that cannot
 * be checked now.
 */
BbmEngine *
bbm_engine_begin(Oid owner, int64 only, ErrorData **why_not)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bbm engine", ALLOCSET_DEFAULT_SIZES);
	BbmEngine  *engine = MemoryContextAllocZero(context, sizeof(BbmEngine));
	ErrorData  *error;

	engine->permit = -1;
	engine->owner = owner;
	engine->only = only;
	engine->context = context;
	engine->step = AllocSetContextCreate(context, "bbm step", ALLOCSET_DEFAULT_SIZES);
	engine->commit = AllocSetContextCreate(context, "bbm commit", ALLOCSET_SMALL_SIZES);
	for (int i = 0; i < lengthof(engine->job); i++)
		engine->job[i] = AllocSetContextCreate(context, "bbm job", ALLOCSET_SMALL_SIZES);
	error = bbm_txn_run(acquire_worker_id, engine, false);
	if (error)
	{
		*why_not = error;
		if (engine->worker_id != 0)
			bbm_worker_id_release(engine->lock_class, engine->worker_id);
		MemoryContextDelete(context);
		return NULL;
	}
	return engine;
}

/* Releases everything the engine holds, also after an error.  Called between transactions. */
void
bbm_engine_end(BbmEngine *engine)
{
	ListCell   *cell;

	bbm_txn_lock_timeout(-1);
	bbm_lock_watch_pause();
	bbm_impact_stops();
	bbm_release_permit(engine);
	foreach(cell, engine->runnable)
		bbm_set_waiting_for_table(engine->lock_class, ((BbmRunnable *) lfirst(cell))->id, false);
	while (engine->targets)
		bbm_forget_target(engine, ((BbmTarget *) linitial(engine->targets))->migration->id);
	bbm_worker_id_release(engine->lock_class, engine->worker_id);
	bbm_slot_report(0, 0);
	MemoryContextDelete(engine->context);
}

/*
 * Has the last step found that migrations are throttled, or cannot go on just
 * now, and none that waits for its time slice on a table?
 */
bool
bbm_engine_is_throttled(const BbmEngine *engine)
{
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		if (bbm_is_waiting_for_table(engine->lock_class, ((BbmRunnable *) lfirst(cell))->id))
			return false;
	}
	return engine->throttled;
}

/* This process exits while it waits for time slices on tables: shared memory keeps them for it until it is back. */
void
bbm_engine_keep_table_waits(const BbmEngine *engine, TimestampTz until)
{
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		int64		id = ((BbmRunnable *) lfirst(cell))->id;

		if (bbm_is_waiting_for_table(engine->lock_class, id))
			bbm_table_wait_keep(id, until);
	}
}

/* ----------------------------------------------------------------
 * All migrations
 * ----------------------------------------------------------------
 */

static void
read_runnable(void *arg)
{
	BbmEngine  *engine = arg;

	/* if the extension was dropped and created again, it is another one: our locks are in the old one's lock class */
	if (bbm_lock_class() == engine->lock_class)
		engine->runnable = bbm_migrations_runnable(engine->owner, engine->context);
}

/*
 * Re-reads which migrations there are.  Returns false when that cannot be
 * determined now; *due says when to try again, never if the extension is gone
 * or not ours.
 */
static bool
refresh(BbmEngine *engine, TimestampTz *due)
{
	ErrorData  *error;
	ListCell   *cell;

	/* tables that we waited for and do not come back to must not keep others waiting */
	foreach(cell, engine->runnable)
		bbm_set_waiting_for_table(engine->lock_class, ((BbmRunnable *) lfirst(cell))->id, false);
	list_free_deep(engine->runnable);
	engine->runnable = NIL;
	engine->called_for_help = false;
	engine->generation = bbm_request_generation(MyDatabaseId, engine->owner);
	engine->slice_end_ms = bbm_clock_ms() + BBM_SLICE_MS;
	if (engine->only != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(engine->context);
		BbmRunnable *runnable = palloc0(sizeof(BbmRunnable));

		runnable->id = engine->only;
		/* somebody waits for this one */
		runnable->rank = PG_INT16_MAX;
		engine->runnable = list_make1(runnable);
		MemoryContextSwitchTo(old);
		return true;
	}
	bbm_catalog_forget();
	bbm_blockers_work_on(0);
	error = bbm_txn_run(read_runnable, engine, false);
	if (error == NULL)
	{
		bbm_trouble_over(0, engine->owner, NULL, true);
		return true;
	}
	if (bbm_error_class(error) == BBM_ERROR_TRANSIENT)
		*due = bbm_try_later(engine, 0, NULL, error).due;
	else
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("cannot read the migrations of database with OID %u: %s", MyDatabaseId,
						bbm_printable(error->message)),
				 error->hint ? errhint("%s", bbm_printable(error->hint)) : 0));
	return false;
}

static int
first_to_try(const ListCell *a, const ListCell *b)
{
	const BbmRunnable *x = lfirst(a);
	const BbmRunnable *y = lfirst(b);

	if (x->rank != y->rank)
		return y->rank - x->rank;
	return x->others != y->others ? x->others - y->others : x->position - y->position;
}

/*
 * The migrations to try: those of the highest rank first, of these those with
 * the fewest other processes, then in round-robin order after the one that has
 * worked last.  There need not be a current one: all wait while the process pauses.
 */
static List *
order_of_trial(BbmEngine *engine)
{
	List	   *order = NIL;
	int			n = list_length(engine->runnable);
	int			start = 0;
	ListCell   *cell;

	foreach(cell, engine->runnable)
	{
		BbmRunnable *runnable = lfirst(cell);

		runnable->others = bbm_slots_on(runnable->id);
		if (runnable->id == engine->last)
			start = foreach_current_index(cell) + 1;
	}
	for (int i = 0; i < n; i++)
	{
		BbmRunnable *runnable = list_nth(engine->runnable, (start + i) % n);

		runnable->position = i;
		order = lappend(order, runnable);
	}
	list_sort(order, first_to_try);
	return order;
}

/* After a cancel the driver checks its cause before anything else is started. */
static bool
was_cancelled(const BbmEngine *engine, TimestampTz *due)
{
	if (engine->cancelled == NULL)
		return false;
	*due = GetCurrentTimestamp();
	return true;
}

/* Tries the current migration while its time slice lasts, then all in round-robin order. */
static BbmStepResult
try_migrations(BbmEngine *engine, TimestampTz *due)
{
	ListCell   *cell;
	List	   *order;

	if (engine->current != 0)
		engine->last = engine->current;
	if (engine->current != 0 && !bbm_engine_slice_over(engine) &&
		bbm_try_migration(engine, engine->current).result == BBM_STEP_WORKED)
		return BBM_STEP_WORKED;

	if (was_cancelled(engine, due))
		return BBM_STEP_WAIT;
	order = refresh(engine, due) ? order_of_trial(engine) : NIL;
	foreach(cell, order)
	{
		BbmOutcome	outcome = bbm_try_migration(engine, ((BbmRunnable *) lfirst(cell))->id);

		if (outcome.result == BBM_STEP_WORKED)
			return BBM_STEP_WORKED;
		if (was_cancelled(engine, due))
			return BBM_STEP_WAIT;
		*due = Min(*due, outcome.due);
	}
	engine->current = 0;
	return *due == DT_NOEND ? BBM_STEP_IDLE : BBM_STEP_WAIT;
}

/*
 * Does the next thing there is to do.  Called between transactions of the
 * driver.
 */
BbmStepResult
bbm_engine_step(BbmEngine *engine, TimestampTz *due)
{
	MemoryContext old;
	BbmStepResult result;

	MemoryContextReset(engine->step);
	old = MemoryContextSwitchTo(engine->step);
	bbm_worker_id_keep(engine->lock_class, engine->worker_id);
	engine->cancelled = NULL;
	engine->throttled = false;
	*due = DT_NOEND;
	result = try_migrations(engine, due);
	bbm_txn_lock_timeout(-1);
	MemoryContextSwitchTo(old);
	if (result != BBM_STEP_WORKED)
	{
		bbm_lock_watch_pause();
		bbm_impact_stops();
	}

	/* what we had and have released, such as a table, others may take now */
	if (engine->worked && result != BBM_STEP_WORKED)
		bbm_state_changed();
	engine->worked = result == BBM_STEP_WORKED;
	return result;
}
