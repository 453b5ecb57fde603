/*-------------------------------------------------------------------------
 *
 * dry_run.c
 *		bbm_dry_run: executes some batches of a migration, to show what they
 *		cost, and rolls them back (sql/trial.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "catalog/claims.h"
#include "sql/arguments.h"
#include "sql/trial.h"
#include "strategy/resolve.h"
#include "target/size.h"

PG_FUNCTION_INFO_V1(bbm_dry_run);

typedef struct DryRun
{
	int			wanted;			/* in */
	bool		sample;
	int			jobs;			/* out */
	int64		keys;
	int64		rows;
	double		ms;
	double		wal;
	int			next_size;		/* of the batch that would follow */
	double		estimate;		/* keys of the whole migration */
	bool		complete;		/* no range was left */
	bool		sampled;		/* batches began at drawn places */
	const char *estimated_from;
} DryRun;

/* One batch; false when no range is left. */
static bool
do_batch(DryRun *run, BbmTrialBatch *batch)
{
	if (bbm_trial_batch(batch))
	{
		run->rows = bbm_add_counts(run->rows, batch->rows);
		run->keys += batch->work.keys;
		run->ms += batch->ms;
		run->wal += batch->wal;
		run->jobs++;
	}
	return batch->found;
}

/* What the estimate for the whole migration is based on. */
static const char *
estimated_from(const DryRun *run, BbmTarget *target, bool all)
{
	const char *from = target->as_owner ? "statistics" : "pages";

	if (all)
		return "all batches";
	return bbm_target_is_analyzed(target) ? from : psprintf("%s, never analyzed", from);
}

static void
dry_run(BbmTrial *trial, BbmTarget *target)
{
	DryRun	   *run = trial->arg;
	BbmTrialBatch batch = {.trial = trial, .target = target};
	BbmClaimState state;
	bool		known = bbm_claim_state(trial->id, &state);
	bool		from_the_first = known && !state.has_last;
	List	   *draws = known && run->sample ? bbm_draw(target, &state, run->wanted, NULL) : NIL;
	MemoryContext old;
	ListCell   *cell;

	run->sampled = draws != NIL;
	foreach(cell, draws)
	{
		batch.draw = lfirst(cell);
		(void) do_batch(run, &batch);
	}
	while (!run->sampled && run->jobs < run->wanted && !run->complete)
		run->complete = !do_batch(run, &batch);
	if (bbm_claim_state(trial->id, &state))
		run->next_size = bbm_size_now(target, &state);
	run->estimate = run->complete && from_the_first ? (double) run->keys :
		run->sampled ? (double) trial->estimate : (double) Max(trial->estimate, run->keys);
	old = MemoryContextSwitchTo(trial->context);
	run->estimated_from = estimated_from(run, target, run->complete && from_the_first);
	MemoryContextSwitchTo(old);
}

static Datum
interval_of_ms(double ms)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = (TimeOffset) Min(ms * 1000, (double) PG_INT64_MAX / 2);
	return IntervalPGetDatum(interval);
}

static Datum
whole(double value)
{
	return Int64GetDatum(bbm_count_of(ceil(value)));
}

#define RESULT_COLUMNS 13

/* bbm_dry_run(name, batches, sample) → one row. */
Datum
bbm_dry_run(PG_FUNCTION_ARGS)
{
	DryRun		run = {0};
	BbmTrial	trial = {.what = "dry run", .run = dry_run, .arg = &run};
	double		times;
	Datum		values[RESULT_COLUMNS];
	bool		nulls[RESULT_COLUMNS] = {0};

	trial.name = bbm_trial_check(fcinfo, "bbm_dry_run");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(PG_ARGISNULL(1) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batches must be a positive number"),
				 errdetail("It is how many are tried."),
				 errhint("Try a few: their rows stay locked until the last of them has ended.")));
	run.wanted = PG_GETARG_INT32(1);
	run.sample = PG_GETARG_BOOL(2);
	bbm_trial(&trial);
	times = run.keys > 0 ? run.estimate / run.keys : 1;
	values[0] = Int32GetDatum(run.jobs);
	values[1] = Int64GetDatum(run.keys);
	values[2] = Int64GetDatum(run.rows);
	values[3] = interval_of_ms(run.ms);
	values[4] = whole(run.wal);
	values[5] = Int32GetDatum(run.next_size);
	values[6] = BoolGetDatum(run.complete);
	values[7] = whole(run.estimate);
	values[8] = whole(run.rows * times);
	values[9] = interval_of_ms(run.ms * times);
	values[10] = whole(run.wal * times);
	values[11] = BoolGetDatum(run.sampled);
	values[12] = CStringGetTextDatum(run.estimated_from);
	return bbm_result_row(fcinfo, RESULT_COLUMNS, values, nulls);
}
