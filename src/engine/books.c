/*-------------------------------------------------------------------------
 *
 * books.c
 *		Keeping the sums over a migration's jobs, and merging old jobs.
 *
 * NOTES
 *	  Each process does this for the migrations that it works on: once in so
 *	  many jobs, or after some seconds, in a transaction of its own that has
 *	  the migration's lock, if that is free.  Two processes do it one after the other; a job
 *	  that ends meanwhile is added the next time (catalog/totals.c).
 *
 *-------------------------------------------------------------------------
 */
#include "engine/books.h"

#include <math.h>

#include "common/pg_prng.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/cancel.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/claims.h"
#include "catalog/extension.h"
#include "catalog/merge.h"
#include "catalog/migrations.h"
#include "catalog/totals.h"
#include "engine/title.h"
#include "strategy/resolve.h"
#include "throttle/pacing.h"

/* Number of jobs between two merges of old ones. */
#define BBM_MERGE_INTERVAL 256
/* ... and where a long merge would hold up others: 256 rows take some milliseconds. */
#define BBM_SHORT_MERGE_INTERVAL 32
/* The sums are brought up to date after so long at the latest. */
#define BBM_SUMS_MS 5000
/* Whether the keys are to be counted is asked so often; their number is stored if it differs by so much. */
#define BBM_RECOUNT_LOOK_MS 200
#define BBM_RECOUNT_SHARE 0.01
/* A failure is logged at most this often. */
#define BBM_LOG_BOOKS_MS (60 * 1000)

/* The caller has the migration's lock, and has seen that it is running. */
static void
advance(BbmTarget *target, bool resumes, BbmTotals *totals)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		id = target->migration->id;
	BbmElapsed	elapsed = {.resumes = resumes, .starts = target->starts};
	BbmIdleTime idle;

	bbm_idle_time(id, now, true, &idle);
	elapsed.left_out_ms = idle.left_out_ms;
	elapsed.paced_ms = idle.paced_ms;
	bbm_totals_advance(id, &elapsed, totals);
	target->starts = false;
	bbm_title_update(target, totals);
	/* the rate counts from the end of the first batch on */
	target->sums_due = totals->history.samples[totals->history.n - 1].begins ? now :
		TimestampTzPlusMilliseconds(now, BBM_SUMS_MS);
}

/*
 * This process begins to work on the migration: its rate counts from here on.
 * Called in a claim, before it allocates a range.
 */
void
bbm_books_resume(BbmTarget *target)
{
	BbmTotals	totals;

	if (target->sums_due == 0)
		advance(target, true, &totals);
}

typedef struct KeepBooks
{
	BbmTarget  *target;
	bool		merge;
	bool		done;			/* out: the lock was free */
} KeepBooks;

/*
 * Does nothing when a user has paused the migration, and may be changing its
 * jobs, or when it would have to wait for the migration's lock.  Claims, pauses and
 * other keepers of the books need that lock, so none comes between the
 * statements; a job that ends or is requeued meanwhile is not in these sums,
 * is therefore not merged, and is added the next time.
 */
static void
keep(void *arg)
{
	KeepBooks  *books = arg;
	int64		id = books->target->migration->id;
	BbmClaimState state;
	BbmTotals	totals;

	if (!bbm_lock_migration_at_once(bbm_lock_class(), id))
		return;
	books->done = true;
	if (!bbm_claim_state(id, &state) || state.status != BBM_RUNNING)
		return;
	BBM_POINT("merge-locked");
	advance(books->target, false, &totals);
	if (!books->merge || bbm_job_retention < 0)
		return;
	BBM_POINT("merge-summed");
	/* the null strategy reads the last jobs one by one */
	bbm_jobs_merge(id, Max(bbm_job_retention, BBM_MAX_ATTEMPTS), &totals);
}

/*
 * Is a merge due?  It is once in so many jobs of this migration that this
 * process has run without one of another migration between them, however often
 * the target was resolved anew.  The first merge comes at a random point in the interval,
 * since a process may exit, or turn to another migration, before it has run as
 * many jobs; that way short runs together merge as often as one long run.
 */
