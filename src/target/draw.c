/*-------------------------------------------------------------------------
 *
 * draw.c
 *		Places in a table, drawn at random, at which batches may begin.
 *
 * NOTES
 *	  The first batches of a migration are its oldest rows, which may be
 *	  narrower, or further apart, or filled already.  A batch that begins with
 *	  a row of a random page is as likely to be here as there.  To draw numbers
 *	  between the first and the last key would prefer rows that follow a gap,
 *	  and is possible for integers only.
 *
 *	  The pages are chosen by TABLESAMPLE in a query of the owner's, so that
 *	  its privileges and row security apply.  It names the row's table only
 *	  where that matters, as for this the owner needs SELECT on the table as a
 *	  whole.  Rows that are done are left out as far as the ranges allocated so
 *	  far show them.
 *
 *	  Other sessions may change the table meanwhile: then a place is not the
 *	  first key of a batch any more, which begins with the next one.
 *
 *-------------------------------------------------------------------------
 */
#include "target/draw.h"

#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"

#include "base/spi.h"
#include "base/user.h"
#include "catalog/partitions.h"
#include "target/hierarchy.h"
#include "target/key.h"
#include "target/key_sql.h"
#include "target/relation.h"

/* How many pages are read, on average, in all relations. */
#define BBM_DRAW_PAGES 400

/* The tables with rows that can be sampled; *pages is the sum of their sizes.  NIL if one of them cannot. */
static List *
heaps(const BbmTarget *target, double *pages)
{
	List	   *relations = target->has_partitions ? bbm_partitions_list(target->relid) : list_make1_oid(target->relid);
	ListCell   *cell;

	*pages = 0;
	foreach(cell, relations)
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		bool		heap;

		if (rel == NULL)
			continue;
		heap = rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID;
		if (heap)
			*pages += RelationGetNumberOfBlocks(rel);
		table_close(rel, AccessShareLock);
		if (!heap)
			return NIL;
	}
	return relations;
}

/* Blocks, in proportion to the sizes of the relations; those that the round has allocated are left out. */
static List *
draw_blocks(const BbmTarget *target, const BbmClaimState *state, List *relations, double pages, int n)
{
	List	   *draws = NIL;

	for (int i = 0; i < n && pages > 0; i++)
	{
		/* one in each of n equal parts, so that they are in the table's order */
		double		place = (i + pg_prng_double(&pg_global_prng_state)) * pages / n;
		ListCell   *cell;

		foreach(cell, relations)
		{
			Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
			BlockNumber blocks = rel ? RelationGetNumberOfBlocks(rel) : 0;
			BbmPartitionState *entry;
			BbmDraw    *draw;

			if (rel)
				table_close(rel, AccessShareLock);
			if (place >= blocks)
			{
				place -= blocks;
				continue;
			}
			entry = bbm_partition_state(target->migration->id, lfirst_oid(cell));
			if ((entry && entry->phase.round > 0) ||
				(state->has_last && (!target->per_partition || state->last_relation == lfirst_oid(cell)) &&
				 place <= state->last.number))
				break;
			draw = palloc0(sizeof(BbmDraw));
			draw->relation = lfirst_oid(cell);
			draw->first.number = (int64) place;
			draws = lappend(draws, draw);
			break;
		}
	}
	return draws;
}

/*
 * A condition for rows that are not done, as the allocated ranges show: in the
 * migration's range, and beyond the last one.  Its parameters are the first,
 * the last, and the last allocated key.
 */
static char *
not_done(const BbmTarget *target, const BbmClaimState *state)
{
	const BbmKey *key = &target->key;
	StringInfoData sql;
	ListCell   *cell;

	initStringInfo(&sql);
	appendStringInfoString(&sql, bbm_key_range_sql(key, target->alias));
	if (state->has_last && !target->per_partition)
		appendStringInfo(&sql, " AND (%s)", bbm_key_compare_sql(key, target->alias, ">", 2 * key->n + 1));
	else if (state->has_last)
		appendStringInfo(&sql, " AND (%s.tableoid OPERATOR(pg_catalog.<>) %u::pg_catalog.oid OR %s)", target->alias,
						 state->last_relation, bbm_key_compare_sql(key, target->alias, ">", 2 * key->n + 1));
	foreach(cell, target->per_partition ? bbm_partitions(target->migration->id) : NIL)
	{
		BbmPartitionState *entry = lfirst(cell);

		if (entry->phase.round > 0)
			appendStringInfo(&sql, " AND %s.tableoid OPERATOR(pg_catalog.<>) %u::pg_catalog.oid", target->alias,
							 entry->relation);
	}
	return sql.data;
}

