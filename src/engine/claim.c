/*-------------------------------------------------------------------------
 *
 * claim.c
 *		The first transaction of a job: claiming it.
 *
 * NOTES
 *	  A claim takes the migration's lock before it reads anything, and releases
 *	  it after its commit is visible; whoever changes the migration's status
 *	  holds this lock too.  So within the transaction no other session can
 *	  pause the migration, allocate a range of it or claim a job of it.  The
 *	  claim sees a pause that has committed before; a pause that comes now
 *	  waits for the claim, not for a batch.  Between any two statements a
 *	  worker can still finish its job or die: then the claim sees that job as
 *	  running for a moment longer than it is, and the next claim sees the
 *	  correct state.
 *
 *	  The claim takes the table's lock second.  Claims of two migrations on one
 *	  table are serialized there, so that they cannot both find the table free.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/claim.h"

#include "access/xact.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/rates.h"
#include "base/shmem.h"
#include "base/wait_state.h"
#include "catalog/claims.h"
#include "catalog/extension.h"
#include "catalog/job_record.h"
#include "catalog/jobs.h"
#include "engine/books.h"
#include "strategy/resolve.h"
#include "target/bound.h"
#include "target/partition.h"
#include "target/partitions.h"
#include "target/size.h"
#include "target/target.h"

/* How often to check for orphaned and requeued jobs. */
#define BBM_POLL_MS 1000

/* ... and whether a lock on a job that is due is gone: soon at first, and then as often. */
#define BBM_FIRST_LOCKED_POLL_MS 10

/* How often to check whether another migration has released the table. */
#define BBM_TABLE_POLL_MS 100

/* How long a migration keeps a table that another migration waits for. */
#define BBM_TABLE_SLICE_MS 1000

/* ... and how long another migration waits for a batch of it that does not end, and is as old. */
#define BBM_LONGEST_TABLE_WAIT_MS (10 * 1000)

static void
later(BbmClaim *claim, TimestampTz due, const char *reason)
{
	claim->result = BBM_CLAIM_LATER;
	claim->reason = bbm_reason(reason, due);
}

/* There is only a job whose row is locked.  Nobody wakes us when it no longer is. */
static void
later_than_lock(BbmClaim *claim, TimestampTz due, const char *reason)
{
	later(claim, due, reason);
	claim->target->locked_until = due;
	claim->target->locked_by = reason;
}

/*
 * Records the job of a dead worker as failed, like any other; it is retried
 * after the new ranges, so that a job that crashes the server is not the first
 * to run after the restart.  Returns false if a process still has the job.
 */
static bool
take_orphan(BbmClaim *claim, const BbmRunningJob *job)
{
	const BbmMigration *migration = claim->target->migration;
	int64		delay = bbm_backoff_ms(job->attempts, bbm_setting_int(migration, BBM_RETRY_DELAY),
									   bbm_setting_int(migration, BBM_RETRY_MAX_DELAY),
									   pg_prng_double(&pg_global_prng_state));

	/* the first time it is most likely not the job's fault */
	if (job->attempts <= 1)
		delay = 0;
	if (!bbm_job_orphan(job->id, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay)))
		return false;
	ForceSyncCommit();
	if (job->attempts >= claim->target->migration->max_attempts)
		claim->result = BBM_CLAIM_USED_UP;
	return true;
}

/*
 * Does the other migration compete with this one for the table?  Only
 * migrations whose owners may write the table compete, as otherwise whoever
 * may read it could hold up its owner's migrations with some of his own.  Two
 * migrations that are both defined to share the table do not compete either.
 */
bool
bbm_competes(Oid table, const BbmMigration *migration, const BbmCompetitor *competitor)
{
	return !(competitor->share_table && migration->share_table) && bbm_may_write(table, competitor->owner) &&
		bbm_may_write(table, migration->owner);
}

/* Has the migration had the table for as long as it may while another one waits for it? */
static bool
slice_is_used_up(const BbmTarget *target, TimestampTz now)
{
	return target->table_since != 0 &&
		bbm_time_has_come(now, TimestampTzPlusMilliseconds(target->table_since, BBM_TABLE_SLICE_MS),
						  BBM_TABLE_SLICE_MS);
}

static bool
waits_for_table(Oid lock_class, const BbmCompetitor *competitor, TimestampTz now)
{
	return bbm_has_waiters(lock_class, competitor->id) || bbm_table_wait_is_kept(competitor->id, now);
}

