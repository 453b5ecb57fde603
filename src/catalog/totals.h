/*-------------------------------------------------------------------------
 *
 * totals.h
 *		What a migration's jobs add up to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_TOTALS_H
#define BBM_CATALOG_TOTALS_H

#include "base/bbm.h"

#include "utils/snapshot.h"

#include "base/progress.h"
#include "catalog/job_record.h"

#define BBM_REQUEUE_REASONS BBM_REQUEUE_OTHER

/* The sums over some jobs. */
typedef struct BbmSums
{
	int64		keys;			/* of the first round */
	int64		rows;			/* changed: rows that a verification has found do not count */
	double		run_ms;
	int64		wal;
	int64		jobs;			/* counts each merged job */
	int64		requeued;
	int64		reasons[BBM_REQUEUE_REASONS];	/* how often for each reason */
} BbmSums;

typedef struct BbmTotals
{
	BbmSums		finished;		/* of the jobs up to last_job */
	BbmSums		open;			/* of the jobs that are not finished, as far as they are */
	int64		part_keys;		/* keys done in these, of the first round */
	int64		running;		/* the number of jobs that are marked as running, ... */
	int64		at_work;		/* ... and of those that a process runs, as far as is known here */
	int64		failed;
	bool		has_allocated;	/* a range has been allocated, ... */
	int64		allocated_to;	/* ... and this is the highest max_value */
	bool		per_partition;
	int			batch_size;		/* of the newest job that processes rows; 0: none */
	TimestampTz progress_at;	/* when a job or sub-batch was last finished; 0: never */
	BbmHistory	history;
	int64		last_job;		/* the newest job, 0: none */
	int			nopen;			/* the jobs that are not finished */
	int64	   *open_jobs;
} BbmTotals;

/* What a process knows about the time since it last recorded totals. */
typedef struct BbmElapsed
{
	bool		resumes;		/* it begins to work on the migration, ... */
	bool		starts;			/* ... which was paused, or has not run yet */
	double		left_out_ms;
	double		paced_ms;
} BbmElapsed;

extern void bbm_totals_read(int64 migration_id, Snapshot snapshot, BbmTotals *totals);
extern PGDLLEXPORT void bbm_totals_advance(int64 migration_id, const BbmElapsed *elapsed, BbmTotals *totals);
extern Datum bbm_totals_open(const BbmTotals *totals);
extern void bbm_totals_forget(int64 migration_id);
extern int64 bbm_totals_keys(const BbmTotals *totals);
extern int64 bbm_totals_rows(const BbmTotals *totals);
extern int64 bbm_totals_requeues(const BbmTotals *totals, BbmRequeueReason reason);
extern double bbm_totals_clock_ms(TimestampTz at);
extern void bbm_totals_sample(const BbmTotals *totals, TimestampTz now, const BbmElapsed *elapsed, BbmSample *sample);

#endif							/* BBM_CATALOG_TOTALS_H */
