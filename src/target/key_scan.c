/*-------------------------------------------------------------------------
 *
 * key_scan.c
 *		The keys of a partition in their order, along its index.
 *
 * NOTES
 *	  The index is scanned directly, not through a query: to allocate a range
 *	  costs what its keys cost, whatever the planner currently estimates for
 *	  the table, and heap pages that are all-visible are not fetched.  A row is
 *	  counted when the snapshot of the walk sees it.
 *
 *	  The start of a walk is given to the index one column at a time: first the
 *	  remaining rows that agree with it in all columns but the last, then those
 *	  that agree in all but the last two, and so on.  This works for columns of
 *	  any directions, which a row comparison does not.
 *
 *	  Rows in which the first column is null are skipped, wherever the index
 *	  stores them: with a bound by the comparison with it, without one by a
 *	  scan key IS NOT NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "target/key_scan.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/txn.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/key_query.h"
#include "target/relation.h"
#include "target/target.h"

typedef struct IndexWalk
{
	const BbmKey *key;
	Relation	heap;
	Relation	index;
	bool		backwards;
	bool		skips_nulls;	/* the key's first column may be null */
	IndexScanDesc scan;			/* NULL: no index scan is open */
	TupleTableSlot *slot;
	Buffer		vm_buffer;
	const Datum *from;			/* NULL: from the first key */
	bool		after;
	int			agree;			/* leading columns that agree with "from"; -1: all scans are done */
	Datum		values[BBM_MAX_KEY_COLUMNS];	/* of the current row; in the index page */
	NameData	names[BBM_MAX_KEY_COLUMNS]; /* values that an index stores as cstring */
} IndexWalk;

/*
 * The table may have been dropped since it was resolved.  So may the index:
 * REINDEX CONCURRENTLY replaces it by another one, which serves as well.
 */
static void
open_relations(IndexWalk *walk, BbmTarget *target, BbmPartition *partition)
{
	const BbmMigration *migration = target->migration;

	walk->heap = try_table_open(partition->relid, AccessShareLock);
	if (walk->heap == NULL)
		bbm_table_is_gone(partition->name);
	walk->index = try_index_open(partition->index, AccessShareLock);
	if (walk->index && !walk->index->rd_index->indisvalid)
	{
		index_close(walk->index, AccessShareLock);
		walk->index = NULL;
	}
	if (walk->index == NULL)
	{
		BbmKeyIndex found;

		if (!bbm_key_find_index(&target->key, walk->heap, bbm_index_name(target, partition), false, &found))
		{
			bbm_failing_code = BBM_CODE_COLUMN;
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("the index on column \"%s\" of table \"%s\" is gone or invalid",
							bbm_key_to_string(&target->key), migration->table_name),
					 errdetail("The table was being split into ranges along it."),
					 errhint("Create one with CREATE INDEX CONCURRENTLY, or name another with bbm_alter, and start the migration again.")));
		}
		partition->index = found.oid;
		partition->backwards = found.backwards;
		walk->index = index_open(partition->index, AccessShareLock);
	}
	walk->backwards = partition->backwards;
	/* as of now: another session may drop a NOT NULL between two walks */
	walk->skips_nulls = !bbm_column_not_null(RelationGetDescr(walk->heap), walk->index->rd_index->indkey.values[0]);
}

/*
 * Takes its own snapshot, which sees what was committed before the caller got
 * its locks, whatever the isolation level: a migration may be defined in a
 * transaction that began before.
 */
static void
walk_begin(IndexWalk *walk, BbmTarget *target, BbmPartition *partition)
{
	memset(walk, 0, sizeof(IndexWalk));
	walk->key = &target->key;
	open_relations(walk, target, partition);
	walk->slot = table_slot_create(walk->heap, NULL);
	walk->vm_buffer = InvalidBuffer;
	PushActiveSnapshot(GetLatestSnapshot());
}

static void
walk_end(IndexWalk *walk)
{
	if (walk->scan)
		index_endscan(walk->scan);
	if (BufferIsValid(walk->vm_buffer))
		ReleaseBuffer(walk->vm_buffer);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(walk->slot);
	index_close(walk->index, AccessShareLock);
	table_close(walk->heap, AccessShareLock);
}

static void
scan_key(IndexWalk *walk, ScanKey key, int column, StrategyNumber strategy, Datum value)
{
	Oid			family = walk->index->rd_opfamily[column];
	Oid			type = walk->index->rd_opcintype[column];

	ScanKeyEntryInitialize(key, 0, column + 1, strategy, InvalidOid, walk->index->rd_indcollation[column],
						   get_opcode(get_opfamily_member(family, type, type, strategy)), value);
}

/* Opens the scan of the rows that agree with "from" in walk->agree columns. */
static void
open_part(IndexWalk *walk)
{
	ScanKeyData keys[BBM_MAX_KEY_COLUMNS];
	int			n = 0;

	if (walk->scan)
		index_endscan(walk->scan);
	/* no comparison skips the rows with nulls, which are in no range */
	if (walk->from == NULL && walk->skips_nulls)
		ScanKeyEntryInitialize(&keys[n++], SK_ISNULL | SK_SEARCHNOTNULL, 1, InvalidStrategy, InvalidOid, InvalidOid,
							   InvalidOid, (Datum) 0);
	else if (walk->from)
	{
		bool		descending = walk->key->columns[walk->agree].descending;
		bool		inclusive = !walk->after && walk->agree == walk->key->n - 1;

		for (; n < walk->agree; n++)
			scan_key(walk, &keys[n], n, BTEqualStrategyNumber, walk->from[n]);
		scan_key(walk, &keys[n], n,
				 descending ? (inclusive ? BTLessEqualStrategyNumber : BTLessStrategyNumber) :
				 (inclusive ? BTGreaterEqualStrategyNumber : BTGreaterStrategyNumber), walk->from[n]);
		n++;
	}
	walk->scan = bbm_index_beginscan(walk->heap, walk->index, GetActiveSnapshot(), n);
	walk->scan->xs_want_itup = true;
	index_rescan(walk->scan, keys, n, NULL, 0);
}

