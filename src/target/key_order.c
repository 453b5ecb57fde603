/*-------------------------------------------------------------------------
 *
 * key_order.c
 *		The order of a batching key, as it is kept with the bounds of ranges.
 *
 * NOTES
 *	  In another order they would be other ranges, and keys that are rounded
 *	  cross the bounds.  So for each column the type and the collation that
 *	  determine the order of its values are kept, and the number of digits, as
 *	  in
 *
 *		public.mood/16403, pg_catalog.text COLLATE public.de/16411 DESC, pg_catalog.numeric(2)
 *
 *	  The OIDs are those of this database, and of what is not built in: it may
 *	  be renamed while the migration runs.  In a restored database there are
 *	  others, and only the names count.
 *
 *	  Bounds of an enum are written with its labels, which may change places:
 *	  so its labels are kept as well, as in public.mood/16403['sad', 'happy'].
 *
 *-------------------------------------------------------------------------
 */
#include "target/key_order.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_enum.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/guc.h"

/* Values that are not rounded. */
#define ALL_DIGITS INT_MAX

/* An interval of fewer fields keeps nothing that is smaller than its last one: that is fewer than no digits. */
static int
kept_of_interval(int32 typmod)
{
	static const int fields[] = {MINUTE, HOUR, DAY, MONTH, YEAR};
	int			range = INTERVAL_RANGE(typmod);

	if (range == INTERVAL_FULL_RANGE || (range & INTERVAL_MASK(SECOND)) != 0)
		return INTERVAL_PRECISION(typmod);
	for (int i = 0; i < lengthof(fields); i++)
	{
		if ((range & INTERVAL_MASK(fields[i])) != 0)
			return -1 - i;
	}
	return INTERVAL_FULL_PRECISION;
}

/* The number of digits after the point that the column's values, or the elements of these, are rounded to. */
static int
kept_digits(const BbmKeyColumn *column)
{
	int32		typmod = column->typmod;
	Oid			element = get_element_type(column->type);
	int			digits;

	(void) getBaseTypeAndTypmod(column->declared, &typmod);
	if (typmod < 0)
		return ALL_DIGITS;
	switch (OidIsValid(element) ? element : column->type)
	{
		case NUMERICOID:
			/* the scale, which may be negative, as numeric.c reads it */
			return (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			digits = typmod;
			break;
		case INTERVALOID:
			digits = kept_of_interval(typmod);
			break;
		default:
			return ALL_DIGITS;
	}
	return digits >= MAX_TIMESTAMP_PRECISION ? ALL_DIGITS : digits;
}

/* The text is compared, so it must not depend on quote_all_identifiers. */
static char *
type_name(Oid type)
{
	int			level = NewGUCNestLevel();
	char	   *name;

	bbm_guc_set("quote_all_identifiers", "off", true);
	name = format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY);
	AtEOXact_GUC(true, level);
	return name;
}

static char *
collation_name(Oid collation)
{
	int			level = NewGUCNestLevel();
	HeapTuple	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	Form_pg_collation form;
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for collation %u", collation);
	form = (Form_pg_collation) GETSTRUCT(tuple);
	bbm_guc_set("quote_all_identifiers", "off", true);
	name = quote_qualified_identifier(get_namespace_name(form->collnamespace), NameStr(form->collname));
	AtEOXact_GUC(true, level);
	ReleaseSysCache(tuple);
	return name;
}

/* The labels of the enum, or of the enum whose arrays these are, in their order and quoted; NIL of another type. */
static List *
labels_of(Oid type)
{
	Oid			element = get_element_type(type);
	Oid			of = OidIsValid(element) ? getBaseType(element) : type;
	List	   *labels = NIL;
	Relation	rel;
	Relation	index;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!type_is_enum(of))
		return NIL;
	rel = table_open(EnumRelationId, AccessShareLock);
	index = index_open(EnumTypIdSortOrderIndexId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(of));
	scan = systable_beginscan_ordered(rel, index, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
		labels = lappend(labels, quote_literal_cstr(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel)));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return labels;
}

static void
append_labels(StringInfo string, List *labels)
{
	ListCell   *cell;

	foreach(cell, labels)
		appendStringInfo(string, "%s%s", foreach_current_index(cell) > 0 ? ", " : "[", (char *) lfirst(cell));
	appendStringInfoString(string, labels ? "]" : "");
}

static void
append_object(StringInfo string, const char *name, Oid oid)
{
	appendStringInfoString(string, name);
	if (oid >= FirstNormalObjectId)
		appendStringInfo(string, "/%u", oid);
}

/* The order in which ranges are allocated; NULL for an integer, whose order cannot change. */
char *
bbm_key_order_to_string(const BbmKey *key)
{
	StringInfoData string;

	if (key->n == 0 || key->is_integer)
		return NULL;
	initStringInfo(&string);
	for (int i = 0; i < key->n; i++)
	{
		const BbmKeyColumn *column = &key->columns[i];

		appendStringInfoString(&string, i > 0 ? ", " : "");
		append_object(&string, type_name(column->ordered), column->ordered);
		append_labels(&string, labels_of(column->ordered));
		if (OidIsValid(column->collation))
		{
			appendStringInfoString(&string, " COLLATE ");
			append_object(&string, collation_name(column->collation), column->collation);
		}
		if (kept_digits(column) != ALL_DIGITS)
			appendStringInfo(&string, "(%d)", kept_digits(column));
		appendStringInfoString(&string, column->descending ? " DESC" : "");
	}
	return string.data;
}