/*
 * Has the migration waited long enough for the other one, which is at work?
 * It may have waited for others, or on a busy machine for its own time slice; so it
 * does not pass a batch that has just begun, but only one that does not end.
 * Between a claim and its commit the other has no running job: it is not
 * passed either.
 */
static bool
may_pass(const BbmMigration *migration, const BbmCompetitor *competitor, TimestampTz now)
{
	List	   *jobs;
	ListCell   *cell;

	if (bbm_table_wait_since(migration->id, now) < BBM_LONGEST_TABLE_WAIT_MS)
		return false;
	jobs = bbm_jobs_running(competitor->id);
	foreach(cell, jobs)
	{
		TimestampTz started_at = ((BbmRunningJob *) lfirst(cell))->started_at;

		if (!TIMESTAMP_IS_NOBEGIN(started_at) &&
			!bbm_time_has_come(now, TimestampTzPlusMilliseconds(started_at, BBM_LONGEST_TABLE_WAIT_MS),
							   BBM_LONGEST_TABLE_WAIT_MS))
			return false;
	}
	return jobs != NIL;
}

/*
 * Is the table reserved for another migration now?  A migration that has the
 * table keeps it for a time slice; then it releases the table for as long as
 * another migration waits for it.  The wait for a batch that does not end is
 * limited: after that the two migrations run side by side until it ends, and
 * row locks separate them like any two sessions.
 */
static bool
table_is_taken(BbmClaim *claim, TimestampTz now)
{
	BbmTarget  *target = claim->target;
	BbmMigration *migration = target->migration;
	Oid			lock_class = bbm_lock_class();
	bool		slice_used_up = slice_is_used_up(target, now);
	bool		alone = true;
	bool		passed = false;
	ListCell   *cell;

	foreach(cell, bbm_competing_migrations(migration->id, target->relid))
	{
		BbmCompetitor *competitor = lfirst(cell);
		bool		at_work;
		bool		outranked;
		char		reason[128];

		if (!bbm_competes(target->relid, target->migration, competitor))
			continue;
		alone = false;
		at_work = bbm_permits_held(lock_class, competitor->id, competitor->workers);
		outranked = at_work && competitor->owner == migration->owner && competitor->priority > claim->rank;
		if (at_work && !outranked && may_pass(migration, competitor, now))
		{
			passed = true;
			at_work = false;
		}
		if (!at_work && !(slice_used_up && waits_for_table(lock_class, competitor, now)))
			continue;
		if (at_work)
		{
			target->table_since = 0;
			/* who has a higher priority does not release the table */
			bbm_set_waiting_for_table(lock_class, migration->id, !outranked);
		}
		snprintf(reason, sizeof(reason), BBM_WAITS_FOR_TABLE, competitor->id);
		later(claim, TimestampTzPlusMilliseconds(now, BBM_TABLE_POLL_MS), reason);
		return true;
	}
	bbm_set_waiting_for_table(lock_class, migration->id, false);
	if (!alone && !passed)
		bbm_table_wait_end(migration->id, now);
	if (target->table_since == 0)
		target->table_since = now;
	return false;
}

/*
 * Between two commits of a job: has the migration used up its time slice on
 * the table, and does another migration wait for it?
 */
bool
bbm_slice_is_over(const BbmTarget *target)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	if (!slice_is_used_up(target, now))
		return false;
	foreach(cell, bbm_competing_migrations(target->migration->id, target->relid))
	{
		BbmCompetitor *competitor = lfirst(cell);

		if (bbm_competes(target->relid, target->migration, competitor) &&
			waits_for_table(bbm_lock_class(), competitor, now))
			return true;
	}
	return false;
}

/*
 * Takes over the jobs of dead workers, and returns how many jobs of the
 * migration live processes run.  *locked is set if one of them cannot be taken
 * over just now.
 */
static int
take_orphans(BbmClaim *claim, bool *locked)
{
	int			others = 0;
	ListCell   *cell;

	foreach(cell, bbm_jobs_running(claim->target->migration->id))
	{
		BbmRunningJob *job = lfirst(cell);
		/* we run no job while we claim, so one with our worker id is left over too */
		bool		alive = job->worker_id != claim->worker_id && bbm_worker_is_alive(bbm_lock_class(), job->worker_id);

		if (alive)
			others++;
		/* its end could not be written then, which was not the job's fault */
		else if (job->worker_id == claim->worker_id ? !bbm_job_take_back(job->id) : !take_orphan(claim, job))
			*locked = true;
	}
	return others;
}

