/*-------------------------------------------------------------------------
 *
 * size.c
 *		How many keys the next batch is to have.
 *
 *-------------------------------------------------------------------------
 */
#include "target/size.h"

#include "base/rates.h"
#include "catalog/claims.h"
#include "target/target.h"

/*
 * If a batch covers all partitions, an adaptive batch size is not reduced
 * below so many keys for each partition, as long as these do not exceed so
 * many in total: the cost of opening the partitions does not decrease with the
 * number of keys.
 */
#define BBM_LEAST_KEYS_A_PARTITION 16
#define BBM_LEAST_KEYS 1000

/* How many marks a range has for each of its commits; a range of more commits than the latter has none. */
#define BBM_MARKS_A_COMMIT 4
#define BBM_MOST_MARKED 1000

bool
bbm_size_is_adaptive(const BbmMigration *migration)
{
	return migration->target_ms > 0 || migration->max_batch_wal > 0;
}

/*
 * A size that only a limit of WAL changes does not grow beyond the requested
 * size.
 */
void
bbm_size_limits(const BbmTarget *target, BbmSizeLimits *limits)
{
	const BbmMigration *migration = target->migration;

	limits->target_ms = migration->target_ms;
	limits->max_wal = migration->max_batch_wal;
	limits->max_size = migration->target_ms > 0 ? migration->max_batch_size :
		Min(migration->max_batch_size, migration->batch_size);
	/* each batch opens every partition, whatever its range: its size must justify that */
	limits->min_size = Max(target->partitions, Min(target->partitions * BBM_LEAST_KEYS_A_PARTITION, BBM_LEAST_KEYS));
	limits->min_size = Min(Max(migration->min_batch_size, limits->min_size), limits->max_size);
}

/* The number of keys for the next batch; a new process continues with the size of the last batch. */
int
bbm_size_now(BbmTarget *target, const BbmClaimState *state)
{
	BbmSizeLimits limits;

	if (!bbm_size_is_adaptive(target->migration))
		return state->batch_size;
	bbm_size_limits(target, &limits);
	if (target->sizing.size == 0)
		bbm_sizing_start(&target->sizing, &limits, state->last_size > 0 ? state->last_size : state->batch_size);
	return target->sizing.size;
}

/*
 * Does a job of this migration have several commits, of a size that we choose?
 * Not when somebody has chosen one of the two: batch_size is exact.  Where a job
 * is what is skipped, it is one commit.
 */
static bool
claims_are_large(const BbmTarget *target)
{
	const BbmMigration *migration = target->migration;

	return migration->target_ms > 0 && migration->sub_batch_size == 0 && !target->strategy->one_at_a_time &&
		migration->on_error != BBM_ON_ERROR_SKIP;
}

/* The number of keys to claim, where "size" is that of a commit. */
int
bbm_claim_size(const BbmTarget *target, const BbmClaimState *state, int size)
{
	int64		keys;

	if (!claims_are_large(target) || state->phase.verifies)
		return size;
	keys = (int64) size * bbm_commits_of_claim(target->sizing.ms_per_key * size);
	return (int) Min(keys, PG_INT32_MAX);
}

/*
 * The number of keys to commit at once, as long as nothing has reduced it; 0:
 * the whole job.  A job that was claimed for several commits keeps them if the
 * migration has been given an exact size since; they are not larger than that.
 */
int
bbm_commit_size(const BbmTarget *target, const BbmJob *job)
{
	if (target->migration->sub_batch_size > 0)
		return target->migration->sub_batch_size;
	if (job->phase.verifies || job->kind != BBM_JOB_RANGE || job->batch_size <= 0 || job->key_count <= job->batch_size)
		return 0;
	if (claims_are_large(target))
		return target->sizing.size > 0 ? target->sizing.size : job->batch_size;
	return Min(job->batch_size, target->migration->batch_size);
}

/*
 * Prepares the marks of a range of so many keys, in the current memory context;
 * NULL if it is to have none, as it is one commit.  A size that we choose
 * changes while the range is worked on, so there are a few for each commit.
 */
BbmMarks *
bbm_marks_prepare(const BbmTarget *target, int keys)
{
	bool		exact = target->migration->sub_batch_size > 0;
	int			size = exact ? target->migration->sub_batch_size :
		claims_are_large(target) ? target->sizing.size : 0;
	BbmMarks   *marks;

	if (size <= 0 || size >= keys || keys / size > BBM_MOST_MARKED)
		return NULL;
	marks = palloc0(sizeof(BbmMarks));
	marks->size = size;
	marks->parts = exact ? 1 : Min(BBM_MARKS_A_COMMIT, size);
	marks->keys = palloc(((int64) keys * marks->parts / size + 1) * sizeof(int64));
	return marks;
}

/* The size that was requested when a job's range was allocated; a job of other origin does not record it. */
int
bbm_job_size(const BbmTarget *target, const BbmJob *job)
{
	return job->batch_size > 0 ? job->batch_size : target->migration->batch_size;
}
