/*-------------------------------------------------------------------------
 *
 * preview.c
 *		bbm_preview: shows what a migration would do to some rows.
 *
 * NOTES
 *	  Batches are executed as a worker executes them, with the owner's rights,
 *	  the migration's settings and lock timeout, triggers and deferred
 *	  constraints, and rolled back (sql/trial.c).  They have fewer keys than the
 *	  migration's if those are many, as only some rows are shown.
 *
 *	  If one such batch could be all of the table, or all of its rows were asked
 *	  for, batches begin at the first key, and follow each other.
 *	  Otherwise batches begin at drawn places, if possible at rows that the
 *	  migration is to change.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "base/bbm.h"
#include "catalog/claims.h"
#include "sql/trial.h"
#include "target/changes.h"
#include "target/explain.h"
#include "target/job.h"
#include "target/relation.h"
#include "target/size.h"

PG_FUNCTION_INFO_V1(bbm_preview);

#define BBM_PREVIEW_BATCHES 10
#define BBM_PREVIEW_KEYS 1000	/* of a batch */
#define BBM_PREVIEW_MOST_ROWS 1000

typedef struct Preview
{
	ReturnSetInfo *result;		/* in */
	int			wanted;
	bool		sample;
	int			shown;			/* rows so far */
	int			quota;			/* ... and at most, after the current batch */
	int			batches;
	int64		changed;		/* rows, as the job counts them */
	BbmRowVersion *rows;		/* those that were shown */
	bool		explained;
	BbmRange	range;			/* of the current batch */
	BbmChanges	changes;
	bool		compares;
	bool		not_compared;	/* the rows of a batch cannot be */
} Preview;

static void
put(Preview *preview, const char *operation, Datum key, Datum before, Datum after, const char *detail)
{
	Datum		values[5] = {CStringGetTextDatum(operation), key, before, after, (Datum) 0};
	bool		nulls[5] = {false, key == 0, before == 0, after == 0, detail == NULL};

	if (detail)
		values[4] = CStringGetTextDatum(detail);
	tuplestore_putvalues(preview->result->setResult, preview->result->setDesc, values, nulls);
}

/* A row that is in two batches is shown once. */
static bool
is_wanted(const BbmRowVersion *row, void *arg)
{
	const Preview *preview = arg;

	for (int i = 0; i < preview->shown; i++)
	{
		if (preview->rows[i].relation == row->relation &&
			ItemPointerEquals(&preview->rows[i].tid, (ItemPointer) &row->tid))
			return false;
	}
	return true;
}

/* A BbmChangeFn. */
static bool
show(const BbmChange *change, void *arg)
{
	Preview    *preview = arg;
	const BbmTarget *target = preview->changes.target;

	if (preview->shown >= preview->quota)
		return false;
	preview->rows[preview->shown++] = change->row;
	put(preview, change->operation, change->key, change->before, change->after,
		target->has_partitions ? bbm_table_sql_name(change->row.relation) : NULL);
	return preview->shown < preview->quota;
}

/* The batch is claimed: shows what it is going to execute, the first time, and remembers the rows of its range. */
static void
before_batch(BbmTrialBatch *batch)
{
	Preview    *preview = batch->arg;
	const BbmJob *job = &batch->claim.job;
	BbmPartition *partition;

	preview->compares = false;
	/* verification only reads */
	if (job->phase.verifies)
		return;
	partition = bbm_work_partition(&batch->work);
	if (partition == NULL)
		return;
	preview->range = (BbmRange) {job->min, job->max, job->key_count};
	if (!preview->explained)
	{
		put(preview, "statement", 0, 0, 0, bbm_job_statement(batch->target, partition));
		put(preview, "plan", 0, 0, 0, bbm_job_explain(batch->target, partition, &preview->range, job->batch_size));
		preview->explained = true;
	}
	if (batch->only_claim)
		return;
	if (!bbm_changes_possible(batch->target, partition))
	{
		preview->not_compared = true;
		return;
	}
	preview->changes = (BbmChanges) {.target = batch->target, .partition = partition, .range = &preview->range};
	preview->compares = true;
	bbm_changes_begin(&preview->changes);
}

