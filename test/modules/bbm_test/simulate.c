/*-------------------------------------------------------------------------
 *
 * simulate.c
 *		Entry points for the tests and the benchmark that simulate time and
 *		large tables.
 *
 * A test declares these functions; see bbm_test.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/clock.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/progress.h"
#include "base/rates.h"
#include "base/spi.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/merge.h"
#include "catalog/totals.h"
#include "catalog/migrations.h"
#include "engine/batch.h"
#include "engine/claim.h"
#include "sql/access.h"
#include "strategy/resolve.h"
#include "target/partition.h"
#include "target/target.h"

#include "bbm_test.h"

PG_FUNCTION_INFO_V1(bbm_test_clock_advance);
PG_FUNCTION_INFO_V1(bbm_test_sizing);
PG_FUNCTION_INFO_V1(bbm_test_bucket);
PG_FUNCTION_INFO_V1(bbm_test_rate);
PG_FUNCTION_INFO_V1(bbm_test_percent);
PG_FUNCTION_INFO_V1(bbm_test_allocate);
PG_FUNCTION_INFO_V1(bbm_test_table_scan);

/* Number of jobs between two merges, as in the engine. */
#define MERGE_INTERVAL 256

/* (ms float8): from now on only such calls move the clock of this session. */
Datum
bbm_test_clock_advance(PG_FUNCTION_ARGS)
{
	bbm_clock_advance(PG_GETARG_FLOAT8(0));
	PG_RETURN_VOID();
}

/* An array of float8 without NULLs: the argument, and how many numbers it has. */
double *
bbm_test_numbers(FunctionCallInfo fcinfo, int arg, int *n)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(arg);

	if (ARR_NDIM(array) > 1 || ARR_HASNULL(array) || ARR_ELEMTYPE(array) != FLOAT8OID)
		elog(ERROR, "argument %d must be a plain array of float8", arg + 1);
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	return (double *) ARR_DATA_PTR(array);
}

/*
 * (first int, target_ms float8, max_wal float8, min int, max int, keys
 * float8[], ms float8[], wal float8[]) → the size before the first batch and
 * after each.  Where keys is NaN the batch has as many keys as were requested;
 * where ms or wal is negative it is that much per key.
 */
