/*-------------------------------------------------------------------------
 *
 * totals.c
 *		What a migration's jobs add up to.
 *
 * NOTES
 *	  A migration may have millions of jobs, and no batch writes a counter that
 *	  others write: the sums over its jobs are brought up to date once in some
 *	  hundred jobs, or after some seconds, by whichever worker is due.  The row
 *	  of bbm_totals has the sums over all finished jobs up to the job last_job;
 *	  open_jobs are those up to there which were not finished then.  A reader
 *	  adds the jobs after last_job, and those in open_jobs, all with one
 *	  snapshot.
 *
 *	  That is right for the following reasons.  last_job is set under the
 *	  migration's lock, under which all jobs are created, too, so no job with a
 *	  lower id comes later.  A job that ends while the sums are made is not
 *	  finished for their snapshot: it is in open_jobs, and whoever reads later
 *	  finds it there as finished.  A finished job does not change, except that
 *		- old ones are merged, in the transaction that brings the sums up to
 *		  date, and without those in open_jobs (merge.c);
 *		- a job of a partition that was detached becomes new again, and users
 *		  change or delete jobs while the migration is paused: then the row is
 *		  deleted in the same transaction (bbm_totals_forget), and the next
 *		  sums are made of all jobs.
 *
 *	  The row also has samples of what was done up to some moments of the last
 *	  minutes; base/progress.c makes a rate of them.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/totals.h"

#include "access/table.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/locks.h"
#include "base/shmem.h"
#include "catalog/extension.h"
#include "catalog/sql.h"

/*
 * Up to so many jobs that are not finished are remembered by their ids.  If
 * there are more, as for rows that a verification has found, the jobs from
 * there on are added up each time.
 */
#define BBM_MOST_OPEN 1000

typedef enum JobColumn
{
	J_ID, J_STATUS, J_PHASE, J_ROUND, J_KIND, J_KEYS, J_ROWS, J_MS, J_WAL, J_MERGED, J_REQUEUED, J_REASONS, J_MIN,
	J_MAX, J_CURSOR, J_CURSOR_KEY, J_KEYS_DONE, J_RELATION, J_BATCH_SIZE, J_STARTED, J_FINISHED, J_UPDATED,
	J_REQUEUES_IN_ROW, J_WORKER_ID, J_COLUMNS
} JobColumn;

static const char *const job_columns[J_COLUMNS] = {
	"id", "status", "phase", "round", "kind", "key_count", "row_count", "run_ms", "wal_bytes", "merged_jobs", "requeued",
	"requeue_reasons", "min_value", "max_value", "cursor_value", "cursor_key", "keys_done", "relation", "batch_size",
	"started_at", "finished_at", "updated_at", "requeues_in_row", "worker_id"
};

/* A job's row, with the numbers of its columns. */
typedef struct JobRow
{
	Relation	rel;
	AttrNumber	attnums[J_COLUMNS];
	Datum	   *values;			/* of all columns of the table */
	bool	   *nulls;
} JobRow;

static bool
job_has(const JobRow *row, JobColumn column)
{
	return !row->nulls[row->attnums[column] - 1];
}

/* 0 when NULL */
static Datum
job_get(const JobRow *row, JobColumn column)
{
	return job_has(row, column) ? row->values[row->attnums[column] - 1] : (Datum) 0;
}

static int64
job_int64(const JobRow *row, JobColumn column)
{
	return DatumGetInt64(job_get(row, column));
}

static int32
job_int32(const JobRow *row, JobColumn column)
{
	return DatumGetInt32(job_get(row, column));
}

/* 0 when NULL or infinite: a user may have written it */
static TimestampTz
job_time(const JobRow *row, JobColumn column)
{
	TimestampTz time = DatumGetTimestampTz(job_get(row, column));

	return TIMESTAMP_NOT_FINITE(time) ? 0 : time;
}

