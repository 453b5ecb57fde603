/*-------------------------------------------------------------------------
 *
 * job_progress.c
 *		Recording a commit of a job that is not its last.
 *
 * NOTES
 *	  This is written in each small commit, so the row is updated directly: to
 *	  set up the executor for a statement costs several times what the update
 *	  does.  A statement writes the row where it would do more: fire a trigger
 *	  that is not ours, or check a constraint that somebody has added.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/job_progress.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/compat.h"
#include "base/user.h"
#include "catalog/batch_counts.h"
#include "catalog/extension.h"
#include "catalog/sql.h"
#include "catalog/tables.h"

static const char *const columns[] = {
	"cursor_value", "cursor_key", "updated_at", "row_count", "run_ms", "wal_bytes", "reduced_sub_batch_size",
	"no_progress", "requeues_in_row", "batch_counts", "batch_size", "keys_done"
};

/*
 * Uses the row's ctid, which cannot change while it is locked: for a plan that
 * was made when the table was empty, all indexes cost the same, and one that
 * does not begin with the id is read from end to end.
 */
static void
update_by_statement(const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size, const BbmCost *cost)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET cursor_value = $2, cursor_key = $6, "
		"updated_at = clock_timestamp(), row_count = row_count + " BBM_UP_TO("$3", "row_count") ", run_ms = run_ms + $4, "
		"wal_bytes = wal_bytes + " BBM_UP_TO("$5", "wal_bytes") ", reduced_sub_batch_size = nullif($7, 0), no_progress = 0, "
		"requeues_in_row = 0, batch_counts = " BBM_BATCH_COUNTED("$8") ", batch_size = nullif($9, 0), "
		"keys_done = nullif(coalesce(keys_done, 0) + " BBM_UP_TO("$10", "coalesce(keys_done, 0)") ", 0) WHERE ctid = $1",
		10, {TIDOID, INT8OID, INT8OID, FLOAT8OID, INT8OID, TEXTARRAYOID, INT4OID, INT4OID, INT4OID, INT8OID}
	};

	bbm_sql_run(&sql, true, PointerGetDatum(&job->tid), Int64GetDatum(cursor->number), Int64GetDatum(cost->rows),
				Float8GetDatum(cost->ms), Int64GetDatum(cost->wal), cursor->key,
				Int32GetDatum(reduced_sub_batch_size), Int32GetDatum(bbm_batch_bucket(cost->ms)),
				Int32GetDatum(Max(job->batch_size, 0)), Int64GetDatum(cost->keys));
	bbm_job_check_recorded(job, SPI_processed);
}

/*
 * Would an UPDATE of these columns do no more than write the row?  Our own
 * triggers let pass what the engine writes.
 */
static bool
is_plain(Relation jobs)
{
	const TupleConstr *constraints = RelationGetDescr(jobs)->constr;
	const TriggerDesc *triggers = jobs->trigdesc;

	if (constraints && (constraints->num_check > 0 || constraints->has_generated_stored))
		return false;
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_UPDATE(trigger->tgtype) && strcmp(trigger->tgname, "bbm_guard") != 0 &&
			strcmp(trigger->tgname, "bbm_replica") != 0)
			return false;
	}
	return true;
}