/* Positions the walk before the first key at, or after, "from". */
static void
walk_to(IndexWalk *walk, const Datum *from, bool after)
{
	walk->from = from;
	walk->after = after;
	walk->agree = from ? walk->key->n - 1 : 0;
	open_part(walk);
}

/* Reads the key of the current index entry. */
static void
read_values(IndexWalk *walk)
{
	for (int i = 0; i < walk->key->n; i++)
	{
		bool		isnull;

		walk->values[i] = index_getattr(walk->scan->xs_itup, i + 1, walk->scan->xs_itupdesc, &isnull);
		/* the server may have been made to trust a NOT NULL that does not hold */
		if (isnull)
			bbm_key_has_null(&walk->key->columns[i]);
		if (TupleDescAttr(walk->scan->xs_itupdesc, i)->attlen == -2 && walk->key->columns[i].type == NAMEOID)
		{
			namestrcpy(&walk->names[i], DatumGetCString(walk->values[i]));
			walk->values[i] = NameGetDatum(&walk->names[i]);
		}
	}
}

/* Goes to the next visible row; false at the end. */
static bool
walk_next(IndexWalk *walk)
{
	ScanDirection direction = walk->backwards ? BackwardScanDirection : ForwardScanDirection;

	while (walk->agree >= 0)
	{
		ItemPointer tid = index_getnext_tid(walk->scan, direction);

		CHECK_FOR_INTERRUPTS();
		if (tid == NULL)
		{
			if (--walk->agree >= 0)
				open_part(walk);
			continue;
		}
		if (!VM_ALL_VISIBLE(walk->heap, ItemPointerGetBlockNumber(tid), &walk->vm_buffer))
		{
			if (!index_fetch_heap(walk->scan, walk->slot))
				continue;
			ExecClearTuple(walk->slot);
		}
		read_values(walk);
		return true;
	}
	return false;
}

/* Copies the row's key out of the index page. */
static void
walk_copy(IndexWalk *walk, Datum *values)
{
	for (int i = 0; i < walk->key->n; i++)
		values[i] = datumCopy(walk->values[i], walk->key->columns[i].typbyval, walk->key->columns[i].typlen);
}

/* Does the requested walk; what it finds is in the current memory context. */
static void
walk_index(BbmKeyWalk *asked)
{
	const BbmKey *key = &asked->target->key;
	Datum		from[BBM_MAX_KEY_COLUMNS];
	Datum		to[BBM_MAX_KEY_COLUMNS];
	Datum		last[BBM_MAX_KEY_COLUMNS];
	BbmBound	mark;
	IndexWalk	walk;

	if (asked->from)
		bbm_key_values(key, asked->from, from);
	if (asked->to)
		bbm_key_values(key, asked->to, to);
	walk_begin(&walk, asked->target, asked->partition);
	walk_to(&walk, asked->from ? from : NULL, asked->after);
	if (asked->marks)
		asked->marks->unique = walk.index->rd_index->indisunique && walk.index->rd_index->indnkeyatts == key->n;
	while (walk_next(&walk) && !(asked->to && bbm_key_compare(key, walk.values, to) > 0))
	{
		/* beyond the limit, only those that tie with the last one */
		if (asked->count >= asked->limit && (asked->distinct || bbm_key_compare(key, walk.values, last) != 0))
			break;
		if (asked->count == 0)
		{
			walk_copy(&walk, last);
			bbm_key_bound(key, last, &asked->first);
		}
		if (++asked->count == asked->limit || asked->distinct)
			walk_copy(&walk, last);
		if (asked->count == asked->limit)
			bbm_key_bound(key, last, &asked->last);
		if (asked->marks && asked->count < asked->limit &&
			asked->count == bbm_keys_to_mark(asked->marks, asked->marks->n))
		{
			bbm_key_bound(key, walk.values, &mark);
			asked->marks->keys[asked->marks->n++] = mark.number;
		}
		if (asked->distinct && asked->count < asked->limit)
			walk_to(&walk, last, true);
		else if (asked->distinct)
			break;
	}
	walk_end(&walk);
}

/*
 * Counts the keys of a partition from a bound on, up to a limit, and returns
 * the first and the last of them.  Needs a transaction.
 */
void
bbm_key_walk(BbmKeyWalk *walk)
{
	walk->count = 0;
	/* beyond the type's highest value, a walk would find that value, which is in the range before */
	if (!bbm_key_has_between(&walk->target->key, walk->from, walk->to))
		return;
	if (OidIsValid(walk->partition->index) && walk->condition == NULL)
		walk_index(walk);
	else
		bbm_key_query(walk, false);
}

/* Finds the first or the last key of a partition; false when it has no rows. */
bool
bbm_key_end(BbmTarget *target, BbmPartition *partition, bool highest, BbmBound *bound)
{
	IndexWalk	walk;
	bool		found;

	if (!OidIsValid(partition->index))
	{
		BbmKeyWalk	query = {.target = target, .partition = partition, .limit = 1};

		bbm_key_query(&query, highest);
		*bound = query.first;
		return query.count > 0;
	}
	walk_begin(&walk, target, partition);
	walk.backwards = walk.backwards != highest;
	walk_to(&walk, NULL, false);
	found = walk_next(&walk);
	if (found)
		bbm_key_bound(&target->key, walk.values, bound);
	walk_end(&walk);
	return found;
}
