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
#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/impact.h"
#include "base/impact_counts.h"
#include "base/shmem.h"

#include "bbm_test.h"

PG_FUNCTION_INFO_V1(bbm_test_impact_buckets);
PG_FUNCTION_INFO_V1(bbm_test_impact_between);
PG_FUNCTION_INFO_V1(bbm_test_impact_window);

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
			bbm_histogram_add(&histograms[i], (int64) us[k]);
	}
	impact = bbm_impact_between(&histograms[0], &histograms[1]);
	result[0] = (double) impact.statements;
	result[1] = impact.has_mean ? impact.mean : NAN;
	result[2] = impact.has_mean ? impact.mean_error : NAN;
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