static void
add_reasons(BbmSums *sums, const JobRow *row)
{
	Datum		value = job_get(row, J_REASONS);
	Jsonb	   *reasons;

	if (DatumGetPointer(value) == NULL)
		return;
	reasons = DatumGetJsonbP(value);
	/* a user may have written something else */
	for (int i = 0; JB_ROOT_IS_OBJECT(reasons) && i < BBM_REQUEUE_REASONS; i++)
	{
		const char *name = bbm_requeue_reason_name((BbmRequeueReason) (i + 1));
		JsonbValue	found;

		if (getKeyJsonValueFromContainer(&reasons->root, name, strlen(name), &found) && found.type == jbvNumeric)
		{
			Datum		n = DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(found.val.numeric));

			sums->reasons[i] = bbm_add_counts(sums->reasons[i], bbm_count_of(DatumGetFloat8(n)));
		}
	}
	if ((Pointer) reasons != DatumGetPointer(value))
		pfree(reasons);
}

static bool
job_text_is(const JobRow *row, JobColumn column, const char *string)
{
	text	   *found = job_has(row, column) ? DatumGetTextPP(job_get(row, column)) : NULL;

	return found && VARSIZE_ANY_EXHDR(found) == strlen(string) &&
		memcmp(VARDATA_ANY(found), string, strlen(string)) == 0;
}

static BbmPhase
job_phase(const JobRow *row)
{
	BbmPhase	phase = {.round = job_int32(row, J_ROUND)};

	phase.verifies = job_text_is(row, J_PHASE, bbm_phase_name(BBM_VERIFY(phase.round)));
	return phase;
}

static void
add_to_sums(BbmSums *sums, const JobRow *row, BbmPhase phase)
{
	double		ms = DatumGetFloat8(job_get(row, J_MS));

	if (bbm_phase_is(phase, BBM_WORK(1)))
		sums->keys = bbm_add_counts(sums->keys, job_int64(row, J_KEYS));
	if (!phase.verifies)
		sums->rows = bbm_add_counts(sums->rows, job_int64(row, J_ROWS));
	/* written so for a NaN */
	if (ms > 0)
		sums->run_ms += Min(ms, 1e15);
	sums->wal = bbm_add_counts(sums->wal, job_int64(row, J_WAL));
	sums->jobs = bbm_add_counts(sums->jobs, job_int32(row, J_MERGED));
	sums->requeued = bbm_add_counts(sums->requeued, job_int32(row, J_REQUEUED));
	add_reasons(sums, row);
}

/* Has the job finished a sub-batch, and kept how far it is? */
static bool
has_cursor(const JobRow *row)
{
	return job_has(row, J_CURSOR) || job_has(row, J_CURSOR_KEY);
}

/* How many of its keys a job has done that is not finished, as far as that is known. */
static int64
keys_so_far(const JobRow *row)
{
	int64		keys = job_int64(row, J_KEYS);
	double		width = bbm_distance(job_int64(row, J_MIN), job_int64(row, J_MAX)) + 1;
	double		done = bbm_distance(job_int64(row, J_MIN), job_int64(row, J_CURSOR)) + 1;

	if (!has_cursor(row))
		return 0;
	/* blocks have no keys that could be counted; of a distributed table's shard, only what its node has done is */
	return job_has(row, J_KEYS_DONE) || job_has(row, J_CURSOR_KEY) ? Min(job_int64(row, J_KEYS_DONE), keys) :
		bbm_count_of(keys * Min(done / width, 1));
}

/*
 * When the job or one of its sub-batches was last finished; 0 if none was.  A
 * sub-batch changes the row after the claim, or it was requeued once since.
 */
static TimestampTz
progress_of(const JobRow *row, int status)
{
	if (status == BBM_FINISHED)
		return job_time(row, J_FINISHED);
	if (!has_cursor(row) || (status == BBM_RUNNING ? job_time(row, J_UPDATED) <= job_time(row, J_STARTED) :
							 job_int32(row, J_REQUEUES_IN_ROW) > 1))
		return 0;
	return job_time(row, J_UPDATED);
}

