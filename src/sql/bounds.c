/*-------------------------------------------------------------------------
 *
 * bounds.c
 *		The range of a migration: what its definition gives of it, and the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/bounds.h"

#include "utils/array.h"

#include "strategy/resolve.h"
#include "target/key.h"

/* A bound that is given as a number or as a key. */
static BbmBound *
given_bound(const BbmDefinition *d, const char *number, const char *key)
{
	BbmBound   *bound;

	if (!bbm_definition_has(d, number) && !bbm_definition_has(d, key))
		return NULL;
	bound = palloc0(sizeof(BbmBound));
	bound->number = DatumGetInt64(bbm_definition_get(d, number));
	if (bbm_definition_has(d, key))
		bound->key = PointerGetDatum(DatumGetArrayTypePCopy(bbm_definition_get(d, key)));
	return bound;
}

BbmBounds
bbm_bounds_given(const BbmDefinition *d)
{
	BbmBounds	bounds = {given_bound(d, "min_value", "min_key"), given_bound(d, "max_value", "max_key")};

	return bounds;
}

static void
wrong_bound(const BbmTarget *target, const char *given, const char *instead)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s does not fit the batching key", given),
			 target->key.n == 0 ? errdetail("%s has no key of columns.", target->strategy->name) :
			 target->key.is_integer ? errdetail("Column \"%s\" is an integer.", bbm_key_to_string(&target->key)) :
			 errdetail("The key \"%s\" is not an integer.", bbm_key_to_string(&target->key)),
			 errhint("%s", instead)));
}

/* A bound as the caller gave it, in the form in which it is stored. */
static void
check_bound(const BbmTarget *target, BbmBound *given, bool by_number, bool by_key)
{
	Datum		values[BBM_MAX_KEY_COLUMNS];

	if (by_number && !target->key.is_integer)
		wrong_bound(target, "min_value or max_value", target->key.n > 0 ?
					"Give min_key and max_key, arrays of text with a value per column." : "Leave them out.");
	if (by_key && (target->key.is_integer || target->key.n == 0))
		wrong_bound(target, "min_key or max_key", target->key.is_integer ?
					"Give min_value and max_value." : "Leave them out.");
	if (given && DatumGetPointer(given->key))
	{
		bbm_key_values(&target->key, given, values);
		bbm_key_bound(&target->key, values, given);
	}
}

/* min_value and max_value are checked in the row that they are written to. */
void
bbm_bounds_check(const BbmTarget *target, const BbmDefinition *d, const BbmBounds *bounds)
{
	bool		by_number = bbm_definition_has(d, "min_value") || bbm_definition_has(d, "max_value");
	bool		by_key = bbm_definition_has(d, "min_key") || bbm_definition_has(d, "max_key");
	Datum		min[BBM_MAX_KEY_COLUMNS];
	Datum		max[BBM_MAX_KEY_COLUMNS];

	check_bound(target, bounds->min, by_number, by_key);
	check_bound(target, bounds->max, by_number, by_key);
	if (!by_key || bounds->min == NULL || bounds->max == NULL)
		return;
	bbm_key_values(&target->key, bounds->min, min);
	bbm_key_values(&target->key, bounds->max, max);
	if (bbm_key_compare(&target->key, min, max) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_key is above max_key"),
				 errdetail("Keys are in the order (%s).", bbm_key_order_list(&target->key)),
				 errhint("Exchange them.")));
}

/* Sets what is not given, to the first and last key of a table; NULL, or none, where it has no row that is known. */
void
bbm_bounds_complete(BbmBounds *bounds, const BbmKey *key, const BbmBound *first, const BbmBound *last)
{
	BbmBound   *low = palloc0(sizeof(BbmBound));
	BbmBound   *high = palloc0(sizeof(BbmBound));

	if (first && last)
	{
		*low = *first;
		*high = *last;
	}
	else
		/* an empty table: one key, which no row has yet */
		low->number = high->number = bounds->min ? bounds->min->number : bounds->max ? bounds->max->number :
			key->is_integer ? 1 : 0;
	if (bounds->min == NULL)
	{
		if (bounds->max)
			low->number = Min(low->number, bounds->max->number);
		bounds->min = low;
	}
	if (bounds->max == NULL)
	{
		/* all rows may lie below the lowest key asked for; then there is nothing to do */
		high->number = Max(high->number, bounds->min->number);
		bounds->max = high;
	}
}

/* Sets the range to what the table has now, where the caller gave none. */
void
bbm_bounds_fix(BbmTarget *target, BbmBounds *bounds)
{
	BbmBound	first;
	BbmBound	last;

	if (bounds->min && bounds->max)
		return;
	if (bbm_target_bounds(target, &first, &last))
		bbm_bounds_complete(bounds, &target->key, &first, &last);
	else
		bbm_bounds_complete(bounds, &target->key, NULL, NULL);
}