Datum
bbm_test_sizing(PG_FUNCTION_ARGS)
{
	BbmSizeLimits limits = {
		.target_ms = PG_GETARG_FLOAT8(1), .max_wal = PG_GETARG_FLOAT8(2), .min_size = PG_GETARG_INT32(3),
		.max_size = PG_GETARG_INT32(4)
	};
	int			n;
	int			n_ms;
	int			n_wal;
	double	   *keys = bbm_test_numbers(fcinfo, 5, &n);
	double	   *ms = bbm_test_numbers(fcinfo, 6, &n_ms);
	double	   *wal = bbm_test_numbers(fcinfo, 7, &n_wal);
	Datum	   *sizes = palloc(sizeof(Datum) * (n + 1));
	BbmSizing	sizing;

	if (n_ms != n || n_wal != n)
		elog(ERROR, "the arrays must be of one length");
	bbm_sizing_start(&sizing, &limits, PG_GETARG_INT32(0));
	sizes[0] = Int32GetDatum(sizing.size);
	for (int i = 0; i < n; i++)
	{
		int64		done = isnan(keys[i]) ? sizing.size : (int64) keys[i];

		bbm_sizing_adapt(&sizing, &limits, done, ms[i] < 0 ? -ms[i] * done : ms[i],
						  wal[i] < 0 ? -wal[i] * done : wal[i]);
		sizes[i + 1] = Int32GetDatum(sizing.size);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(sizes, n + 1, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

static double
ms_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* (name text, keys int) → how many milliseconds it takes to allocate the migration's first range. */
Datum
bbm_test_allocate(PG_FUNCTION_ARGS)
{
	BbmMigration *migration;
	BbmTarget  *target;
	BbmPartition *partition;
	BbmRange	range;
	BbmAllocation allocation = {.size = PG_GETARG_INT32(1)};
	instr_time	start;
	double		ms;

	SPI_connect();
	migration = bbm_get_migration(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	target = bbm_target_open(migration);
	partition = bbm_partition_open(target, target->relid);
	allocation.max = &migration->max;
	INSTR_TIME_SET_CURRENT(start);
	if (partition == NULL || !target->strategy->next_range(target, partition, &allocation, &range) ||
		range.key_count != allocation.size)
		elog(ERROR, "the table has no range of so many keys");
	ms = ms_since(start);
	bbm_target_close(target);
	SPI_finish();
	PG_RETURN_FLOAT8(ms);
}

/*
 * bucket(rate, since float8[], until float8[], amounts float8[]) → for each
 * batch when the next may begin.  All times in seconds.
 */
Datum
bbm_test_bucket(PG_FUNCTION_ARGS)
{
	BbmBucket	bucket = {0};
	double		rate = PG_GETARG_FLOAT8(0);
	int			n;
	int			n_until;
	int			n_amounts;
	double	   *since = bbm_test_numbers(fcinfo, 1, &n);
	double	   *until = bbm_test_numbers(fcinfo, 2, &n_until);
	double	   *amounts = bbm_test_numbers(fcinfo, 3, &n_amounts);
	Datum	   *due = palloc(Max(n, 1) * sizeof(Datum));

	if (n_until != n || n_amounts != n)
		elog(ERROR, "the arrays must be of one length");
	for (int i = 0; i < n; i++)
	{
		bbm_bucket_spend(&bucket, since[i] * USECS_PER_SEC, until[i] * USECS_PER_SEC, rate, amounts[i]);
		due[i] = Float8GetDatum((double) bbm_bucket_due(&bucket, rate) / USECS_PER_SEC);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(due, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * rate(kinds text[], seconds float8[], keys float8[], every float8, batch
 * float8) → keys per second by which the remaining time is estimated, after
 * each step.  The simulated clock advances by the seconds of each step, which is a batch
 * of so many keys ('work'), a pause for pacing ('pace'), another that counts, such as
 * a claim ('other'), or one that does not ('throttle'; 'pause': nobody is there to
 * record it; 'restart': nor is the server).  A sample is recorded after a batch if the last one is at least
 * "every" seconds old, or nobody was there before, and after a 'pause' or 'restart'.
 */
Datum
bbm_test_rate(PG_FUNCTION_ARGS)
{
	ArrayType  *kinds = PG_GETARG_ARRAYTYPE_P(0);
	double		every = PG_GETARG_FLOAT8(3) * 1000;
	double		batch = PG_GETARG_FLOAT8(4);
	int			n;
	int			n_kinds;
	int			n_keys;
	double	   *seconds = bbm_test_numbers(fcinfo, 1, &n);
	double	   *keys = bbm_test_numbers(fcinfo, 2, &n_keys);
	Datum	   *words;
	Datum	   *rates = palloc(Max(n, 1) * sizeof(Datum));
	BbmHistory	history = {0};
	BbmSample	now = {.at_ms = 1e6};
	double		done_at = 0;
	double		noted = now.at_ms;

	deconstruct_array(kinds, TEXTOID, -1, false, TYPALIGN_INT, &words, NULL, &n_kinds);
	if (n_kinds != n || n_keys != n)
		elog(ERROR, "the arrays must be of one length");
	bbm_history_resume(&history, &now, true, 0, 0);
	for (int i = 0; i < n; i++)
	{
		char	   *kind = TextDatumGetCString(words[i]);
		double		ms = seconds[i] * 1000;
		BbmRate		minute;
		BbmRate		five;

		now.at_ms += ms;
		now.begins = 0;
		now.keys += keys[i];
		now.rows += keys[i];
		if (strcmp(kind, "work") == 0)
		{
			now.worked_ms += ms;
			done_at = now.at_ms;
		}
		else if (strcmp(kind, "pace") == 0)
			now.paced_ms += ms;
		else if (strcmp(kind, "throttle") == 0)
			now.left_out_ms += ms;
		if (strcmp(kind, "pause") == 0 || strcmp(kind, "restart") == 0)
			bbm_history_resume(&history, &now, true, done_at, strcmp(kind, "restart") == 0 ? now.at_ms : 0);
		else if (done_at == now.at_ms && (now.at_ms - noted >= every || history.samples[history.n - 1].begins))
		{
			bbm_history_note(&history, &now);
			noted = now.at_ms;
		}
		minute = bbm_history_rate(&history, &now, done_at, batch, BBM_MINUTE_MS);
		five = bbm_history_rate(&history, &now, done_at, batch, 5 * BBM_MINUTE_MS);
		minute = bbm_rate_for_rest(&minute, &five, batch);
		rates[i] = Float8GetDatum(minute.known ? minute.keys_per_second : 0);
	}
	PG_RETURN_ARRAYTYPE_P(construct_array(rates, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* percent(done, allocated, estimate, first, last, allocated_to, complete); without "first" the key is no integer. */
Datum
bbm_test_percent(PG_FUNCTION_ARGS)
{
	BbmWhole	whole = {
		.done = PG_GETARG_FLOAT8(0), .allocated = PG_GETARG_FLOAT8(1), .estimate = PG_GETARG_FLOAT8(2)
	};

	whole.has_ends = !PG_ARGISNULL(3);
	if (whole.has_ends)
	{
		whole.first = PG_GETARG_FLOAT8(3);
		whole.last = PG_GETARG_FLOAT8(4);
		whole.allocated_to = PG_GETARG_FLOAT8(5);
	}
	whole.complete = PG_GETARG_BOOL(6);
	PG_RETURN_FLOAT8(bbm_whole_percent(&whole));
}

/* ----------------------------------------------------------------
 * A table scan over a table that does not exist
 */

typedef struct SimulatedScan
{
	char	   *name;
	MemoryContext context;
	BbmTarget  *target;
	int32		worker_id;
	int			size;
	int64		most_rows;		/* that the job table has had */
} SimulatedScan;

/* Allocates ranges of as many keys as were requested, without reading any table. */
static bool
synthetic_range(BbmTarget *target, BbmPartition *partition, const BbmAllocation *allocation, BbmRange *range)
{
	int64		from = allocation->after ? allocation->after->number + 1 : target->migration->min.number;

	memset(range, 0, sizeof(BbmRange));
	if (from > allocation->max->number)
		return false;
	range->min.number = from;
	range->max.number = Min(from + allocation->size - 1, allocation->max->number);
	range->key_count = range->max.number - from + 1;
	return true;
}

/* Starts the migration as the engine does, but with another strategy. */
static void
table_scan_begin(void *arg)
{
	static BbmStrategy synthetic;
	SimulatedScan *table_scan = arg;
	BbmMigration *migration = bbm_get_migration(table_scan->name);
	BbmBound	none = {0};
	BbmStatus	status;
	MemoryContext old;

	(void) bbm_migration_set_status(migration->id, BBM_ACTIVE);
	if (!bbm_migration_lock(migration->id, &status) || status != BBM_ACTIVE)
		elog(ERROR, "migration \"%s\" cannot be started", table_scan->name);
	bbm_migration_set_started(migration->id, migration->max.number, InvalidOid, &none, &none, NULL,
							  BBM_ORDER_UNDECIDED);
	migration = bbm_migration_by_id(migration->id, CurrentMemoryContext);
	old = MemoryContextSwitchTo(table_scan->context);
	table_scan->target = bbm_target_open(migration);
	MemoryContextSwitchTo(old);
	synthetic = *table_scan->target->strategy;
	synthetic.next_range = synthetic_range;
	table_scan->target->strategy = &synthetic;
	table_scan->worker_id = bbm_worker_id_acquire(bbm_lock_class());
}

static void
table_scan_merge(void *arg)
{
	SimulatedScan *table_scan = arg;
	BbmElapsed	elapsed = {0};
	BbmTotals	totals;
	char	   *sql = psprintf("SELECT count(*) FROM %s.batched_background_migration_jobs", bbm_catalog()->schema);
	bool		isnull;

	bbm_lock_migration(bbm_lock_class(), table_scan->target->migration->id);
	if (bbm_spi_execute(sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not count jobs");
	table_scan->most_rows = Max(table_scan->most_rows,
								DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	bbm_totals_advance(table_scan->target->migration->id, &elapsed, &totals);
	bbm_jobs_merge(table_scan->target->migration->id, Max(bbm_job_retention, BBM_MAX_ATTEMPTS), &totals);
}

static void
run_or_throw(BbmTxnFn fn, void *arg)
{
	ErrorData  *error = bbm_txn_run(fn, arg, false);

	if (error)
		ThrowErrorData(error);
}

static bool
always(const void *arg)
{
	return true;
}

/* The CPU time of this process, in milliseconds: it does not include what others do on the machine. */
static double
cpu_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000.0 +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000.0;
}

/*
 * Claims, executes, records and merges so many jobs as the engine does;
 * returns the milliseconds of CPU time of each tenth of them, without the
 * merging.
 */
static void
table_scan_jobs(SimulatedScan *table_scan, int jobs, double *tenths)
{
	MemoryContext contexts[2];
	BbmClaim	next = {.result = BBM_CLAIM_CHANGED};
	BbmJob		job;
	Oid			lock_class = bbm_lock_class();
	int			permit = -1;

	for (int i = 0; i < 2; i++)
		contexts[i] = AllocSetContextCreate(table_scan->context, "bbm test job", ALLOCSET_SMALL_SIZES);
	for (int i = 0; i < jobs; i++)
	{
		double		start = cpu_ms();
		BbmWork		work;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(contexts[i % 2]);
		if (next.result != BBM_CLAIM_JOB)
		{
			BbmClaim	claim = {.target = table_scan->target, .worker_id = table_scan->worker_id,
				.context = contexts[(i + 1) % 2],
			.slot = -1};

			if (permit >= 0)
				bbm_permit_release(lock_class, table_scan->target->migration->id, permit);
			run_or_throw(bbm_claim, &claim);
			if (claim.result != BBM_CLAIM_JOB)
				elog(ERROR, "no job was claimed, but %d: %s", claim.result, claim.reason.text);
			permit = claim.slot;
			next = claim;
		}
		job = next.job;
		next = (BbmClaim) {.target = table_scan->target, .worker_id = table_scan->worker_id,
			.context = contexts[i % 2], .slot = -1,
			.result = BBM_CLAIM_CHANGED};
		work = (BbmWork) {.target = table_scan->target, .job = &job, .context = contexts[(i + 1) % 2], .next = &next,
			.may_go_on = always};
		run_or_throw(bbm_work, &work);
		if (work.result != BBM_WORK_FINISHED)
			elog(ERROR, "job " INT64_FORMAT " was not finished", job.id);
		tenths[(int64) i * 10 / jobs] += cpu_ms() - start;
		if ((i + 1) % MERGE_INTERVAL == 0)
			run_or_throw(table_scan_merge, table_scan);
	}
	if (permit >= 0)
		bbm_permit_release(lock_class, table_scan->target->migration->id, permit);
}

/*
 * CALL (name text, jobs int, INOUT most_rows bigint, INOUT first_us float8,
 * INOUT last_us float8): runs so many jobs of the migration over ranges that
 * were never read; returns how many rows the job table had at most, and the
 * microseconds of CPU time of a job in the first and in the last tenth.
 */
Datum
bbm_test_table_scan(PG_FUNCTION_ARGS)
{
	int			jobs = PG_GETARG_INT32(1);
	MemoryContext context = AllocSetContextCreate(PortalContext, "bbm test table scan", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	SimulatedScan		table_scan = {.name = MemoryContextStrdup(context, name), .context = context};
	double		tenths[10] = {0};
	Datum		values[3];
	bool		nulls[3] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != lengthof(values) || jobs < 10)
		elog(ERROR, "wrong declaration, or too few jobs");
	MemoryContextSwitchTo(context);
	desc = BlessTupleDesc(CreateTupleDescCopy(desc));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	MemoryContextSwitchTo(context);
	run_or_throw(table_scan_begin, &table_scan);
	PG_TRY();
	{
		table_scan_jobs(&table_scan, jobs, tenths);
	}
	PG_FINALLY();
	{
		bbm_worker_id_release(bbm_lock_class(), table_scan.worker_id);
		bbm_target_close(table_scan.target);
	}
	PG_END_TRY();
	SPI_finish();
	MemoryContextSwitchTo(caller);
	values[0] = Int64GetDatum(table_scan.most_rows);
	values[1] = Float8GetDatum(tenths[0] * 1000 / (jobs / 10));
	values[2] = Float8GetDatum(tenths[9] * 1000 / (jobs / 10));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