/* Skips what stands there up to one of these characters, outside of quotes. */
static const char *
skip_to(const char *at, const char *stop)
{
	char		quote = '\0';

	for (; *at != '\0' && (quote != '\0' || strchr(stop, *at) == NULL); at++)
	{
		if (quote == '\0' && (*at == '"' || *at == '\''))
			quote = *at;
		else if (*at == quote)
			quote = '\0';
	}
	return at;
}

/* Skips what stands there of an object, if it is this one, by its name or by its OID; else NULL. */
static const char *
skip_object(const char *at, const char *name, Oid oid)
{
	int			length = strlen(name);
	bool		same = strncmp(at, name, length) == 0 && strchr("/, ([", at[length]) != NULL;
	char	   *end;
	Oid			kept;

	/* only names of what is built in contain spaces, and these have no OID */
	at = same ? at + length : skip_to(at, "/, ([");
	if (*at != '/')
		return same ? at : NULL;
	kept = (Oid) strtoul(at + 1, &end, 10);
	return same || kept == oid ? end : NULL;
}

static bool
has_label(List *labels, const char *label)
{
	ListCell   *cell;

	foreach(cell, labels)
	{
		if (strcmp(lfirst(cell), label) == 0)
			return true;
	}
	return false;
}

/*
 * Do bounds with the labels of before mean the same values?  They do when
 * labels were added.  One that was renamed to a new one leaves bounds that
 * cannot be read, until it is named back; but a label must not have got to
 * another place.
 */
static bool
mean_the_same(List *before, List *now)
{
	int			found = 0;
	ListCell   *x;
	ListCell   *y;

	foreach(y, now)
	{
		if (found < list_length(before) && strcmp(list_nth(before, found), lfirst(y)) == 0)
			found++;
	}
	if (found == list_length(before) || list_length(before) != list_length(now))
		return found == list_length(before);
	forboth(x, before, y, now)
	{
		if (strcmp(lfirst(x), lfirst(y)) != 0 && has_label(before, lfirst(y)))
			return false;
	}
	return true;
}

/* Skips what stands there of the labels of the type; NULL if they have changed places. */
static const char *
skip_labels(const char *at, Oid type)
{
	List	   *before = NIL;

	if (*at != '[')
		return at;
	while (*at == '[' || *at == ',')
	{
		const char *end;

		at += strspn(at, "[, ");
		end = skip_to(at, ",]");
		before = lappend(before, pnstrdup(at, end - at));
		at = end;
	}
	return *at == ']' && mean_the_same(before, labels_of(type)) ? at + 1 : NULL;
}

/* Skips what stands there of a column; NULL if the column has another order, or its values (*rounded) fewer digits. */
static const char *
skip_column(const BbmKeyColumn *column, const char *at, bool *rounded)
{
	int			digits = ALL_DIGITS;
	int			read = 0;

	at = skip_object(at, type_name(column->ordered), column->ordered);
	if (at)
		at = skip_labels(at, column->ordered);
	if (at && OidIsValid(column->collation))
		at = strncmp(at, " COLLATE ", 9) != 0 ? NULL :
			skip_object(at + 9, collation_name(column->collation), column->collation);
	if (at == NULL)
		return NULL;
	if (sscanf(at, "(%d)%n", &digits, &read) == 1)
		at += read;
	*rounded = kept_digits(column) < digits;
	return *rounded ? NULL : at;
}

/* Restores an order written by bbm_key_order_to_string; raises an error if the columns cannot have it any more. */
void
bbm_key_keep_order(BbmKey *key, const char *string)
{
	const char *rest = string;
	bool		rounded = false;

	key->is_mixed = false;
	for (int i = 0; i < key->n && rest; i++)
	{
		BbmKeyColumn *column = &key->columns[i];

		rest = skip_column(column, rest, &rounded);
		column->descending = column->nulls_first = rest && strncmp(rest, " DESC", 5) == 0;
		key->is_mixed |= column->descending;
		if (column->descending)
			rest += 5;
		if (rest && i < key->n - 1)
			rest = strncmp(rest, ", ", 2) == 0 ? rest + 2 : NULL;
	}
	if (rest && *rest == '\0')
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the type of batching key \"%s\" has changed", bbm_key_to_string(key)),
			 errdetail("The ranges allocated so far are in the order of %s.", bbm_key_order_without_oids(string)),
			 rounded ? errhint("Keys were rounded, so that some may have left their ranges, which changing it back does not undo. Define another migration for what is left.") :
			 errhint("Change it back, or define another migration for what is left.")));
}

/* The same order for another database, where the OIDs mean nothing. */
char *
bbm_key_order_without_oids(const char *string)
{
	StringInfoData names;

	initStringInfo(&names);
	while (*string != '\0')
	{
		const char *end = skip_to(string, "/");

		appendBinaryStringInfo(&names, string, end - string);
		string = *end == '/' ? end + 1 + strspn(end + 1, "0123456789") : end;
	}
	return names.data;
}