/* The key of row i of the result; false if it is null in a column. */
static bool
read_draw(const BbmKey *key, uint64 i, BbmDraw *draw)
{
	Datum		values[BBM_MAX_KEY_COLUMNS];
	bool		isnull;

	draw->relation = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	for (int k = 0; k < key->n; k++)
	{
		values[k] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, k + 2, &isnull);
		if (isnull)
			return false;
	}
	bbm_key_bound(key, values, &draw->first);
	return true;
}

static const BbmKey *sorted_by;

static int
compare_draws(const ListCell *a, const ListCell *b)
{
	Datum		left[BBM_MAX_KEY_COLUMNS];
	Datum		right[BBM_MAX_KEY_COLUMNS];

	bbm_key_values(sorted_by, &((BbmDraw *) lfirst(a))->first, left);
	bbm_key_values(sorted_by, &((BbmDraw *) lfirst(b))->first, right);
	return bbm_key_compare(sorted_by, left, right);
}

/* Keys, by a query; in their order. */
static List *
draw_keys(const BbmTarget *target, const BbmClaimState *state, double pages, int n, const char *condition)
{
	const BbmKey *key = &target->key;
	Datum		values[3 * BBM_MAX_KEY_COLUMNS] = {0};
	Oid			types[3 * BBM_MAX_KEY_COLUMNS];
	List	   *draws = NIL;
	SPIPlanPtr	plan;
	char	   *sql;

	/* the table had no rows when its bounds were determined */
	if (!key->is_integer && (!DatumGetPointer(state->min.key) || !DatumGetPointer(state->max.key)))
		return NIL;
	for (int i = 0; i < key->n; i++)
		types[i] = types[key->n + i] = types[2 * key->n + i] = key->columns[i].type;
	bbm_key_range_values(key, &state->min, &state->max, values, values + key->n);
	if (state->has_last)
		bbm_key_values(key, &state->last, values + 2 * key->n);
	sql = psprintf("SELECT %s, %s FROM %s%s AS %s TABLESAMPLE pg_catalog.system (%g) WHERE %s%s%s%s"
				   " ORDER BY pg_catalog.random() LIMIT %d",
				   target->per_partition ? psprintf("%s.tableoid", target->alias) : psprintf("%u::pg_catalog.oid", target->relid),
				   bbm_key_list_sql(key, target->alias, false, false),
				   target->has_partitions ? "" : "ONLY ", bbm_table_sql_name(target->relid), target->alias,
				   pages <= BBM_DRAW_PAGES ? 100.0 : 100.0 * BBM_DRAW_PAGES / pages, not_done(target, state),
				   condition ? " AND (" : "", condition ? condition : "", condition ? "\n)" : "", n);
	plan = bbm_spi_prepare(sql, state->has_last ? 3 * key->n : 2 * key->n, types, 0);
	(void) bbm_spi_execute_plan(plan, values, NULL, true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmDraw    *draw = palloc0(sizeof(BbmDraw));

		if (read_draw(key, i, draw))
			draws = lappend(draws, draw);
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(plan);
	sorted_by = key;
	list_sort(draws, compare_draws);
	return draws;
}

/*
 * Draws up to n places at which batches may begin, in the table's order; if
 * possible, at rows that meet a condition (NULL: none).  NIL if no batch can
 * begin at a place of our choice: if jobs choose their rows, or the work is
 * done and it is verified or repaired; if a part of the table is no heap; or if
 * nothing is left.  Needs a transaction and SPI; the current user is the owner.
 */
List *
bbm_draw(BbmTarget *target, const BbmClaimState *state, int n, const char *condition)
{
	double		pages;
	List	   *relations;
	List	   *draws;
	int			level;

	if (target->strategy->one_at_a_time || !bbm_phase_is(state->phase, BBM_WORK(1)))
		return NIL;
	relations = heaps(target, &pages);
	if (relations == NIL || pages == 0)
		return NIL;
	if (target->per_partition && target->strategy->has_key &&
		pg_class_aclcheck(target->relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return NIL;
	if (!target->strategy->has_key)
		return draw_blocks(target, state, relations, pages, n);
	level = bbm_job_settings(target->migration);
	draws = draw_keys(target, state, pages, n, condition);
	if (draws == NIL && condition)
		draws = draw_keys(target, state, pages, n, NULL);
	bbm_user_settings_end(level);
	return draws;
}