/*
 * Does a process run this job, which is marked as running?  After a crash it
 * still is, and nobody does.  The processes of a standby's primary, and those of
 * the nodes that have a distributed table's shards, cannot be seen from here.
 */
static bool
is_at_work(const JobRow *row)
{
	int32		worker_id = job_int32(row, J_WORKER_ID);

	return worker_id == 0 || RecoveryInProgress() || bbm_worker_id_is_mine(bbm_lock_class(), worker_id) ||
		bbm_worker_is_alive(bbm_lock_class(), worker_id);
}

static void
add_job(BbmTotals *totals, const JobRow *row)
{
	int			status = DatumGetInt16(job_get(row, J_STATUS));
	BbmPhase	phase = job_phase(row);
	int64		id = job_int64(row, J_ID);
	int64		max = job_int64(row, J_MAX);

	totals->per_partition |= job_has(row, J_RELATION);
	if (!totals->has_allocated || max > totals->allocated_to)
		totals->allocated_to = max;
	totals->has_allocated = true;
	totals->progress_at = Max(totals->progress_at, progress_of(row, status));
	if (status == BBM_FINISHED)
	{
		add_to_sums(&totals->finished, row, phase);
		return;
	}
	add_to_sums(&totals->open, row, phase);
	if (bbm_phase_is(phase, BBM_WORK(1)))
		totals->part_keys = bbm_add_counts(totals->part_keys, keys_so_far(row));
	totals->running += status == BBM_RUNNING;
	totals->at_work += status == BBM_RUNNING && is_at_work(row);
	totals->failed += status == BBM_FAILED;
	if ((totals->nopen & (totals->nopen - 1)) == 0)
	{
		Size		size = Max(totals->nopen * 2, 8) * sizeof(int64);

		totals->open_jobs = totals->open_jobs ? repalloc(totals->open_jobs, size) : palloc(size);
	}
	totals->open_jobs[totals->nopen++] = id;
}