/* The array of BBM_BATCH_COUNTED, of the array in the row. */
static Datum
counted(Datum array, int bucket)
{
	Datum		counts[BBM_BATCH_BUCKETS];
	Datum	   *before = NULL;
	bool	   *nulls = NULL;
	int			n = 0;

	if (DatumGetPointer(array) != NULL)
		deconstruct_array(DatumGetArrayTypeP(array), INT4OID, sizeof(int32), true, TYPALIGN_INT, &before, &nulls, &n);
	for (int i = 0; i < BBM_BATCH_BUCKETS; i++)
	{
		int32		count = i < n && !nulls[i] ? DatumGetInt32(before[i]) : 0;

		counts[i] = Int32GetDatum(Min(count, PG_INT32_MAX - 1) + (bucket <= i + 1));
	}
	return PointerGetDatum(construct_array(counts, BBM_BATCH_BUCKETS, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* The columns' new values, from those of the row as it is. */
static HeapTuple
changed(HeapTuple tuple, Relation jobs, const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size,
		const BbmCost *cost)
{
	Datum		values[lengthof(columns)] = {Int64GetDatum(cursor->number), cursor->key};
	bool		nulls[lengthof(columns)] = {false, DatumGetPointer(cursor->key) == NULL};
	int			attnums[lengthof(columns)];
	double		ms = DatumGetFloat8(bbm_tuple_column(tuple, jobs, "run_ms"));
	int64		rows = DatumGetInt64(bbm_tuple_column(tuple, jobs, "row_count"));
	int64		wal = DatumGetInt64(bbm_tuple_column(tuple, jobs, "wal_bytes"));
	int64		keys = bbm_add_counts(DatumGetInt64(bbm_tuple_column(tuple, jobs, "keys_done")), cost->keys);
	Datum		counts = bbm_tuple_column(tuple, jobs, "batch_counts");

	for (int i = 0; i < lengthof(columns); i++)
		attnums[i] = bbm_column_number(jobs, columns[i]);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[3] = Int64GetDatum(bbm_add_counts(rows, cost->rows));
	values[4] = Float8GetDatum(ms + cost->ms);
	values[5] = Int64GetDatum(bbm_add_counts(wal, cost->wal));
	values[6] = Int32GetDatum(reduced_sub_batch_size);
	nulls[6] = reduced_sub_batch_size == 0;
	values[7] = values[8] = Int32GetDatum(0);
	values[9] = counted(counts, bbm_batch_bucket(cost->ms));
	values[10] = Int32GetDatum(job->batch_size);
	nulls[10] = job->batch_size <= 0;
	values[11] = Int64GetDatum(keys);
	nulls[11] = keys == 0;
	return heap_modify_tuple_by_cols(tuple, RelationGetDescr(jobs), lengthof(columns), attnums, values, nulls);
}

/*
 * A row that did not fit on its page has new index entries.  An index may have
 * expressions, which are evaluated with the rights of the tables' owner.
 */
static void
insert_index_entries(Relation jobs, TupleTableSlot *slot, BbmUpdateIndexes indexes)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result = makeNode(ResultRelInfo);
	BbmUserSwitch user_switch;

	bbm_switch_to_extension_owner(&user_switch, bbm_catalog()->owners[BBM_JOBS], true);
	InitResultRelInfo(result, jobs, 0, NULL, 0);
	ExecOpenIndices(result, false);
	bbm_insert_index_tuples(result, estate, slot, indexes);
	ExecCloseIndices(result);
	bbm_restore_user(&user_switch);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

/*
 * Records that part of a job is done, up to and including "cursor", with its
 * batch_size and the reduced_sub_batch_size of the next sub-batch (0: not
 * reduced).  The caller has bbm_job_lock: nobody changes the row between
 * the statements but the job itself, which then is an error.
 */
void
bbm_job_progress(const BbmJob *job, const BbmBound *cursor, int reduced_sub_batch_size, const BbmCost *cost)
{
	Relation	jobs = table_open(bbm_catalog()->jobs, RowExclusiveLock);
	TupleTableSlot *slot;
	Snapshot	snapshot;
	ItemPointerData tid = job->tid;
	BbmUpdateIndexes indexes;
	HeapTuple	tuple = NULL;

	if (!is_plain(jobs))
	{
		table_close(jobs, NoLock);
		update_by_statement(job, cursor, reduced_sub_batch_size, cost);
		return;
	}
	slot = table_slot_create(jobs, NULL);
	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	if (table_tuple_fetch_row_version(jobs, &tid, snapshot, slot))
		tuple = changed(ExecFetchSlotHeapTuple(slot, false, NULL), jobs, job, cursor, reduced_sub_batch_size, cost);
	bbm_job_check_recorded(job, tuple != NULL);
	ExecForceStoreHeapTuple(tuple, slot, false);
	simple_table_tuple_update(jobs, &tid, slot, snapshot, &indexes);
	if (indexes)
		insert_index_entries(jobs, slot, indexes);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(jobs, NoLock);
	/* what follows in this transaction sees it */
	CommandCounterIncrement();
}
