/*-------------------------------------------------------------------------
 *
 * bound.c
 *		The bounds of ranges: comparing and keeping them.
 *
 *-------------------------------------------------------------------------
 */
#include "target/bound.h"

#include "target/key.h"

/* Compares two bounds in the key's order, like a btree comparison function. */
int
bbm_key_compare_bounds(const BbmKey *key, const BbmBound *a, const BbmBound *b)
{
	Datum		a_values[BBM_MAX_KEY_COLUMNS];
	Datum		b_values[BBM_MAX_KEY_COLUMNS];

	/* a number may be beyond those of the key's type */
	if (key->is_integer)
		return a->number < b->number ? -1 : a->number > b->number;
	bbm_key_values(key, a, a_values);
	bbm_key_values(key, b, b_values);
	return bbm_key_compare(key, a_values, b_values);
}

/* The later of two bounds; the first may be that of an empty table. */
BbmBound
bbm_key_later(const BbmKey *key, const BbmBound *a, const BbmBound *b)
{
	return (!key->is_integer && !DatumGetPointer(a->key)) || bbm_key_compare_bounds(key, a, b) < 0 ? *b : *a;
}

/* A bound that lives as long as the current memory context. */
BbmBound
bbm_bound_copy(const BbmBound *bound)
{
	BbmBound	copy = *bound;

	if (DatumGetPointer(bound->key))
		copy.key = PointerGetDatum(PG_DETOAST_DATUM_COPY(bound->key));
	return copy;
}

/* Replaces a kept bound by another one.  A job may have millions of commits, and its memory lasts as long. */
void
bbm_bound_replace(BbmBound *kept, BbmBound bound)
{
	if (DatumGetPointer(kept->key))
		pfree(DatumGetPointer(kept->key));
	*kept = bound;
}
