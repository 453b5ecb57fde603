/*-------------------------------------------------------------------------
 *
 * sample.c
 *		How many rows a table has, by some of its pages.
 *
 * NOTES
 *	  The planner multiplies the number of pages with the rows per page at the
 *	  last ANALYZE, or with what the widths of the types suggest if there was
 *	  none.  Both are off by any factor for a table that was just filled, or
 *	  just updated.  Some hundred pages, read when a migration is started, show
 *	  how many rows are visible on each; they are spread evenly over the table,
 *	  as its parts may be filled differently.
 *
 *	  Where rows are read with the owner's privileges, since a policy may hide
 *	  some, the planner's estimate is all there is.
 *
 *	  Other sessions may change the table meanwhile: the result is an estimate.
 *
 *-------------------------------------------------------------------------
 */
#include "target/sample.h"

#include <math.h>

#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/point.h"
#include "base/spi.h"
#include "target/key.h"
#include "target/relation.h"

/* How many pages are read, in all relations. */
#define BBM_SAMPLE_PAGES 400

/* What determines whether a row of a relation is one that the migration is about. */
typedef struct RowTest
{
	BbmTarget  *target;
	AttrNumber	attnums[BBM_MAX_KEY_COLUMNS];
	Datum	   *min;			/* NULL: no limit */
	Datum	   *max;
	Datum	   *after;			/* ranges were allocated up to here; NULL: none */
	bool		allocated;		/* ... or for all of the relation */
} RowTest;

/* What a page has. */
typedef struct RowCounts
{
	int64		rows;
	int64		in_range;
	int64		to_come;
} RowCounts;

/* The values of a bound that the user has given; NULL where there is none, or where it is the first or last key. */
static Datum *
given_bound(const BbmTarget *target, const BbmBound *bound, bool found)
{
	Datum	   *values;

	if (!target->strategy->has_key || (found && !target->key.is_integer) ||
		(!target->key.is_integer && DatumGetPointer(bound->key) == NULL))
		return NULL;
	values = palloc(target->key.n * sizeof(Datum));
	bbm_key_values(&target->key, bound, values);
	return values;
}

/* Is it a row that the migration is about?  *to_come: and that is in no range yet? */
static bool
is_in_range(const RowTest *test, TupleTableSlot *slot, bool *to_come)
{
	const BbmTarget *target = test->target;
	Datum		values[BBM_MAX_KEY_COLUMNS];
	bool		isnull;

	*to_come = !test->allocated;

	if (!target->strategy->has_key)
	{
		if (!target->strategy->one_at_a_time || test->attnums[0] == InvalidAttrNumber)
			return true;
		(void) slot_getattr(slot, test->attnums[0], &isnull);
		return isnull;
	}
	if (test->min == NULL && test->max == NULL && test->after == NULL)
		return true;
	for (int i = 0; i < target->key.n; i++)
	{
		if (test->attnums[i] == InvalidAttrNumber)
			return true;
		values[i] = slot_getattr(slot, test->attnums[i], &isnull);
		if (isnull)
			return false;
	}
	if (test->after && bbm_key_compare(&target->key, values, test->after) <= 0)
		*to_come = false;
	return (test->min == NULL || bbm_key_compare(&target->key, values, test->min) >= 0) &&
		(test->max == NULL || bbm_key_compare(&target->key, values, test->max) <= 0);
}

/* The columns have other numbers in a partition. */
static void
find_columns(RowTest *test, Oid relid)
{
	const BbmTarget *target = test->target;

	if (target->strategy->has_key)
	{
		for (int i = 0; i < target->key.n; i++)
			test->attnums[i] = get_attnum(relid, target->key.columns[i].name);
	}
	else if (target->strategy->one_at_a_time)
		test->attnums[0] = get_attnum(relid, target->migration->column_name);
}

/* Counts the visible rows of a page. */
static void
read_page(Relation rel, Snapshot snapshot, BlockNumber block, const RowTest *test, TupleTableSlot *slot,
		  RowCounts *counts)
{
	ItemPointerData first;
	ItemPointerData last;
	TableScanDesc scan;

	ItemPointerSet(&first, block, FirstOffsetNumber);
	ItemPointerSet(&last, block, MaxOffsetNumber);
	/* as table_beginscan_tidrange does, whose parameters depend on the server's version */
	scan = rel->rd_tableam->scan_begin(rel, snapshot, 0, NULL, NULL, SO_TYPE_TIDRANGESCAN | SO_ALLOW_PAGEMODE);
	rel->rd_tableam->scan_set_tidrange(scan, &first, &last);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		bool		to_come;

		counts->rows++;
		if (!is_in_range(test, slot, &to_come))
			continue;
		counts->in_range++;
		counts->to_come += to_come;
	}
	table_endscan(scan);
}

