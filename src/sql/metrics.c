/*-------------------------------------------------------------------------
 *
 * metrics.c
 *		What the views for exporters are made of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "base/bbm.h"
#include "base/compat.h"
#include "catalog/batch_counts.h"
#include "catalog/migrations.h"
#include "catalog/totals.h"
#include "sql/access.h"
#include "throttle/throttle.h"

PG_FUNCTION_INFO_V1(bbm_batch_bounds_array);
PG_FUNCTION_INFO_V1(bbm_batch_counts_add);
PG_FUNCTION_INFO_V1(bbm_requeues);
PG_FUNCTION_INFO_V1(bbm_waited);

Datum
bbm_batch_bounds_array(PG_FUNCTION_ARGS)
{
	Datum		bounds[BBM_BATCH_BOUNDS];

	for (int i = 0; i < BBM_BATCH_BOUNDS; i++)
		bounds[i] = Float8GetDatum(bbm_batch_bounds[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(bounds, BBM_BATCH_BOUNDS, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL,
										  TYPALIGN_DOUBLE));
}

/* Adds to a count; what users have written must not make it overflow. */
static void
add_up(int64 *count, int64 more)
{
	if (more > 0)
		*count = bbm_add_counts(*count, more);
}

/*
 * The transition function of bbm_batch_counts: adds the counts of a job or,
 * when it has none, its only batch; a range that was imported or quarantined
 * has had none.  Changes its state in place.
 */
Datum
bbm_batch_counts_add(PG_FUNCTION_ARGS)
{
	ArrayType  *state;
	int64	   *counts;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	state = AggCheckCallContext(fcinfo, NULL) ? PG_GETARG_ARRAYTYPE_P(0) : PG_GETARG_ARRAYTYPE_P_COPY(0);
	if (ARR_NDIM(state) != 1 || ARR_DIMS(state)[0] != BBM_BATCH_BUCKETS || ARR_HASNULL(state) ||
		ARR_ELEMTYPE(state) != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a histogram must be an array of %d counts", BBM_BATCH_BUCKETS),
				 errdetail("It has a count for each bound of bbm_batch_bounds(), and one for all."),
				 errhint("bbm_migration_metrics has the histograms.")));
	counts = (int64 *) ARR_DATA_PTR(state);
	if (!PG_ARGISNULL(1))
	{
		Datum	   *values;
		bool	   *nulls;
		int			n;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, sizeof(int32), true, TYPALIGN_INT, &values, &nulls, &n);
		for (int i = 0; i < Min(n, BBM_BATCH_BUCKETS); i++)
		{
			if (!nulls[i])
				add_up(&counts[i], DatumGetInt32(values[i]));
		}
		pfree(values);
		pfree(nulls);
	}
	else if (!PG_ARGISNULL(2) && PG_GETARG_FLOAT8(2) > 0)
	{
		for (int i = bbm_batch_bucket(PG_GETARG_FLOAT8(2)) - 1; i < BBM_BATCH_BUCKETS; i++)
			add_up(&counts[i], 1);
	}
	PG_RETURN_ARRAYTYPE_P(state);
}

/*
 * (id bigint, owner_oid oid) → how often its batches were requeued, for each
 * reason; NULL for a migration that is not that owner's, or that the caller may
 * not see.  A scrape asks it of each migration, so it reads only what it needs.
 */
Datum
bbm_requeues(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);
	Oid			owner = PG_GETARG_OID(1);
	Datum		counts[BBM_REQUEUE_REASONS];
	BbmTotals	totals;

	if (!bbm_role_may_see(owner) || !bbm_migration_is_of(id, owner, GetActiveSnapshot()))
		PG_RETURN_NULL();
	/* as of the query that shows it */
	bbm_totals_read(id, GetActiveSnapshot(), &totals);
	for (int i = 0; i < BBM_REQUEUE_REASONS; i++)
		counts[i] = Int64GetDatum(bbm_totals_requeues(&totals, (BbmRequeueReason) (i + 1)));
	PG_RETURN_ARRAYTYPE_P(construct_array(counts, BBM_REQUEUE_REASONS, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										  TYPALIGN_DOUBLE));
}

/* The migration that the last row was about, and whether the caller may see it. */
typedef struct Waited
{
	ReturnSetInfo *rsinfo;
	int64		migration_id;
	bool		may_see;
} Waited;

static void
put_waited(void *arg, int64 migration_id, const char *signal, double seconds, bool now)
{
	Waited	   *waited = arg;
	Datum		values[4] = {
		Int64GetDatum(migration_id), CStringGetTextDatum(signal), Float8GetDatum(seconds), BoolGetDatum(now)
	};
	bool		nulls[4] = {false};

	if (migration_id != waited->migration_id)
	{
		BbmMigration *migration = bbm_migration_by_id(migration_id, CurrentMemoryContext);

		waited->migration_id = migration_id;
		waited->may_see = migration && bbm_role_may_see(migration->owner);
	}
	if (waited->may_see)
		tuplestore_putvalues(waited->rsinfo->setResult, waited->rsinfo->setDesc, values, nulls);
}

Datum
bbm_waited(PG_FUNCTION_ARGS)
{
	Waited		waited = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	bbm_throttle_waited(put_waited, &waited);
	SPI_finish();
	return (Datum) 0;
}
