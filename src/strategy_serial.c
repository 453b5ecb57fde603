/*-------------------------------------------------------------------------
 *
 * strategy_serial.c
 *		SerialKeySetBatchingStrategy: key order, cut by rows along the index.
 *
 * The ranges follow each other without a gap in the key, from min_value to
 * max_value; one that holds a billion ids without a row costs nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "txn.h"

static void
resolve(BbmTarget *target)
{
	const char *column = target->migration->column_name;
	Relation	rel = table_open(target->relid, AccessShareLock);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), target->attnum - 1);

	target->key_type = getBaseType(attribute->atttypid);
	if (target->key_type != INT2OID && target->key_type != INT4OID && target->key_type != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of type %s cannot be a batching key", column,
						format_type_be(attribute->atttypid)),
				 errdetail("The key must be a smallint, integer or bigint."),
				 errhint("Name a column of such a type that has a unique index.")));
	if (!attribute->attnotnull)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of table \"%s\" may be null", column, RelationGetRelationName(rel)),
				 errdetail("Rows with a null key are in no range, so they would never be done."),
				 errhint("Declare the column NOT NULL, or name another key.")));
	target->index = bbm_key_index(target->relid, target->attnum);
	if (!OidIsValid(target->index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of table \"%s\" has no usable unique index", column,
						RelationGetRelationName(rel)),
				 errdetail("A usable index is a valid unique btree index on this column alone, without a predicate."),
				 errhint("Create one with CREATE UNIQUE INDEX CONCURRENTLY, or name another key.")));
	table_close(rel, AccessShareLock);
}

static bool
bounds(BbmTarget *target, int64 *min_value, int64 *max_value)
{
	return bbm_key_end(target, false, min_value) && bbm_key_end(target, true, max_value);
}

static bool
next_range(BbmTarget *target, const BbmClaimState *state, BbmRange *range)
{
	int64		last;

	/* max_value may have been lowered in mid-run: then everything is cut */
	if (state->has_last && state->last >= state->max_value)
		return false;
	range->min_value = state->has_last ? state->last + 1 : state->min_value;
	if (range->min_value > state->max_value)
		return false;
	range->max_value = state->max_value;
	range->key_count = bbm_key_walk(target, range->min_value, range->max_value, state->batch_size, &last);
	if (range->key_count == state->batch_size)
		range->max_value = last;
	return true;
}

static void
first_of(BbmTarget *target, const BbmRange *rest, int n, BbmRange *part)
{
	int64		last;

	*part = *rest;
	part->key_count = bbm_key_walk(target, rest->min_value, rest->max_value, n, &last);
	if (part->key_count == n)
		part->max_value = last;
}

static double
share(BbmTarget *target)
{
	return 1.0;
}

const BbmStrategy bbm_strategy_serial = {
	.name = "SerialKeySetBatchingStrategy",
	.one_at_a_time = false,
	.resolve = resolve,
	.bounds = bounds,
	.next_range = next_range,
	.first_of = first_of,
	.share = share
};