/* Adds a relation, of which so many pages may be read. */
static void
add_relation(RowTest *test, Relation rel, double pages_to_read, BbmSampleOfRows *sample)
{
	BlockNumber pages = RelationGetNumberOfBlocks(rel);
	BlockNumber n = (BlockNumber) Min(Max(pages_to_read, 1), pages);
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	RowCounts	counts = {0};

	find_columns(test, RelationGetRelid(rel));
	for (BlockNumber i = 0; i < n; i++)
	{
		/* one page in each of n equal parts */
		double		place = n == pages ? i : (i + pg_prng_double(&pg_global_prng_state)) * pages / n;

		CHECK_FOR_INTERRUPTS();
		read_page(rel, snapshot, Min((BlockNumber) place, pages - 1), test, slot, &counts);
	}
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	if (n < pages)
		sample->complete = false;
	sample->seen += counts.in_range;
	sample->seen_to_come += counts.to_come;
	sample->read += counts.rows;
	if (n > 0)
	{
		sample->rows += (double) counts.rows * pages / n;
		sample->in_range += (double) counts.in_range * pages / n;
		sample->to_come += (double) counts.to_come * pages / n;
	}
}

/* Not where a policy may hide rows: how many there are in a range would show their keys. */
static bool
has_pages(const BbmTarget *target, Relation rel)
{
	return !target->as_owner && !target->is_reference && RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind) &&
		rel->rd_tableam && rel->rd_tableam->scan_set_tidrange;
}

/* Nothing is known here of a reference table; it is small, since each node has a copy.  Needs SPI. */
static double
count_all(Relation rel)
{
	(void) bbm_spi_execute(psprintf("SELECT pg_catalog.count(*) FROM %s", bbm_table_sql_name(RelationGetRelid(rel))),
						   true, 0);
	return (double) bbm_spi_count();
}

/* What the planner takes a relation for that cannot be sampled. */
static void
add_estimate(const BbmTarget *target, Relation rel, BbmSampleOfRows *sample)
{
	BlockNumber pages;
	double		tuples = 0;
	double		all_visible;

	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		tuples = Max(rel->rd_rel->reltuples, 0);
	else if (target->is_reference)
		tuples = count_all(rel);
	else
		estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
	sample->rows += tuples;
	sample->in_range += tuples;
	sample->complete = false;
	sample->by_pages = false;
}

/* The values of the last key that was allocated in a relation; NULL if none was. */
static Datum *
allocated_up_to(const BbmTarget *target, const BbmBound *after)
{
	Datum	   *values;

	if (!target->strategy->has_key || after == NULL)
		return NULL;
	values = palloc(target->key.n * sizeof(Datum));
	bbm_key_values(&target->key, after, values);
	return values;
}

/*
 * Estimates how many rows these relations (BbmSampled) have, all of which the
 * migration is about.  Needs a transaction.
 */
void
bbm_sample_rows(BbmTarget *target, List *sampled, BbmSampleOfRows *sample)
{
	const BbmMigration *migration = target->migration;
	RowTest		test = {
		.target = target,
		.min = given_bound(target, &migration->min, migration->min_found),
		/* a migration that follows does not end there */
		.max = migration->follow ? NULL : given_bound(target, &migration->max, migration->max_found)
	};
	double		pages = 0;
	ListCell   *cell;

	memset(sample, 0, sizeof(BbmSampleOfRows));
	sample->complete = sample->by_pages = true;
	foreach(cell, sampled)
	{
		Relation	rel = try_table_open(((BbmSampled *) lfirst(cell))->relation, AccessShareLock);

		if (rel && has_pages(target, rel))
			pages += RelationGetNumberOfBlocks(rel);
		if (rel)
			table_close(rel, AccessShareLock);
	}
	BBM_POINT("pages_counted");
	foreach(cell, sampled)
	{
		const BbmSampled *of = lfirst(cell);
		Relation	rel = try_table_open(of->relation, AccessShareLock);

		test.allocated = of->allocated;
		test.after = allocated_up_to(target, of->after);
		if (rel && has_pages(target, rel))
			add_relation(&test, rel,
						 pages > 0 ? ceil(BBM_SAMPLE_PAGES * (RelationGetNumberOfBlocks(rel) / pages)) : 0, sample);
		else if (rel)
			add_estimate(target, rel, sample);
		if (rel)
			table_close(rel, AccessShareLock);
	}
}
