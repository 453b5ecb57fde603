/*-------------------------------------------------------------------------
 *
 * type_parts.c
 *		What the values of a type consist of.
 *
 *-------------------------------------------------------------------------
 */
#include "target/type_parts.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* Is a value of the type one of such a type, or does it contain one: as an element, a bound or a field? */
bool
bbm_type_contains(Oid type, bool (*is_such) (Oid type))
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);
	TypeCacheEntry *entry;
	bool		found = is_such(base);

	check_stack_depth();
	if (OidIsValid(element))
		return found || bbm_type_contains(element, is_such);
	entry = lookup_type_cache(base, TYPECACHE_RANGE_INFO | TYPECACHE_MULTIRANGE_INFO | TYPECACHE_TUPDESC);
	/* of a multirange, the range */
	if (entry->rngtype)
		entry = entry->rngtype;
	if (entry->rngelemtype)
		return bbm_type_contains(entry->rngelemtype->type_id, is_such);
	for (int i = 0; entry->tupDesc && i < entry->tupDesc->natts && !found; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(entry->tupDesc, i);

		found = !attribute->attisdropped && bbm_type_contains(attribute->atttypid, is_such);
	}
	return found;
}
