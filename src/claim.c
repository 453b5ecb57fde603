/*-------------------------------------------------------------------------
 *
 * claim.c
 *		The first transaction of a job: taking it.
 *
 * NOTES
 *	  The migration's lock is taken before anything is read and let go after
 *	  the commit is visible, and whoever changes the migration's status holds
 *	  it too.  So within the transaction no other session can pause the
 *	  migration, cut a range of it or take a job of it; a pause that committed
 *	  before is seen, and one that comes now waits for us, not for a batch.
 *	  What can happen between any two statements is that a worker finishes its
 *	  job or dies: a job then is seen as running a moment longer than it is,
 *	  and the next claim sees it right.
 *
 *	  The table's lock is taken second.  Claims of two migrations on one table
 *	  meet there, one after the other, so that both cannot find it free.
 *
 *-------------------------------------------------------------------------
 */
#include "claim.h"

#include "common/pg_prng.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "locks.h"
#include "throttle.h"
#include "txn.h"

/* How often to look again whether another migration has left the table. */
#define BBM_TABLE_POLL_MS 200

static void
later(BbmClaim *claim, TimestampTz due, const char *reason)
{
	claim->result = BBM_CLAIM_LATER;
	claim->due = due;
	strlcpy(claim->reason, reason, sizeof(claim->reason));
}

/*
 * A job whose worker is gone has failed like any other, and comes back after
 * the new ranges: one that takes the server down with it must not be the first
 * thing to run when it is up again.  False when somebody still has it.
 */
static bool
take_orphan(BbmClaim *claim, const BbmRunningJob *job)
{
	int64		delay = bbm_backoff_ms(job->attempts, bbm_retry_delay, bbm_retry_max_delay,
									   pg_prng_double(&pg_global_prng_state));

	/* the first time it is most likely not the job's fault */
	if (job->attempts <= 1)
		delay = 0;
	if (!bbm_job_orphan(job->id, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay)))
		return false;
	if (job->attempts >= claim->target->migration->max_attempts)
		claim->result = BBM_CLAIM_USED_UP;
	return true;
}

/*
 * Looks at who runs what: takes over orphans, and returns false (with the
 * claim's result set) when it is not our turn.  *others is set to the number
 * of jobs of this migration that live processes run.
 */
static bool
look_at_running(BbmClaim *claim, int *others)
{
	BbmMigration *migration = claim->target->migration;
	List	   *running = bbm_jobs_running(migration->id, claim->target->relid, CurrentMemoryContext);
	int			limit = claim->target->strategy->one_at_a_time ? 1 : migration->workers;
	ListCell   *cell;

	*others = 0;
	foreach(cell, running)
	{
		BbmRunningJob *job = lfirst(cell);
		/* we run none while we claim, so one with our token is left over too */
		bool		alive = job->token != claim->token && bbm_token_alive(bbm_space(), job->token);

		if (job->migration_id == migration->id)
		{
			if (alive || !take_orphan(claim, job))
				(*others)++;
		}
		else if (alive && !(job->share_table && migration->share_table))
		{
			char		reason[128];

			snprintf(reason, sizeof(reason), "another migration on the table, id " INT64_FORMAT, job->migration_id);
			later(claim, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BBM_TABLE_POLL_MS), reason);
			return false;
		}
	}
	if (claim->result == BBM_CLAIM_USED_UP)
		return false;
	if (*others >= limit)
	{
		claim->result = BBM_CLAIM_OTHERS;
		return false;
	}
	return true;
}

static bool
cut_new(BbmClaim *claim, const BbmClaimState *state)
{
	BbmRange	range;

	if (!claim->target->strategy->next_range(claim->target, state, &range))
		return false;
	claim->job.migration_id = claim->target->migration->id;
	claim->job.min_value = range.min_value;
	claim->job.max_value = range.max_value;
	claim->job.key_count = range.key_count;
	bbm_job_insert(&claim->job, claim->token);
	claim->new_range = true;
	return true;
}

/*
 * Takes the next job of a running migration: one that was given back, a new
 * range, or a failed one that is due, in this order.
 */
void
bbm_claim(void *arg)
{
	BbmClaim   *claim = arg;
	BbmMigration *migration = claim->target->migration;
	TimestampTz now = GetCurrentTimestamp();
	BbmClaimState state;
	BbmUnfinished unfinished;
	int			others = 0;

	claim->result = BBM_CLAIM_CHANGED;
	claim->new_range = false;
	bbm_lock_migration(bbm_space(), migration->id);
	bbm_lock_table(bbm_space(), claim->target->relid);
	if (!bbm_claim_state(migration->id, &state) || state.status != BBM_RUNNING ||
		state.updated_at != migration->updated_at)
		return;
	if (state.open_jobs && !look_at_running(claim, &others))
		return;

	claim->result = BBM_CLAIM_JOB;
	if (state.open_jobs && bbm_job_reclaim(migration->id, BBM_JOB_NEW, now, claim->token, &claim->job))
		return;
	if (cut_new(claim, &state))
		return;
	if (state.open_jobs && bbm_job_reclaim(migration->id, BBM_FAILED, now, claim->token, &claim->job))
		return;

	bbm_jobs_unfinished(migration->id, &unfinished);
	if (unfinished.jobs > 0)
		later(claim, Max(unfinished.due, TimestampTzPlusMilliseconds(now, 1)),
			  unfinished.failed > 0 ? "retry of a failed job" : "retry of a job given back");
	else
		claim->result = others > 0 ? BBM_CLAIM_OTHERS : BBM_CLAIM_DONE;
}

/*
 * Is every range cut and every job finished?  For the transition to finished,
 * whose transaction holds the migration's lock: no claim comes in between.
 */
bool
bbm_nothing_left(BbmTarget *target)
{
	BbmClaimState state;
	BbmUnfinished unfinished;
	BbmRange	range;
	ListCell   *cell;

	if (!bbm_claim_state(target->migration->id, &state) || target->strategy->next_range(target, &state, &range))
		return false;
	bbm_jobs_unfinished(target->migration->id, &unfinished);
	if (unfinished.jobs > 0)
		return false;
	foreach(cell, bbm_jobs_running(target->migration->id, InvalidOid, CurrentMemoryContext))
	{
		if (((BbmRunningJob *) lfirst(cell))->migration_id == target->migration->id)
			return false;
	}
	return true;
}