static void
after_batch(BbmTrialBatch *batch)
{
	Preview    *preview = batch->arg;

	preview->batches++;
	preview->changed = bbm_add_counts(preview->changed, batch->rows);
	/* a batch that repairs has opened it anew */
	preview->changes.partition = batch->target->partition;
	if (preview->compares)
		bbm_changes_end(&preview->changes, is_wanted, show, preview);
}

/* One batch, which shows no more rows than this portion of what is wanted; false when no range is left. */
static bool
do_batch(Preview *preview, BbmTrialBatch *batch, int portions)
{
	int			left = preview->wanted - preview->shown;

	preview->quota = preview->shown + (left + portions - 1) / portions;
	return bbm_trial_batch(batch);
}

static void
preview_migration(BbmTrial *trial, BbmTarget *target)
{
	Preview    *preview = trial->arg;
	BbmTrialBatch batch = {.trial = trial, .target = target, .most = BBM_PREVIEW_KEYS, .before = before_batch,
		.after = after_batch, .arg = preview, .only_claim = preview->wanted == 0};
	BbmClaimState state;
	bool		known = bbm_claim_state(trial->id, &state);
	List	   *draws = NIL;

	if (known && preview->sample && trial->estimate > Min(bbm_size_now(target, &state), BBM_PREVIEW_KEYS) &&
		trial->estimate > preview->wanted)
		draws = bbm_draw(target, &state, BBM_PREVIEW_BATCHES, target->migration->filter);
	for (int i = 0; i < list_length(draws) && (i == 0 || preview->shown < preview->wanted); i++)
	{
		batch.draw = list_nth(draws, i);
		(void) do_batch(preview, &batch, list_length(draws) - i);
	}
	for (int i = 0; draws == NIL && i < BBM_PREVIEW_BATCHES && (i == 0 || preview->shown < preview->wanted); i++)
	{
		if (!do_batch(preview, &batch, 1))
			break;
	}
}

/* Explains why there is no row, or none of some. */
static void
explain_rows(const Preview *preview, const char *name)
{
	if (preview->not_compared)
		ereport(NOTICE,
				(errmsg("rows of migration \"%s\" cannot be compared", name),
				 errdetail("Its owner needs SELECT on the table as a whole, and rows of foreign tables are never compared. The batches were run and rolled back.")));
	else if (preview->batches == 0)
		ereport(NOTICE,
				(errmsg("migration \"%s\" has nothing left to do", name)));
	else if (preview->shown == 0 && preview->wanted > 0)
		ereport(NOTICE,
				(errmsg("no row of the table changed in the batches that were tried"),
				 errdetail("Batches: %d. Rows that the job says it changed: " INT64_FORMAT ".", preview->batches, preview->changed),
				 preview->changed > 0 ? errhint("They are rows of other tables, or beyond the batch's range.") :
				 errhint("Check \"filter\", or try again: other batches may be drawn.")));
}

/* bbm_preview(name, rows, sample) → rows.  Nothing is left of it. */
Datum
bbm_preview(PG_FUNCTION_ARGS)
{
	Preview		preview = {0};
	BbmTrial	trial = {.what = "preview", .run = preview_migration, .arg = &preview};

	trial.name = bbm_trial_check(fcinfo, "bbm_preview");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 0 || PG_GETARG_INT32(1) > BBM_PREVIEW_MOST_ROWS)
		ereport(ERROR,
				(errcode(PG_ARGISNULL(1) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("rows must be a number between 0 and %d", BBM_PREVIEW_MOST_ROWS),
				 errdetail("It is how many rows are shown at most."),
				 errhint("With 0, only the statement and its plan are shown.")));
	InitMaterializedSRF(fcinfo, 0);
	preview.result = (ReturnSetInfo *) fcinfo->resultinfo;
	preview.wanted = PG_GETARG_INT32(1);
	preview.sample = PG_GETARG_BOOL(2);
	preview.rows = palloc(Max(preview.wanted, 1) * sizeof(BbmRowVersion));
	bbm_trial(&trial);
	explain_rows(&preview, trial.name);
	PG_RETURN_NULL();
}