static bool
is_merge_due(const BbmTarget *target)
{
	static int64 migration_id = 0;
	static int	merge_in;		/* jobs until the merge */
	int			interval = bbm_pacing_is_slow(target->migration) ? BBM_SHORT_MERGE_INTERVAL : BBM_MERGE_INTERVAL;

	if (migration_id != target->migration->id)
	{
		migration_id = target->migration->id;
		merge_in = 1 + (int) pg_prng_uint64_range(&pg_global_prng_state, 0, interval - 1);
	}
	merge_in = Min(merge_in, interval);
	if (--merge_in > 0)
		return false;
	merge_in = interval;
	return true;
}

/* How many keys there are to do in all, as far as that is known now; otherwise as before. */
static int64
count_anew(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	BbmClaimState state;
	BbmTotals	totals;
	Snapshot	snapshot;
	double		allocated;
	double		to_come;

	if (!bbm_claim_state(migration->id, &state) || !bbm_phase_is(state.phase, BBM_WORK(1)))
		return migration->total;
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	bbm_totals_read(migration->id, snapshot, &totals);
	UnregisterSnapshot(snapshot);
	allocated = (double) totals.finished.keys + totals.open.keys;
	to_come = bbm_target_to_come(target, &state, allocated);
	if (to_come >= 0)
		return bbm_count_of(allocated + to_come);
	return migration->total < 0 || migration->follow ? bbm_target_estimate(target) : migration->total;
}

/*
 * How much there is to do changes while rows arrive that are to be processed,
 * too, or go, or partitions do: the table is sampled again.  Holds no lock of
 * ours meanwhile: ranges may be allocated between the statements, which then
 * count twice until the next time; a pause or another change of the row may
 * commit between the sample and the update, which then changes nothing.
 */
static void
recount(void *arg)
{
	BbmTarget  *target = arg;
	int64		before = target->migration->total;
	int64		now = count_anew(target);

	BBM_POINT("recount-sampled");
	/* all processes read a row anew that has changed */
	if (before < 0 || fabs((double) now - before) > before * BBM_RECOUNT_SHARE)
		bbm_migration_recount(target->migration, now);
}

/*
 * Is it time for that?  By the clock, whatever jobs end: a process comes here
 * when its job has ended, and when it releases one at the end of a time slice.
 * At once where a user has extended the range, or somebody had the row.
 */
static bool
is_recount_due(const BbmTarget *target, TimestampTz now)
{
	static TimestampTz look_again = 0;
	const BbmMigration *migration = target->migration;
	bool		unknown = migration->total < 0;

	if (!bbm_phase_is(migration->phase, BBM_WORK(1)) ||
		!(unknown || bbm_time_has_come(now, look_again, BBM_RECOUNT_LOOK_MS)))
		return false;
	look_again = TimestampTzPlusMilliseconds(now, BBM_RECOUNT_LOOK_MS);
	return bbm_recount_begin(migration->id, now, unknown);
}

/*
 * Called after each job, and after each of its commits, between transactions.  This
 * is housekeeping: no batch depends on it, and the next time it can be done as
 * well; so it raises no error.  But a cancel that has hit it was meant for the
 * process, and is returned; else NULL is.
 */
ErrorData *
bbm_books_keep(BbmTarget *target)
{
	static TimestampTz log_again = 0;
	static int64 owes = 0;		/* the migration for which a merge was due when its lock was not free */
	bool		merge = BBM_POINT_DUE("merge-due", is_merge_due(target));
	KeepBooks	books = {.target = target, .merge = merge || owes == target->migration->id};
	ErrorData  *error = NULL;
	TimestampTz now = GetCurrentTimestamp();
	bool		sums = books.merge || bbm_time_has_come(now, target->sums_due, BBM_SUMS_MS);
	bool		recounts = is_recount_due(target, now);

	if (!sums && !recounts)
		return NULL;
	bbm_pacing_begin(target->migration, now);
	if (sums)
		error = bbm_txn_run(keep, &books, false);
	if (error == NULL && recounts)
		error = bbm_txn_run(recount, target, false);
	if (recounts)
		bbm_recount_end(target->migration->id, now);
	bbm_pacing_end(target->migration, 0);
	if (sums)
		owes = books.merge && !books.done ? target->migration->id : 0;
	if (error && bbm_error_is_cancel(error))
		return error;
	if (error && bbm_time_has_come(GetCurrentTimestamp(), log_again, BBM_LOG_BOOKS_MS))
	{
		log_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_LOG_BOOKS_MS);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("migration \"%s\": could not bring its sums up to date, or merge old jobs: %s",
						bbm_printable(target->migration->name), bbm_printable(error->message))));
	}
	return NULL;
}