/*
 * A claim that reaches the end of the table, or of its partition, would leave
 * nothing to the other workers: takes only the first keys of the range.
 */
static void
leave_some(BbmTarget *target, BbmPartition *partition, int wanted, int size, BbmRange *range)
{
	int			n = bbm_size_of_last_claims(range->key_count, size, target->migration->workers);

	if (range->key_count > wanted - size || range->key_count <= n)
		return;
	target->strategy->first_sub_batch(target, partition, range, false, n, range);
}

/* The size of the next range, or of its commits; a claim may ask for less than the migration does. */
static int
size_of_range(const BbmClaim *claim, const BbmClaimState *state)
{
	int			size = bbm_size_now(claim->target, state);

	return claim->most > 0 ? Min(size, claim->most) : size;
}

/* They last as long as the job. */
static BbmMarks *
keep_marks(const BbmMarks *marks)
{
	BbmMarks   *kept;

	if (marks == NULL || marks->n == 0)
		return NULL;
	kept = palloc(sizeof(BbmMarks));
	*kept = *marks;
	kept->keys = palloc(marks->n * sizeof(int64));
	memcpy(kept->keys, marks->keys, marks->n * sizeof(int64));
	return kept;
}

/* Claims an allocated range as a new job. */
static void
insert_job(BbmClaim *claim, const BbmClaimState *state, const BbmRange *range, const BbmPartition *partition, int size)
{
	BbmTarget  *target = claim->target;
	bool		of_partition;
	MemoryContext old;

	old = MemoryContextSwitchTo(claim->context);
	claim->job.migration_id = target->migration->id;
	claim->job.phase = state->phase;
	of_partition = target->per_partition && partition && !partition->as_one_table;
	claim->job.relation = of_partition ? partition->relid : InvalidOid;
	claim->job.relation_name = of_partition ? pstrdup(partition->name) : NULL;
	claim->job.min = bbm_bound_copy(&range->min);
	claim->job.max = bbm_bound_copy(&range->max);
	claim->job.key_count = range->key_count;
	claim->job.batch_size = size;
	claim->job.marks = keep_marks(range->marks);
	MemoryContextSwitchTo(old);
	bbm_job_insert(&claim->job, claim->worker_id, state->last_id);
}

/* Allocates the next range and claims it as a job; false when none is left. */
static bool
allocate_range(BbmClaim *claim, const BbmClaimState *state, bool at_once)
{
	BbmTarget  *target = claim->target;
	int			size = size_of_range(claim, state);
	int			wanted = claim->one_commit ? size : bbm_claim_size(target, state, size);
	BbmRange	range = {0};
	BbmPartition *partition;

	/* the walk along so many keys would keep the rows of the last commit locked */
	if (at_once && wanted > size)
		return false;
	/* allocating a range does not process the rows that verification has found */
	target->repairs = BBM_REPAIRS_NONE;
	if (!bbm_next_range(target, state, wanted, at_once, &range, &partition))
		return false;
	if (wanted > size)
		leave_some(target, partition, wanted, size, &range);
	BBM_POINT(at_once ? "batch-allocated" : "claim-allocated");
	insert_job(claim, state, &range, partition, size);
	if (bbm_server_is_young())
		ForceSyncCommit();
	return true;
}

static bool
reclaim(BbmClaim *claim, int status, TimestampTz now)
{
	if (!bbm_job_reclaim(claim->target->migration->id, status, now, claim->worker_id, claim->context, &claim->job))
		return false;
	/* it was to be bisected, and a user has decided otherwise since */
	if (claim->target->migration->on_error == BBM_ON_ERROR_FAIL)
		claim->job.bisect = false;
	ForceSyncCommit();
	return true;
}

/*
 * Checks for jobs that are left over: orphans, and jobs that were requeued.
 * Returns true if the claim has its result.
 */
static bool
take_left_over(BbmClaim *claim, TimestampTz now, int *others, bool *locked)
{
	claim->target->next_poll = TimestampTzPlusMilliseconds(now, BBM_POLL_MS);
	*others = take_orphans(claim, locked);
	if (claim->result == BBM_CLAIM_USED_UP)
		return true;
	return reclaim(claim, BBM_JOB_NEW, now);
}