/* Adds the jobs with ids above "low". */
static void
add_newer(BbmTotals *totals, JobRow *row, Snapshot snapshot, int64 migration_id, int64 low)
{
	Relation	index = index_open(bbm_catalog()->jobs_newest, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		newest = true;

	ScanKeyInit(&keys[0], bbm_column_number(row->rel, "batched_background_migration_id"), BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(migration_id));
	/* the index has the ids in descending order, which makes no difference for the strategy of a scan key */
	ScanKeyInit(&keys[1], row->attnums[J_ID], BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(low));
	scan = systable_beginscan_ordered(row->rel, index, snapshot, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
	{
		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(tuple, RelationGetDescr(row->rel), row->values, row->nulls);
		if (newest)
			totals->last_job = job_int64(row, J_ID);
		newest = false;
		if (totals->batch_size <= 0 && !job_phase(row).verifies && !job_text_is(row, J_KIND, "retry"))
			totals->batch_size = job_int32(row, J_BATCH_SIZE);
		add_job(totals, row);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
}

/* Adds the jobs that were not finished when the sums were made. */
static void
add_open(BbmTotals *totals, JobRow *row, Snapshot snapshot, const int64 *ids, int n)
{
	for (int i = 0; i < n; i++)
	{
		SysScanDesc scan = bbm_scan_id(row->rel, bbm_catalog()->jobs_key, "id", ids[i], snapshot);
		HeapTuple	tuple = systable_getnext(scan);

		if (HeapTupleIsValid(tuple))
		{
			heap_deform_tuple(tuple, RelationGetDescr(row->rel), row->values, row->nulls);
			add_job(totals, row);
		}
		systable_endscan(scan);
	}
}

static void
read_history(BbmHistory *history, Datum array)
{
	ArrayType  *numbers;
	double	   *from;

	memset(history, 0, sizeof(BbmHistory));
	if (DatumGetPointer(array) == NULL)
		return;
	numbers = DatumGetArrayTypeP(array);
	if (ARR_NDIM(numbers) != 1 || ARR_HASNULL(numbers))
		return;
	history->n = Min(ArrayGetNItems(ARR_NDIM(numbers), ARR_DIMS(numbers)) / BBM_SAMPLE_NUMBERS, BBM_SAMPLES);
	from = (double *) ARR_DATA_PTR(numbers);
	for (int i = 0; i < history->n; i++, from += BBM_SAMPLE_NUMBERS)
		history->samples[i] = (BbmSample) {from[0], from[1], from[2], from[3], from[4], from[5], from[6]};
}

/* A bigint[] as plain numbers; at most "most" of them. */
static int64 *
numbers_of(Datum datum, int most, int *n)
{
	ArrayType  *array = DatumGetArrayTypeP(datum);
	int64	   *numbers;

	*n = ARR_HASNULL(array) ? 0 : Min(ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)), most);
	numbers = palloc0(Max(*n, 1) * sizeof(int64));
	memcpy(numbers, ARR_DATA_PTR(array), *n * sizeof(int64));
	return numbers;
}

/* Takes over the row of bbm_totals; returns the ids in open_jobs, and their number in *n. */
static int64 *
take_row(BbmTotals *totals, HeapTuple tuple, Relation rel, int *n)
{
	int			nreasons;
	int64	   *reasons;

	totals->last_job = DatumGetInt64(bbm_tuple_column(tuple, rel, "last_job"));
	totals->finished.keys = DatumGetInt64(bbm_tuple_column(tuple, rel, "key_count"));
	totals->finished.rows = DatumGetInt64(bbm_tuple_column(tuple, rel, "row_count"));
	totals->finished.run_ms = DatumGetFloat8(bbm_tuple_column(tuple, rel, "run_ms"));
	totals->finished.wal = DatumGetInt64(bbm_tuple_column(tuple, rel, "wal_bytes"));
	totals->finished.jobs = DatumGetInt64(bbm_tuple_column(tuple, rel, "jobs"));
	totals->finished.requeued = DatumGetInt64(bbm_tuple_column(tuple, rel, "requeued"));
	reasons = numbers_of(bbm_tuple_column(tuple, rel, "requeue_reasons"), BBM_REQUEUE_REASONS, &nreasons);
	memcpy(totals->finished.reasons, reasons, nreasons * sizeof(int64));
	totals->allocated_to = DatumGetInt64(bbm_tuple_column(tuple, rel, "max_value"));
	totals->has_allocated = !bbm_tuple_is_null(tuple, rel, "max_value");
	totals->per_partition = DatumGetBool(bbm_tuple_column(tuple, rel, "per_partition"));
	totals->batch_size = DatumGetInt32(bbm_tuple_column(tuple, rel, "batch_size"));
	totals->progress_at = DatumGetTimestampTz(bbm_tuple_column(tuple, rel, "progress_at"));
	read_history(&totals->history, bbm_tuple_column(tuple, rel, "samples"));
	return numbers_of(bbm_tuple_column(tuple, rel, "open_jobs"), BBM_MOST_OPEN, n);
}

/* Reads the row of bbm_totals, if there is one. */
static int64 *
read_stored(int64 migration_id, BbmTotals *totals, Snapshot snapshot, int *n)
{
	Relation	rel = table_open(bbm_catalog()->tables[BBM_TOTALS], RowExclusiveLock);
	int64	   *open = NULL;
	SysScanDesc scan = bbm_scan_id(rel, bbm_catalog()->totals_key, "migration_id", migration_id, snapshot);
	HeapTuple	tuple = systable_getnext(scan);

	*n = 0;
	if (HeapTupleIsValid(tuple))
		open = take_row(totals, tuple, rel, n);
	systable_endscan(scan);
	table_close(rel, NoLock);
	return open;
}

/*
 * Reads what the migration's jobs add up to, all with this snapshot.  The
 * indexes are scanned directly, as for a claim (claims.c): what this costs
 * must not depend on the planner's idea of the table.
 */
void
bbm_totals_read(int64 migration_id, Snapshot snapshot, BbmTotals *totals)
{
	/* locked as for writing, which may follow: see catalog/sql.c */
	Relation	jobs = table_open(bbm_catalog()->jobs, RowExclusiveLock);
	JobRow		row = {.rel = jobs};
	int			stored_size;
	int			n;
	int64	   *open;

	memset(totals, 0, sizeof(BbmTotals));
	open = read_stored(migration_id, totals, snapshot, &n);
	row.values = palloc(RelationGetDescr(jobs)->natts * sizeof(Datum));
	row.nulls = palloc(RelationGetDescr(jobs)->natts * sizeof(bool));
	for (int i = 0; i < J_COLUMNS; i++)
		row.attnums[i] = bbm_column_number(jobs, job_columns[i]);
	stored_size = totals->batch_size;
	totals->batch_size = 0;
	add_newer(totals, &row, snapshot, migration_id, totals->last_job);
	if (totals->batch_size <= 0)
		totals->batch_size = stored_size;
	add_open(totals, &row, snapshot, open, n);
	/* the clock may have been set back since */
	totals->progress_at = Min(totals->progress_at, GetCurrentTimestamp());
	table_close(jobs, NoLock);
}

/* How many keys are done. */
int64
bbm_totals_keys(const BbmTotals *totals)
{
	return bbm_add_counts(totals->finished.keys, totals->part_keys);
}

/* How many rows were changed. */
int64
bbm_totals_rows(const BbmTotals *totals)
{
	return bbm_add_counts(totals->finished.rows, totals->open.rows);
}

/* How often batches were requeued for this reason. */
int64
bbm_totals_requeues(const BbmTotals *totals, BbmRequeueReason reason)
{
	return bbm_add_counts(totals->finished.reasons[reason - 1], totals->open.reasons[reason - 1]);
}

/* The time of a sample. */
double
bbm_totals_clock_ms(TimestampTz at)
{
	return at / 1000.0;
}

/* What has been done up to now, where so much time has passed otherwise since the last sample. */
void
bbm_totals_sample(const BbmTotals *totals, TimestampTz now, const BbmElapsed *elapsed, BbmSample *sample)
{
	const BbmHistory *history = &totals->history;

	memset(sample, 0, sizeof(BbmSample));
	if (history->n > 0)
		*sample = history->samples[history->n - 1];
	sample->left_out_ms += elapsed->left_out_ms;
	sample->paced_ms += elapsed->paced_ms;
	sample->begins = 0;
	sample->at_ms = bbm_totals_clock_ms(now);
	sample->keys = bbm_totals_keys(totals);
	sample->rows = bbm_totals_rows(totals);
	sample->worked_ms = totals->finished.run_ms + totals->open.run_ms;
}

static Datum
bigint_array(const int64 *numbers, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* open_jobs, as an array. */
Datum
bbm_totals_open(const BbmTotals *totals)
{
	return bigint_array(totals->open_jobs, totals->nopen);
}

static Datum
samples_array(const BbmHistory *history)
{
	Datum		elements[BBM_SAMPLES * BBM_SAMPLE_NUMBERS];
	int			n = 0;

	for (int i = 0; i < history->n; i++)
	{
		const BbmSample *sample = &history->samples[i];
		double		numbers[BBM_SAMPLE_NUMBERS] = {
			sample->at_ms, sample->keys, sample->rows, sample->worked_ms, sample->paced_ms, sample->left_out_ms,
			sample->begins
		};

		for (int k = 0; k < BBM_SAMPLE_NUMBERS; k++)
			elements[n++] = Float8GetDatum(numbers[k]);
	}
	return PointerGetDatum(construct_array(elements, n, FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
write_row(int64 migration_id, const BbmTotals *totals)
{
	static BbmSql sql = {
		"INSERT INTO @.bbm_totals (migration_id, last_job, open_jobs, key_count, row_count, run_ms, wal_bytes, jobs, "
		"requeued, requeue_reasons, max_value, per_partition, batch_size, progress_at, samples) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) "
		"ON CONFLICT (migration_id) DO UPDATE SET last_job = $2, open_jobs = $3, key_count = $4, row_count = $5, "
		"run_ms = $6, wal_bytes = $7, jobs = $8, requeued = $9, requeue_reasons = $10, max_value = $11, "
		"per_partition = $12, batch_size = $13, progress_at = $14, samples = $15",
		15, {INT8OID, INT8OID, INT8ARRAYOID, INT8OID, INT8OID, FLOAT8OID, INT8OID, INT8OID, INT8OID, INT8ARRAYOID,
		INT8OID, BOOLOID, INT4OID, TIMESTAMPTZOID, FLOAT8ARRAYOID}
	};
	const BbmSums *sums = &totals->finished;
	char		nulls[16] = "               ";
	Datum		values[] = {
		Int64GetDatum(migration_id), Int64GetDatum(totals->last_job),
		bbm_totals_open(totals), Int64GetDatum(sums->keys), Int64GetDatum(sums->rows),
		Float8GetDatum(sums->run_ms), Int64GetDatum(sums->wal), Int64GetDatum(sums->jobs),
		Int64GetDatum(sums->requeued), bigint_array(sums->reasons, BBM_REQUEUE_REASONS),
			Int64GetDatum(totals->allocated_to),
		BoolGetDatum(totals->per_partition), Int32GetDatum(totals->batch_size),
		TimestampTzGetDatum(totals->progress_at), samples_array(&totals->history)
	};

	nulls[10] = totals->has_allocated ? ' ' : 'n';
	nulls[13] = totals->progress_at != 0 ? ' ' : 'n';
	bbm_sql_run_values(&sql, values, nulls, true);
}

/*
 * Brings the migration's sums up to date, and records a sample; *totals is
 * then what is stored.  The caller has the migration's lock, and has seen that
 * the migration is running.
 *
 * Another session may finish a job meanwhile, which the next reader sees (see
 * the notes), and a user who pauses the migration and changes jobs waits for
 * our lock to commit the pause.
 */
void
bbm_totals_advance(int64 migration_id, const BbmElapsed *elapsed, BbmTotals *totals)
{
	BbmSample	now;
	TimestampTz clock = GetCurrentTimestamp();
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());

	bbm_totals_read(migration_id, snapshot, totals);
	bbm_totals_sample(totals, clock, elapsed, &now);
	if (elapsed->resumes)
		bbm_history_resume(&totals->history, &now, totals->at_work == 0, bbm_totals_clock_ms(totals->progress_at),
						   elapsed->starts ? now.at_ms : bbm_totals_clock_ms(bbm_server_start()));
	else
		bbm_history_note(&totals->history, &now);
	if (totals->nopen > BBM_MOST_OPEN)
	{
		/* as before, but for the samples */
		BbmHistory	history = totals->history;

		memset(totals, 0, sizeof(BbmTotals));
		totals->open_jobs = read_stored(migration_id, totals, snapshot, &totals->nopen);
		totals->history = history;
	}
	UnregisterSnapshot(snapshot);
	write_row(migration_id, totals);
}

/*
 * The sums of this migration, or (0) of all, are not right any more: jobs that
 * are in them are changed or deleted in this transaction.  The next sums are
 * made of all jobs.
 */
void
bbm_totals_forget(int64 migration_id)
{
	static BbmSql all = {"DELETE FROM @.bbm_totals", 0, {0}};
	static BbmSql one = {"DELETE FROM @.bbm_totals WHERE migration_id = $1", 1, {INT8OID}};

	bbm_sql_run(migration_id == 0 ? &all : &one, true, Int64GetDatum(migration_id));
}
