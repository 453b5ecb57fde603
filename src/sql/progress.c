/*-------------------------------------------------------------------------
 *
 * progress.c
 *		How far a migration is, and how fast it advances: for the view.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/progress.h"
#include "base/shmem.h"
#include "base/wait_state.h"
#include "base/waiting.h"
#include "catalog/migrations.h"
#include "catalog/totals.h"
#include "catalog/whole.h"
#include "sql/access.h"
#include "sql/arguments.h"
#include "throttle/throttle.h"

PG_FUNCTION_INFO_V1(bbm_progress);

#define BBM_PROGRESS_COLUMNS 16

/* A limit that the migration has set for its rate is not exceeded for long, however fast its first batches were. */
static void
limit_rate(const BbmMigration *migration, const BbmTotals *totals, BbmRate *rate)
{
	double		keys = bbm_totals_keys(totals);
	double		wal = (double) totals->finished.wal + totals->open.wal;
	double		share = 1;

	/* each shard of a distributed table has the limit for itself */
	if (bbm_is_of_cluster(migration))
		return;
	if (bbm_setting_is_on(migration, BBM_MAX_ROW_RATE) && rate->rows_per_second > 0)
		share = Min(share, bbm_setting_int(migration, BBM_MAX_ROW_RATE) / rate->rows_per_second);
	if (bbm_setting_is_on(migration, BBM_MAX_WAL_RATE) && keys > 0 && wal > 0 && rate->keys_per_second > 0)
		share = Min(share,
					bbm_setting_int(migration, BBM_MAX_WAL_RATE) * 1024.0 / (wal / keys * rate->keys_per_second));
	rate->rows_per_second *= share;
	rate->keys_per_second *= share;
}

/* The seconds that are left at this rate, with those outside of the hours in which it may work; negative: not known. */
static double
seconds_left(const BbmMigration *migration, const BbmWhole *whole, const BbmRate *rate)
{
	double		keys = bbm_whole_keys(whole);

	/* a verification counts no keys, and is not part of the estimate */
	if (!rate->known || rate->keys_per_second <= 0 || keys < 0 || !bbm_phase_is(migration->phase, BBM_WORK(1)))
		return -1;
	return bbm_throttle_hours_last(migration, GetCurrentTimestamp(),
								   Max(keys - whole->done, 0) / rate->keys_per_second);
}

/*
 * The rates over the last minute and the last five, up to the last batch that
 * was done.  Time since then counts if somebody is at work, or the migration
 * waits for what is part of its pace; otherwise the rates stay what they were.
 */
static void
rates_of(const BbmMigration *migration, const BbmTotals *totals, BbmRate *minute, BbmRate *five, char *pace_reason)
{
	TimestampTz now = GetCurrentTimestamp();
	double		done_at = totals->progress_at != 0 ? bbm_totals_clock_ms(totals->progress_at) : 0;
	double		last_at = done_at;
	BbmElapsed	elapsed = {0};
	BbmIdleTime idle;
	BbmSample	live;

	bbm_idle_time(migration->id, now, false, &idle);
	strlcpy(pace_reason, idle.reason, BBM_WAITING_LENGTH);
	elapsed.left_out_ms = idle.left_out_ms;
	elapsed.paced_ms = idle.paced_ms;
	bbm_totals_sample(totals, now, &elapsed, &live);
	if (totals->history.n > 0)
		last_at = Max(last_at, totals->history.samples[totals->history.n - 1].at_ms);
	if (migration->status != BBM_RUNNING ||
		(totals->at_work == 0 && bbm_nobody_works(&live, last_at, bbm_totals_clock_ms(bbm_server_start()))))
	{
		live.left_out_ms = totals->history.n > 0 ? totals->history.samples[totals->history.n - 1].left_out_ms : 0;
		live.at_ms = Min(live.at_ms, last_at);
	}
	*minute = bbm_history_rate(&totals->history, &live, done_at, totals->batch_size, BBM_MINUTE_MS);
	*five = bbm_history_rate(&totals->history, &live, done_at, totals->batch_size, 5 * BBM_MINUTE_MS);
	limit_rate(migration, totals, minute);
	limit_rate(migration, totals, five);
}

/*
 * The number of processes that are at work on it, or pause between two
 * batches.  What only the jobs show: one that does not run any more may still
 * have a batch in flight; on a standby, without preloading and for a
 * distributed table no process of it is in our shared memory.
 */