/*
 * All ranges are allocated: claims a failed job that is due, or reports what
 * there is to wait for.  A job that is due and cannot be claimed has its row
 * locked, by a user as a rule: whoever ends a job releases it in a moment.
 */
static void
take_failed(BbmClaim *claim, TimestampTz now, int others, bool locked)
{
	BbmTarget  *target = claim->target;
	int			polls = target->locked_polls;
	BbmUnfinished unfinished;

	target->locked_polls = 0;
	if (reclaim(claim, BBM_FAILED, now))
		return;
	bbm_jobs_unfinished(target->migration->id, &unfinished);
	if (unfinished.jobs > 0 && unfinished.due <= now)
	{
		int			ms = bbm_poll_less_often_ms(polls, BBM_FIRST_LOCKED_POLL_MS, BBM_LOCKED_POLL_MS);

		later_than_lock(claim, TimestampTzPlusMilliseconds(now, ms), "a lock on a job that is due");
		target->locked_polls = polls + 1;
	}
	else if (unfinished.jobs > 0)
	{
		later(claim, unfinished.due, bbm_unfinished_to_string(&unfinished));
		claim->idle_until = unfinished.due;
	}
	else if (locked)
		later_than_lock(claim, TimestampTzPlusMilliseconds(now, BBM_LOCKED_POLL_MS), "a lock on a job whose worker is gone");
	else
		claim->result = others > 0 ? BBM_CLAIM_OTHERS : BBM_CLAIM_DONE;
}

/* Is there a range that has been allocated and not been done? */
static bool
has_open_job(int64 migration_id, int others, bool locked)
{
	BbmUnfinished unfinished;

	bbm_jobs_unfinished(migration_id, &unfinished);
	return unfinished.jobs > 0 || others > 0 || locked;
}

/*
 * Claims the next job of a running migration: a job that is left over (an
 * orphan or a requeued job), a new range, or a failed job that is due, in this
 * order.  The claim checks for jobs that are left over from time to time and
 * when no range is left, not before each batch: while another session's long
 * transaction keeps dead tuples in the index, each such check scans past all
 * jobs done since.
 */
void
bbm_claim(void *arg)
{
	BbmClaim   *claim = arg;
	BbmTarget  *target = claim->target;
	BbmMigration *migration = target->migration;
	TimestampTz now;
	BbmClaimState state;
	int			others = 0;
	bool		checked;
	bool		locked = false;

	claim->result = BBM_CLAIM_CHANGED;
	BBM_POINT("claim-begin");
	bbm_lock_migration(bbm_lock_class(), migration->id);
	bbm_lock_table(bbm_lock_class(), target->relid);
	/* read after the locks: a job starts when everything that delayed its claim is over */
	now = GetCurrentTimestamp();
	checked = target->shard != NULL || bbm_time_has_come(now, target->next_poll, BBM_POLL_MS);
	if (!bbm_claim_state(migration->id, &state) || state.status != BBM_RUNNING ||
		state.updated_at != migration->updated_at || !bbm_target_is_current(target))
		return;
	migration->unlimited = superuser_arg(migration->owner);
	if (table_is_taken(claim, now))
		return;
	claim->slot = bbm_permit_acquire(bbm_lock_class(), migration->id,
									 target->strategy->one_at_a_time ? 1 : migration->workers);
	if (claim->slot < 0)
	{
		claim->result = BBM_CLAIM_OTHERS;
		return;
	}

	claim->result = BBM_CLAIM_JOB;
	BBM_POINT("claim-permitted");
	bbm_books_resume(target);
	/*
	 * If a batch may have crashed the server, the claim of its job must
	 * survive the next crash, or its attempts would never be used up: claims
	 * that are not for new ranges are flushed, and so are all claims in the
	 * first seconds after a server start.
	 */
	if (checked && take_left_over(claim, now, &others, &locked))
		return;
	/* the record of a shard has a cursor alone: all ranges up to there are done */
	if (target->shard && has_open_job(migration->id, others, locked))
	{
		take_failed(claim, now, others, locked);
		return;
	}
	if (allocate_range(claim, &state, false))
		return;
	if (!checked && take_left_over(claim, now, &others, &locked))
		return;
	take_failed(claim, now, others, locked);
}

/*
 * Allocates and claims the next range in the transaction that records the last
 * one, which saves a transaction per batch, where a job is one commit.  This
 * is done only in the plain case: the locks are free, nothing has changed, nobody else waits for the
 * table, the check for jobs left over is not due, and the range is of the
 * table that the batch has locked: to query several tables may wait for any of
 * them.  We keep our permit.  The rows of the batch stay locked while the
 * range is allocated; nothing is waited for.
 */
