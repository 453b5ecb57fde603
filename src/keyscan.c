/*-------------------------------------------------------------------------
 *
 * keyscan.c
 *		Walking the unique index of an integer key.
 *
 * NOTES
 *	  The index is scanned directly, not through a query: a cut costs what its
 *	  keys cost, whatever the planner thinks of the table today, and pages that
 *	  are all-visible are not fetched.  A row is counted when the transaction's
 *	  snapshot sees it.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "txn.h"

typedef struct KeyScan
{
	Relation	heap;
	Relation	index;
	Oid			key_type;
	IndexScanDesc scan;
	ScanDirection direction;
	TupleTableSlot *slot;
	Buffer		vm_buffer;
} KeyScan;

/* The unique index that orders this column, or InvalidOid.  Needs a lock on the table. */
Oid
bbm_key_index(Oid relid, AttrNumber attnum)
{
	Relation	heap = table_open(relid, NoLock);
	List	   *indexes = RelationGetIndexList(heap);
	Oid			usable = InvalidOid;
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisunique && form->indisvalid && form->indisready &&
			index->rd_rel->relam == BTREE_AM_OID && form->indnkeyatts == 1 &&
			form->indkey.values[0] == attnum && RelationGetIndexPredicate(index) == NIL)
			usable = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(usable))
			break;
	}
	list_free(indexes);
	table_close(heap, NoLock);
	return usable;
}

/* The key's type may be narrower than what min_value and max_value can say. */
static int64
lowest_of(Oid type)
{
	return type == INT2OID ? PG_INT16_MIN : type == INT4OID ? PG_INT32_MIN : PG_INT64_MIN;
}

static int64
highest_of(Oid type)
{
	return type == INT2OID ? PG_INT16_MAX : type == INT4OID ? PG_INT32_MAX : PG_INT64_MAX;
}

static Datum
key_datum(int64 key, Oid type)
{
	return type == INT2OID ? Int16GetDatum((int16) key) :
		type == INT4OID ? Int32GetDatum((int32) key) : Int64GetDatum(key);
}

static int64
datum_key(Datum datum, Oid type)
{
	return type == INT2OID ? DatumGetInt16(datum) :
		type == INT4OID ? DatumGetInt32(datum) : DatumGetInt64(datum);
}

/*
 * The table may be gone since it was resolved.  So may the index: REINDEX
 * CONCURRENTLY puts another in its place, which does as well.
 */
static void
open_relations(KeyScan *ks, BbmTarget *target)
{
	ks->heap = try_table_open(target->relid, AccessShareLock);
	if (ks->heap == NULL)
	{
		bbm_failing_code = BBM_CODE_TABLE;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" does not exist any more", target->migration->table_name)));
	}
	ks->index = try_index_open(target->index, AccessShareLock);
	if (ks->index && !ks->index->rd_index->indisvalid)
	{
		index_close(ks->index, AccessShareLock);
		ks->index = NULL;
	}
	if (ks->index == NULL)
	{
		target->index = bbm_key_index(target->relid, target->attnum);
		if (!OidIsValid(target->index))
		{
			bbm_failing_code = BBM_CODE_COLUMN;
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("the unique index on column \"%s\" of table \"%s\" is gone",
							target->migration->column_name, target->migration->table_name),
					 errhint("Create one with CREATE UNIQUE INDEX CONCURRENTLY and start the migration again.")));
		}
		ks->index = index_open(target->index, AccessShareLock);
	}
}

/*
 * Begins a walk over the keys from..to, ascending or descending.  Needs a
 * transaction; takes a snapshot of its own, so that it sees what committed
 * before the caller got its locks.
 */
static void
key_scan_begin(KeyScan *ks, BbmTarget *target, int64 from, int64 to, bool ascending)
{
	Oid			type = target->key_type;
	Oid			family;
	ScanKeyData keys[2];

	ks->key_type = type;
	open_relations(ks, target);
	family = ks->index->rd_opfamily[0];
	ks->direction = ascending ? ForwardScanDirection : BackwardScanDirection;
	if (ks->index->rd_indoption[0] & INDOPTION_DESC)
		ks->direction = -ks->direction;
	ks->slot = table_slot_create(ks->heap, NULL);
	ks->vm_buffer = InvalidBuffer;
	PushActiveSnapshot(GetTransactionSnapshot());

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber,
				get_opcode(get_opfamily_member(family, type, type, BTGreaterEqualStrategyNumber)),
				key_datum(from, type));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber,
				get_opcode(get_opfamily_member(family, type, type, BTLessEqualStrategyNumber)),
				key_datum(to, type));
	ks->scan = bbm_index_beginscan(ks->heap, ks->index, GetActiveSnapshot(), 2);
	ks->scan->xs_want_itup = true;
	index_rescan(ks->scan, keys, 2, NULL, 0);
}

static bool
key_scan_next(KeyScan *ks, int64 *key)
{
	ItemPointer tid;

	while ((tid = index_getnext_tid(ks->scan, ks->direction)) != NULL)
	{
		bool		isnull;
		Datum		datum;

		CHECK_FOR_INTERRUPTS();
		if (!VM_ALL_VISIBLE(ks->heap, ItemPointerGetBlockNumber(tid), &ks->vm_buffer))
		{
			if (!index_fetch_heap(ks->scan, ks->slot))
				continue;
			ExecClearTuple(ks->slot);
		}
		datum = index_getattr(ks->scan->xs_itup, 1, ks->scan->xs_itupdesc, &isnull);
		*key = datum_key(datum, ks->key_type);
		return true;
	}
	return false;
}

static void
key_scan_end(KeyScan *ks)
{
	if (BufferIsValid(ks->vm_buffer))
		ReleaseBuffer(ks->vm_buffer);
	index_endscan(ks->scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(ks->slot);
	index_close(ks->index, AccessShareLock);
	table_close(ks->heap, AccessShareLock);
}

/* The lowest or highest key there is; false when the table is empty. */
bool
bbm_key_end(BbmTarget *target, bool highest, int64 *key)
{
	KeyScan		ks;
	bool		found;

	key_scan_begin(&ks, target, lowest_of(target->key_type), highest_of(target->key_type), !highest);
	found = key_scan_next(&ks, key);
	key_scan_end(&ks);
	return found;
}

/*
 * Counts keys upwards within from..to, at most "limit"; the last one counted
 * is in *last when there was any.
 */
int64
bbm_key_walk(BbmTarget *target, int64 from, int64 to, int64 limit, int64 *last)
{
	KeyScan		ks;
	int64		n = 0;

	from = Max(from, lowest_of(target->key_type));
	to = Min(to, highest_of(target->key_type));
	if (from > to)
		return 0;
	key_scan_begin(&ks, target, from, to, true);
	while (n < limit && key_scan_next(&ks, last))
		n++;
	key_scan_end(&ks);
	return n;
}