static int64
workers_of(const BbmMigration *migration, const BbmTotals *totals)
{
	bool		runs = migration->status == BBM_ACTIVE || migration->status == BBM_RUNNING;
	int64		n = 0;

	if (bbm_shared && runs && !RecoveryInProgress() && !bbm_is_of_cluster(migration))
		n = Min(bbm_workers_on(migration->id), migration->workers);
	/* a session that has found no slot free is not there, but its job is */
	return n > 0 ? n : totals->at_work;
}

static void
put_number(Datum *values, bool *nulls, int i, double value, bool known)
{
	values[i] = Float8GetDatum(value);
	nulls[i] = !known;
}

static void
put_count(Datum *values, bool *nulls, int i, int64 value, bool known)
{
	values[i] = Int64GetDatum(value);
	nulls[i] = !known;
}

/* The arrays and texts are in the current memory context. */
static void
put_progress(const BbmMigration *migration, const BbmTotals *totals, int64 total, Datum *values, bool *nulls)
{
	Datum		reasons[BBM_REQUEUE_REASONS];
	char		pace_reason[BBM_WAITING_LENGTH];
	BbmWhole	whole;
	BbmRate		minute;
	BbmRate		five;
	BbmRate		rest;
	double		left;
	int64		keys;
	int64		requeued = bbm_add_counts(totals->finished.requeued, totals->open.requeued);

	bbm_whole_of(migration, totals, total, &whole);
	rates_of(migration, totals, &minute, &five, pace_reason);
	rest = bbm_rate_for_rest(&minute, &five, totals->batch_size);
	left = seconds_left(migration, &whole, &rest);
	for (int i = 0; i < BBM_REQUEUE_REASONS; i++)
		reasons[i] = Int64GetDatum(bbm_totals_requeues(totals, (BbmRequeueReason) (i + 1)));
	put_number(values, nulls, 0, bbm_whole_percent(&whole), true);
	put_count(values, nulls, 1, bbm_totals_rows(totals), true);
	keys = bbm_count_of(bbm_whole_keys(&whole));
	/* block ranges have their own; and a last batch that was not full is no reason to correct the estimate */
	if (whole.estimate < 0 || (!whole.has_ends && keys > total && keys - total < totals->batch_size))
		keys = total;
	put_count(values, nulls, 2, keys, total >= 0);
	put_count(values, nulls, 3, totals->finished.jobs, true);
	put_count(values, nulls, 4, totals->running, true);
	put_count(values, nulls, 5, totals->failed, true);
	put_number(values, nulls, 6, minute.rows_per_second, minute.known);
	put_number(values, nulls, 7, five.rows_per_second, five.known);
	put_number(values, nulls, 8, left, left >= 0);
	put_count(values, nulls, 9, totals->batch_size, totals->batch_size > 0);
	put_count(values, nulls, 10, requeued, true);
	values[11] = PointerGetDatum(construct_array(reasons, BBM_REQUEUE_REASONS, INT8OID, sizeof(int64),
												 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	nulls[11] = requeued == 0;
	values[12] = TimestampTzGetDatum(totals->progress_at);
	nulls[12] = totals->progress_at == 0;
	put_number(values, nulls, 13, minute.pace, minute.known && minute.pace >= 0);
	values[14] = CStringGetTextDatum(pace_reason);
	nulls[14] = pace_reason[0] == '\0' || !minute.known || minute.pace < 0 || minute.pace >= 0.995;
	put_count(values, nulls, 15, workers_of(migration, totals), true);
}

/*
 * (id bigint, owner_oid oid, total bigint) → what the view shows of the jobs.
 * NULLs for a migration that is not that owner's, or that the caller may not
 * see.
 */
Datum
bbm_progress(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	int64		total = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	Datum		values[BBM_PROGRESS_COLUMNS] = {0};
	bool		nulls[BBM_PROGRESS_COLUMNS];
	BbmMigration *migration;

	memset(nulls, true, sizeof(nulls));
	if (!PG_ARGISNULL(1) && bbm_role_may_see(PG_GETARG_OID(1)))
	{
		MemoryContext caller = CurrentMemoryContext;

		SPI_connect();
		migration = bbm_migration_by_id(id, CurrentMemoryContext);
		if (migration && migration->owner == PG_GETARG_OID(1))
		{
			BbmTotals	totals;
			MemoryContext old;

			/* as of the query that shows it */
			bbm_totals_read(id, GetActiveSnapshot(), &totals);
			old = MemoryContextSwitchTo(caller);
			put_progress(migration, &totals, total, values, nulls);
			MemoryContextSwitchTo(old);
		}
		SPI_finish();
	}
	return bbm_result_row(fcinfo, BBM_PROGRESS_COLUMNS, values, nulls);
}
