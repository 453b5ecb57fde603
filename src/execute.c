/*-------------------------------------------------------------------------
 *
 * execute.c
 *		The second transaction of a job: the batch and its record.
 *
 * NOTES
 *	  The job's row is locked first, and only if it still carries the number
 *	  of our claim.  From then on nobody can take the job over, and if somebody
 *	  did before, we change nothing.  The batch, the record that it is done and
 *	  the row's lock end in the same commit: that is the whole of exactly-once.
 *	  A pause, a DELETE of the migration or another claim may come at any
 *	  moment; a pause lets the batch end, and a DELETE waits for it.
 *
 *-------------------------------------------------------------------------
 */
#include "execute.h"

#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/instrument.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"

#include "locks.h"
#include "target.h"
#include "txn.h"

static Datum
key_datum(int64 key, Oid type)
{
	return type == INT2OID ? Int16GetDatum((int16) key) :
		type == INT4OID ? Int32GetDatum((int32) key) : Int64GetDatum(key);
}

/* A bound may lie outside what the key's type can hold; then the type's end is meant. */
static int64
clamp(int64 key, Oid type)
{
	if (type == INT2OID)
		return Min(Max(key, PG_INT16_MIN), PG_INT16_MAX);
	if (type == INT4OID)
		return Min(Max(key, PG_INT32_MIN), PG_INT32_MAX);
	return key;
}

static void
bind_range(const BbmTarget *target, const BbmRange *range, Datum *values)
{
	Datum		low = key_datum(clamp(range->min_value, target->key_type), target->key_type);
	Datum		high = key_datum(clamp(range->max_value, target->key_type), target->key_type);

	if (target->form == BBM_JOB_REGISTRY_FUNCTION)
	{
		values[0] = CStringGetTextDatum(target->migration->table_name);
		values[1] = CStringGetTextDatum(target->migration->column_name);
		values[2] = low;
		values[3] = high;
		values[4] = Int32GetDatum(target->migration->batch_size);
	}
	else
	{
		values[0] = low;
		values[1] = high;
		values[2] = Int32GetDatum(target->migration->batch_size);
	}
}

/* Rows of the table that this transaction has changed so far. */
static int64
rows_changed(Oid relid)
{
	Datum		arg = ObjectIdGetDatum(relid);

	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_inserted, arg)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated, arg)) +
		DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted, arg));
}

/* The number a job's function returned; NULL is none. */
static int64
returned_count(void)
{
	bool		isnull;
	Datum		datum;

	if (SPI_processed == 0 || SPI_tuptable == NULL)
		return 0;
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return 0;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, 1))
	{
		case INT2OID:
			return DatumGetInt16(datum);
		case INT4OID:
			return DatumGetInt32(datum);
		default:
			return DatumGetInt64(datum);
	}
}

/* A job that tries to end the transaction is told why it must not. */
static void
explain_error(void *arg)
{
	if (geterrcode() == ERRCODE_INVALID_TRANSACTION_TERMINATION)
		errhint("A job runs in one transaction with its record, and must not end it.");
}

/* Runs the job on a range; returns how many rows it says it has changed. */
static int64
run_job(BbmTarget *target, const BbmRange *range)
{
	bool		statement = target->form == BBM_JOB_STATEMENT;
	bool		by_statistics = !statement && !target->returns_count;
	int64		before = by_statistics ? rows_changed(target->relid) : 0;
	int			level = bbm_job_settings(target->migration);
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = explain_error};
	Datum		values[5];
	int64		rows;
	int			result;

	bind_range(target, range, values);
	error_context_stack = &callback;
	result = SPI_execute_plan(target->plan, values, NULL, false, 0);
	error_context_stack = callback.previous;
	if (result < 0)
		elog(ERROR, "could not run the job: %s", SPI_result_code_string(result));
	rows = statement ? (int64) SPI_processed : target->returns_count ? returned_count() : 0;
	SPI_freetuptable(SPI_tuptable);
	/*
	 * Deferred constraints and triggers are due now, in the settings of the
	 * job, and so is what they queue in turn, deferred or not: nothing of the
	 * owner's may be left to run at the commit, where the settings are ours.
	 */
	AfterTriggerFireDeferred();
	bbm_txn_discard();
	if (by_statistics)
		rows = rows_changed(target->relid) - before;
	/* also undoes what the job has SET */
	bbm_user_settings_end(level);
	return rows;
}

/* What of the job is to be done in this transaction. */
static void
next_part(const BbmWork *work, BbmRange *part)
{
	const BbmJob *job = work->job;
	BbmRange	rest = {job->has_cursor ? job->cursor + 1 : job->min_value, job->max_value, job->key_count};
	int			size = work->target->migration->sub_batch_size;

	if (size > 0)
		work->target->strategy->first_of(work->target, &rest, size, part);
	else
		*part = rest;
}

/*
 * Is the migration still to run?  A job of several commits asks before each.
 * With the lock for the moment of the look, so that a transaction that has
 * paused it and waits for us is waited for: after lock_timeout that gives the
 * rest of the job back.  A DELETE that waits for our row's lock meets us in a
 * deadlock, of which we are the victim, to the same effect.
 */
static bool
still_running(const BbmWork *work)
{
	int64		id = work->job->migration_id;
	BbmClaimState state;
	bool		running;

	bbm_lock_migration(bbm_space(), id);
	running = bbm_claim_state(id, &state) && state.status == BBM_RUNNING;
	bbm_unlock_migration(bbm_space(), id);
	return running;
}

void
bbm_work(void *arg)
{
	BbmWork    *work = arg;
	int64		wal = pgWalUsage.wal_bytes;
	instr_time	start;
	instr_time	end;
	BbmRange	part;

	INSTR_TIME_SET_CURRENT(start);
	if (!bbm_job_lock(work->job))
	{
		work->result = BBM_WORK_LOST;
		return;
	}
	if (work->job->has_cursor && !still_running(work))
	{
		work->result = BBM_WORK_PAUSED;
		return;
	}
	next_part(work, &part);
	work->cost.rows = run_job(work->target, &part);
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	work->cost.ms = INSTR_TIME_GET_MILLISEC(end);
	work->cost.wal = pgWalUsage.wal_bytes - wal;

	if (part.max_value >= work->job->max_value)
	{
		bbm_job_finish(work->job, &work->cost);
		work->result = BBM_WORK_FINISHED;
		if (work->may_go_on(work->arg))
			bbm_claim_next(work->next);
	}
	else
	{
		bbm_job_progress(work->job, part.max_value, &work->cost);
		work->next_cursor = part.max_value;
		work->result = BBM_WORK_PART;
	}
}