void
bbm_claim_next(BbmClaim *claim)
{
	BbmTarget  *target = claim->target;
	TimestampTz now = GetCurrentTimestamp();
	BbmClaimState state;

	claim->result = BBM_CLAIM_CHANGED;
	if (BBM_POINT_DUE("poll-due", bbm_time_has_come(now, target->next_poll, BBM_POLL_MS)) || target->partition == NULL ||
		target->partition->as_one_table ||
		!bbm_lock_for_claim_at_once(bbm_lock_class(), target->migration->id, target->relid))
		return;
	if (!bbm_claim_state(target->migration->id, &state) || state.status != BBM_RUNNING ||
		state.updated_at != target->migration->updated_at || !bbm_target_is_current(target) ||
		table_is_taken(claim, now))
		return;
	claim->result = allocate_range(claim, &state, true) ? BBM_CLAIM_JOB : BBM_CLAIM_CHANGED;
}

/*
 * Claims a job that was requeued, the next new range, or a failed job, due or
 * not, even if another migration has the table.  Returns false when nothing is
 * left.  This is for a transaction that has the migration's lock and is not
 * going to commit.
 */
bool
bbm_claim_any(BbmClaim *claim)
{
	int64		id = claim->target->migration->id;
	BbmClaimState state;

	if (!bbm_claim_state(id, &state))
		return false;
	/* what is rolled back is to be the work of one commit */
	claim->one_commit = true;
	return bbm_job_reclaim(id, BBM_JOB_NEW, DT_NOEND, claim->worker_id, claim->context, &claim->job) ||
		allocate_range(claim, &state, false) ||
		bbm_job_reclaim(id, BBM_FAILED, DT_NOEND, claim->worker_id, claim->context, &claim->job);
}

/*
 * Claims a range that begins with a drawn key or block instead of the next
 * one; false when there is nothing any more.  Like bbm_claim_any, this is for a
 * transaction that has the migration's lock and is not going to commit.
 */
bool
bbm_claim_at(BbmClaim *claim, const BbmDraw *draw)
{
	BbmTarget  *target = claim->target;
	BbmMigration *migration = target->migration;
	BbmBound	min = migration->min;
	BbmBound	before = {.number = draw->first.number - 1};
	BbmAllocation allocation = {0};
	BbmClaimState state;
	BbmRange	range;
	BbmPartition *partition;

	if (!bbm_claim_state(migration->id, &state))
		return false;
	target->repairs = BBM_REPAIRS_NONE;
	partition = bbm_partition_open(target, target->per_partition ? draw->relation : target->relid);
	if (partition == NULL)
		return false;
	if (target->strategy->begin_round)
		target->strategy->begin_round(target, partition, state.phase.round);
	allocation.max = &state.max;
	allocation.size = size_of_range(claim, &state);
	if (!target->strategy->has_key && before.number >= 0)
		allocation.after = &before;
	/* an allocation that follows no other begins with the migration's first key; an error ends the target, too */
	migration->min = draw->first;
	if (!target->strategy->next_range(target, partition, &allocation, &range) || range.key_count == 0)
	{
		migration->min = min;
		return false;
	}
	migration->min = min;
	insert_job(claim, &state, &range, partition, allocation.size);
	return true;
}

/*
 * Is every range of the phase allocated and every job finished?  This is for
 * the status transitions that follow, whose transaction holds the migration's
 * lock, so that no claim can intervene.
 */
bool
bbm_nothing_left(BbmTarget *target)
{
	BbmClaimState state;
	BbmUnfinished unfinished;
	BbmRange	range;
	BbmPartition *partition;

	target->repairs = BBM_REPAIRS_NONE;
	if (!bbm_claim_state(target->migration->id, &state) || !bbm_target_is_current(target) ||
		bbm_next_range(target, &state, 1, false, &range, &partition))
		return false;
	/*
	 * In this order: between the two statements a worker may requeue or fail
	 * the job that it runs, which takes none of the locks we have, and then
	 * the second one sees it.  No claim can turn a job the other way.
	 */
	if (bbm_jobs_running(target->migration->id) != NIL)
		return false;
	BBM_POINT("end-running-read");
	bbm_jobs_unfinished(target->migration->id, &unfinished);
	return unfinished.jobs == 0;
}
