/*-------------------------------------------------------------------------
 *
 * impact.c
 *		Entry points for the tests: which statements count, and what is made of
 *		their durations.
 *
 * A test declares these functions; see bbm_test.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/impact.h"
#include "base/impact_counts.h"
#include "base/shmem.h"

#include "bbm_test.h"

PG_FUNCTION_INFO_V1(bbm_test_impact_buckets);
PG_FUNCTION_INFO_V1(bbm_test_impact_between);
PG_FUNCTION_INFO_V1(bbm_test_impact_window);
PG_FUNCTION_INFO_V1(bbm_test_impact_error);
PG_FUNCTION_INFO_V1(bbm_test_impact_shift);

/* A window that lasts for longer than any test. */
#define TEST_US (INT64CONST(1800) * USECS_PER_SEC)

static ArrayType *
to_array(const double *numbers, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Float8GetDatum(numbers[i]);
	return construct_array(elements, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

/* (us float8[]) → for each the bucket's begin; -1 for what is not counted. */
Datum
bbm_test_impact_buckets(PG_FUNCTION_ARGS)
{
	int			n;
	double	   *us = bbm_test_numbers(fcinfo, 0, &n);
	double	   *begins = palloc(Max(n, 1) * sizeof(double));

	for (int i = 0; i < n; i++)
	{
		int			bucket = bbm_impact_bucket((int64) us[i]);

		begins[i] = bucket < 0 ? -1 : bbm_impact_bucket_begin(bucket);
	}
	PG_RETURN_ARRAYTYPE_P(to_array(begins, n));
}

/* (silent float8[], worked float8[]: durations) → statements, mean, its error, p99; NaN for what is not known. */
Datum
bbm_test_impact_between(PG_FUNCTION_ARGS)
{
	BbmHistogram *histograms = palloc0(2 * sizeof(BbmHistogram));
	BbmImpact	impact;
	double		result[4];

	for (int i = 0; i < 2; i++)
	{
		int			n;
		double	   *us = bbm_test_numbers(fcinfo, i, &n);

		for (int k = 0; k < n; k++)
			bbm_histogram_add(&histograms[i], k % BBM_IMPACT_GROUPS, (int64) us[k]);
	}
	impact = bbm_impact_between(&histograms[0], &histograms[1]);
	result[0] = (double) impact.statements;
	result[1] = impact.has_mean ? impact.mean : NAN;
	result[2] = impact.has_error ? impact.mean_error : NAN;
	result[3] = impact.has_p99 ? impact.p99 : NAN;
	PG_RETURN_ARRAYTYPE_P(to_array(result, 4));
}

/*
 * (migration_id bigint, kind int, pulse boolean): from now on there is one
 * window of this kind, and the migration is at work as far as statements know,
 * in a pulse or in a pause.  Without "pulse" that ends.
 */
Datum
bbm_test_impact_window(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	BbmImpactState *state = &bbm_shared->impact;
	int			shift = 20;

	bbm_impact_pulse_begins(PG_GETARG_INT64(0), now);
	if (PG_ARGISNULL(2) || !PG_GETARG_BOOL(2))
	{
		bbm_impact_works_until(PG_ARGISNULL(2) ? now : now + TEST_US);
		bbm_impact_stops();
	}
	while (!bbm_window_counts(now, shift) || !bbm_window_counts(now + TEST_US, shift) ||
		   bbm_window_end(now, shift) != bbm_window_end(now + TEST_US, shift))
		shift++;
	pg_atomic_write_u32(&state->shift, PG_ARGISNULL(2) ? 0 : shift);
	while (bbm_window_kind(state->seed, now, shift) != (BbmWindowKind) PG_GETARG_INT32(1))
		state->seed++;
	pg_atomic_write_u64(&state->heard, (uint64) now);
	pg_atomic_write_u64(&state->heard_since, (uint64) (now - TEST_US));
	PG_RETURN_VOID();
}

/* In [0, 1), the same in each run: xorshift. */
static double
draw(uint64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) * (1.0 / 9007199254740992.0);
}

/* Normally distributed, with mean 0 and deviation 1. */
static double
draw_normal(uint64 *state)
{
	return sqrt(-2 * log(1 - draw(state))) * cos(2 * M_PI * draw(state));
}

/* What a simulated run has measured. */
typedef struct Run
{
	BbmHistogram histograms[BBM_WINDOW_KINDS];
	double		squares[BBM_WINDOW_KINDS];	/* of the durations */
} Run;

/*
 * A run of so many windows in a row.  Statements of a window have a factor in
 * common, and so have windows after one another, of which each keeps nine
 * tenths of the one before; "common" is the deviation of the logarithm of both.
 * In a window in which bbm works they take by "effect" longer.
 */
static void
simulate_run(Run *run, uint64 *random, int windows, double common, double effect)
{
	uint64		seed = (uint64) (draw(random) * (1 << 30));
	double		slow = common * draw_normal(random);

	memset(run, 0, sizeof(Run));
	for (int i = 0; i < windows; i++)
	{
		int64		at = ((int64) i + 1) << BBM_WINDOW_BITS;
		BbmWindowKind kind = bbm_window_kind(seed, at, 0);
		double		factor;

		slow = 0.9 * slow + sqrt(1 - 0.9 * 0.9) * common * draw_normal(random);
		factor = exp(slow + common * draw_normal(random));
		if (kind == BBM_WINDOW_OTHER)
			continue;
		if (kind == BBM_WINDOW_WORKED)
			factor *= 1 + effect;
		/* more of them while they are short, as of clients that wait for an answer */
		for (int n = (int) (10 + 20 * draw(random) / factor); n > 0; n--)
		{
			double		us = 1000 * factor * (0.5 + draw(random));

			bbm_histogram_add(&run->histograms[kind], bbm_window_group(seed, at, 0), (int64) us);
			run->squares[kind] += us * us;
		}
	}
}

/* The standard error if each statement were drawn by itself. */
static double
error_of_statements(const Run *run)
{
	double		mean[BBM_WINDOW_KINDS];
	double		variance[BBM_WINDOW_KINDS];
	double		ratio;

	for (int kind = 0; kind < BBM_WINDOW_KINDS; kind++)
	{
		const BbmHistogram *histogram = &run->histograms[kind];

		mean[kind] = bbm_histogram_mean(histogram);
		variance[kind] = (run->squares[kind] / histogram->n - mean[kind] * mean[kind]) / histogram->n;
	}
	ratio = mean[BBM_WINDOW_WORKED] / mean[BBM_WINDOW_SILENT];
	return sqrt(variance[BBM_WINDOW_WORKED] + ratio * ratio * variance[BBM_WINDOW_SILENT]) / mean[BBM_WINDOW_SILENT];
}

/*
 * (runs int, windows int, common float8, effect float8) → in how many of the
 * runs, as a share, twice the reported error covers the difference from what
 * is true on average, and twice the error that statements have if each is taken
 * by itself; the mean of what is reported, and of its error; and the deviation
 * of what is reported.
 */
Datum
bbm_test_impact_error(PG_FUNCTION_ARGS)
{
	int			runs = PG_GETARG_INT32(0);
	double	   *reported = palloc(runs * sizeof(double));
	double	   *errors = palloc(runs * sizeof(double));
	double	   *of_statements = palloc(runs * sizeof(double));
	uint64		random = UINT64CONST(88172645463325252);
	Run		   *run = palloc(sizeof(Run));
	double		result[5] = {0};

	for (int i = 0; i < runs; i++)
	{
		BbmImpact	impact;

		CHECK_FOR_INTERRUPTS();
		simulate_run(run, &random, PG_GETARG_INT32(1), PG_GETARG_FLOAT8(2), PG_GETARG_FLOAT8(3));
		impact = bbm_impact_between(&run->histograms[BBM_WINDOW_SILENT], &run->histograms[BBM_WINDOW_WORKED]);
		reported[i] = impact.mean;
		errors[i] = impact.has_error ? impact.mean_error : 0;
		of_statements[i] = error_of_statements(run);
		result[2] += impact.mean / runs;
		result[3] += errors[i] / runs;
	}
	for (int i = 0; i < runs; i++)
	{
		double		off = fabs(reported[i] - result[2]);

		result[0] += (off <= 2 * errors[i] ? 1.0 : 0.0) / runs;
		result[1] += (off <= 2 * of_statements[i] ? 1.0 : 0.0) / runs;
		result[4] += off * off / runs;
	}
	result[4] = sqrt(result[4]);
	PG_RETURN_ARRAYTYPE_P(to_array(result, 5));
}

/*
 * (migration_id bigint, us float8[], gap_us bigint) → how much longer windows
 * are after each of these pulses, of which the next begins so much later.
 */
Datum
bbm_test_impact_shift(PG_FUNCTION_ARGS)
{
	static TimestampTz now = 0;
	int			n;
	double	   *us = bbm_test_numbers(fcinfo, 1, &n);
	double	   *shifts = palloc(Max(n, 1) * sizeof(double));

	/* what others have needed a moment ago has been forgotten then */
	now = Max(now, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 60000));
	for (int i = 0; i < n; i++)
	{
		bbm_impact_pulse_begins(PG_GETARG_INT64(0), now);
		now += (TimestampTz) us[i];
		bbm_impact_pulse_ends(now, us[i]);
		shifts[i] = pg_atomic_read_u32(&bbm_shared->impact.shift);
		now += PG_GETARG_INT64(2);
	}
	PG_RETURN_ARRAYTYPE_P(to_array(shifts, n));
}
