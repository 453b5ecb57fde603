/*-------------------------------------------------------------------------
 *
 * key.c
 *		The batching key: its columns, their order, values and texts.
 *
 * NOTES
 *	  A key has the order of the index along which its ranges are allocated,
 *	  read so that the first column ascends.  If all columns then ascend, that
 *	  is the order of row comparisons, which an index scan can follow as well.
 *
 *	  Bounds are kept in our tables as text that the types' own output
 *	  functions write and their input functions read, with fixed values of the
 *	  settings that these functions depend on: reading returns the same value.
 *	  Bounds are compared as values, never as text.
 *
 *	  A bound is never null.  In rows, only the first column may be null: see
 *	  nulls.c.
 *
 *-------------------------------------------------------------------------
 */
#include "target/key.h"

#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_operator.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

#include "base/guc.h"
#include "base/txn.h"
#include "target/nulls.h"
#include "target/type_parts.h"

/* ----------------------------------------------------------------
 * Which columns
 * ----------------------------------------------------------------
 */

/* The column's number; raises an error when the column cannot be in a key. */
static AttrNumber
find_column(Oid relid, const char *column)
{
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", column, get_rel_name(relid)),
				 errdetail("A single name is taken as it is, without folding to lower case; several are separated by commas."),
				 errhint("Name a column, or columns, with a btree index; rename one back that a started migration had.")));
	if (attnum < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("system column \"%s\" cannot be a batching key", column),
				 errdetail("Rows move when they are updated."),
				 errhint("Name a column of the table.")));
	return attnum;
}

/* The names that a column_name stands for: one name, or a list of identifiers. */
static List *
split_columns(Oid relid, const char *column_name)
{
	List	   *names = NIL;

	if (get_attnum(relid, column_name) != InvalidAttrNumber || strchr(column_name, ',') == NULL ||
		!SplitIdentifierString(pstrdup(column_name), ',', &names) || names == NIL)
		return list_make1(pstrdup(column_name));
	return names;
}

/* The type's comparison operators, by strategy number, and its comparison function. */
static void
resolve_operators(BbmKeyColumn *column, const TypeCacheEntry *type)
{
	for (StrategyNumber strategy = BTLessStrategyNumber; strategy <= BTMaxStrategyNumber; strategy++)
	{
		Oid			type_oid = type->btree_opintype;
		Oid			oid = get_opfamily_member(type->btree_opf, type_oid, type_oid, strategy);
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(oid));
		Form_pg_operator form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for operator %u", oid);
		form = (Form_pg_operator) GETSTRUCT(tuple);
		column->op[strategy] = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
										NameStr(form->oprname));
		ReleaseSysCache(tuple);
	}
	fmgr_info(type->cmp_proc, &column->compare);
}

/* Is it a type that is output as a name, as regclass is? */
static bool
is_name_of(Oid type)
{
	return lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opintype == OIDOID && type != OIDOID;
}

static bool
is_money(Oid type)
{
	return type == CASHOID;
}

/* The names by which statements call the type and its operators, whatever quote_all_identifiers is. */
static char *
names_of(const BbmKeyColumn *column)
{
	BbmKeyColumn now = *column;
	StringInfoData names;
	int			level = NewGUCNestLevel();

	bbm_guc_set("quote_all_identifiers", "off", true);
	initStringInfo(&names);
	appendStringInfoString(&names, format_type_extended(column->type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	resolve_operators(&now, lookup_type_cache(column->type, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_CMP_PROC));
	for (StrategyNumber strategy = BTLessStrategyNumber; strategy <= BTMaxStrategyNumber; strategy++)
		appendStringInfo(&names, " %s", now.op[strategy]);
	AtEOXact_GUC(true, level);
	return names.data;
}

static void
resolve_column(BbmKeyColumn *column, Relation rel, AttrNumber attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	TypeCacheEntry *type;
	Oid			function;
	bool		varlena;

	column->name = pstrdup(NameStr(attribute->attname));
	column->attnum = attnum;
	column->declared = attribute->atttypid;
	column->typmod = attribute->atttypmod;
	column->type = getBaseType(attribute->atttypid);
	column->collation = attribute->attcollation;
	type = lookup_type_cache(column->type, TYPECACHE_BTREE_OPFAMILY | TYPECACHE_LT_OPR | TYPECACHE_CMP_PROC);
	if (!OidIsValid(type->btree_opf) || !OidIsValid(type->lt_opr) || !OidIsValid(type->cmp_proc))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of type %s cannot be a batching key", column->name,
						format_type_be(attribute->atttypid)),
				 errdetail("The type has no default btree operator class, so its values have no order."),
				 errhint("Name a column of another type, or use BlockRangeBatchingStrategy.")));
	/* regclass and the like are output as names, which are not in their order and may change */
	if (type->btree_opintype == OIDOID)
		column->type = OIDOID;
	else if (bbm_type_contains(column->type, is_name_of))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of type %s cannot be a batching key", column->name,
						format_type_be(attribute->atttypid)),
				 errdetail("Its values contain objects by their names, which are not in their order and may change."),
				 errhint("Name a column of another type, or use BlockRangeBatchingStrategy.")));
	/* the operators for enums and arrays do not accept a domain over one */
	column->cast = column->type == column->declared ? "" :
		psprintf("::%s", format_type_extended(column->type, -1, FORMAT_TYPE_FORCE_QUALIFY));
	column->ordered = get_typtype(type->btree_opintype) == TYPTYPE_PSEUDO ? column->type : type->btree_opintype;
	column->has_money = bbm_type_contains(column->type, is_money);
	get_typlenbyval(column->type, &column->typlen, &column->typbyval);
	resolve_operators(column, type);
	if (column->type >= FirstNormalObjectId)
		column->names = names_of(column);

	getTypeOutputInfo(column->type, &function, &varlena);
	fmgr_info(function, &column->out);
	getTypeInputInfo(column->type, &function, &column->ioparam);
	fmgr_info(function, &column->in);
}

/*
 * Raises an error when a column that must not be null in the table may be
 * null: all columns but the first must not (see target/nulls.c).  The table is
 * open and locked.
 */
void
bbm_key_check_nulls(const BbmKey *key, Relation rel)
{
	for (int i = 1; i < key->n; i++)
	{
		const char *column = key->columns[i].name;
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), column);

		/* a child table may have dropped its parent's constraint */
		if (attnum > 0 && !bbm_column_may_be_null(rel, attnum))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of table \"%s\" may be null", column, RelationGetRelationName(rel)),
				 errdetail("Of a batching key of several columns only the first may be: a row in which another is null would be in a range or in none, as the ranges happen to be."),
				 errhint("Declare the column NOT NULL, add a CHECK (%s IS NOT NULL) and validate it, or name another key.",
						 quote_identifier(column))));
	}
}

/* Raises the error for a row whose key is null although it cannot be; no range contains that row. */
void
bbm_key_has_null(const BbmKeyColumn *column)
{
	bbm_failing_code = BBM_CODE_COLUMN;
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("a row has a null key"),
			 errdetail("Column \"%s\" holds a null. It could not when the migration was started, or is declared NOT NULL.",
					   column->name),
			 errhint("Give the row a key, or name another one.")));
}

/*
 * Resolves the named columns, in the current memory context.  Needs a
 * transaction and a lock on the table; raises an error when one of them cannot
 * be in a key.
 */
void
bbm_key_resolve(BbmKey *key, Oid relid, const char *column_name)
{
	Relation	rel = table_open(relid, NoLock);
	List	   *names = split_columns(relid, column_name);
	ListCell   *cell;

	if (list_length(names) > BBM_MAX_KEY_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("a batching key cannot have more than %d columns", BBM_MAX_KEY_COLUMNS),
				 errdetail("No index has more."),
				 errhint("Name the first columns of an index.")));
	memset(key, 0, sizeof(BbmKey));
	key->columns = palloc0(list_length(names) * sizeof(BbmKeyColumn));
	foreach(cell, names)
	{
		AttrNumber	attnum = find_column(relid, lfirst(cell));

		for (int i = 0; i < key->n; i++)
		{
			if (strcmp(key->columns[i].name, lfirst(cell)) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is named twice in the batching key", (char *) lfirst(cell)),
						 errdetail("Ranges are allocated along an index of these columns."),
						 errhint("Name the columns of an index, in its order.")));
		}
		resolve_column(&key->columns[key->n++], rel, attnum);
	}
	key->is_integer = key->n == 1 && (key->columns[0].type == INT2OID || key->columns[0].type == INT4OID ||
									  key->columns[0].type == INT8OID);
	/* for a partitioned table, each partition is checked */
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		bbm_key_check_nulls(key, rel);
	table_close(rel, NoLock);
}

/*
 * Are the key's columns the same as when it was resolved?  They are not if a
 * column was dropped and added again, renamed, or changed to another type, or
 * if its type was renamed.
 */
bool
bbm_key_is_current(const BbmKey *key, Oid relid)
{
	for (int i = 0; i < key->n; i++)
	{
		const BbmKeyColumn *column = &key->columns[i];
		HeapTuple	tuple = SearchSysCacheAttNum(relid, column->attnum);
		Form_pg_attribute attribute;
		bool		same;

		if (!HeapTupleIsValid(tuple))
			return false;
		attribute = (Form_pg_attribute) GETSTRUCT(tuple);
		same = attribute->atttypid == column->declared && attribute->atttypmod == column->typmod &&
			attribute->attcollation == column->collation &&
			strcmp(NameStr(attribute->attname), column->name) == 0 &&
			(column->names == NULL || strcmp(names_of(column), column->names) == 0);
		ReleaseSysCache(tuple);
		if (!same)
			return false;
	}
	return true;
}

/* The columns with their directions, as in an index definition. */
char *
bbm_key_order_list(const BbmKey *key)
{
	StringInfoData string;

	initStringInfo(&string);
	for (int i = 0; i < key->n; i++)
		appendStringInfo(&string, "%s%s%s", i > 0 ? ", " : "", quote_identifier(key->columns[i].name),
						 key->columns[i].descending ? " DESC" : "");
	return string.data;
}

/* The columns, in the form of column_name. */
const char *
bbm_key_to_string(const BbmKey *key)
{
	StringInfoData string;

	if (key->n == 1)
		return key->columns[0].name;
	initStringInfo(&string);
	for (int i = 0; i < key->n; i++)
		appendStringInfo(&string, "%s%s", i > 0 ? ", " : "", quote_identifier(key->columns[i].name));
	return string.data;
}

/* ----------------------------------------------------------------
 * Values and texts
 * ----------------------------------------------------------------
 */

/* Compares two keys in the key's order, like a btree comparison function. */
int
bbm_key_compare(const BbmKey *key, const Datum *a, const Datum *b)
{
	for (int i = 0; i < key->n; i++)
	{
		BbmKeyColumn *column = &key->columns[i];
		int			result = DatumGetInt32(FunctionCall2Coll(&column->compare, column->collation, a[i], b[i]));

		if (result != 0)
			return column->descending ? (result > 0 ? -1 : 1) : result;
	}
	return 0;
}

/* Fixes the settings that the text form of values depends on, until AtEOXact_GUC. */
static int
pin_text_modes(const BbmKey *key)
{
	int			level = NewGUCNestLevel();

	if (DateStyle != USE_ISO_DATES)
		bbm_guc_set("datestyle", "ISO", true);
	if (IntervalStyle != INTSTYLE_POSTGRES)
		bbm_guc_set("intervalstyle", "postgres", true);
	if (extra_float_digits < 1)
		bbm_guc_set("extra_float_digits", "1", true);
	if (bytea_output != BYTEA_OUTPUT_HEX)
		bbm_guc_set("bytea_output", "hex", true);
	if (!Array_nulls)
		bbm_guc_set("array_nulls", "on", true);
	for (int i = 0; i < key->n; i++)
	{
		if (key->columns[i].has_money)
			bbm_guc_set("lc_monetary", "C", true);
	}
	return level;
}

/* The values of a key as text[]. */
static Datum
key_text(const BbmKey *key, const Datum *values)
{
	Datum		texts[BBM_MAX_KEY_COLUMNS];
	int			level = pin_text_modes(key);

	for (int i = 0; i < key->n; i++)
		texts[i] = CStringGetTextDatum(OutputFunctionCall((FmgrInfo *) &key->columns[i].out, values[i]));
	AtEOXact_GUC(true, level);
	return PointerGetDatum(construct_array(texts, key->n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
invalid_bound(const BbmKey *key)
{
	bbm_failing_code = BBM_CODE_COLUMN;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid bound of a range of key \"%s\"", bbm_key_to_string(key)),
			 errdetail_plural("It must be an array of %d value, and that not null.",
							  "It must be an array of %d values, none of them null.", key->n, key->n),
			 errhint("Write one value per column of the key, as in ARRAY['2024-01-01', '7'].")));
}

static void
bound_error(void *arg)
{
	const BbmKeyColumn *column = arg;

	errcontext("bound of batching key column \"%s\"", column->name);
}

static void
values_of_text(const BbmKey *key, Datum bound, Datum *values)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = bound_error};
	int			code = bbm_failing_code;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			level;

	deconstruct_array(DatumGetArrayTypeP(bound), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n != key->n)
		invalid_bound(key);
	/* before the context that names a column, as none is at fault */
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			invalid_bound(key);
	}
	level = pin_text_modes(key);
	/* for example, an enum value may have been renamed */
	bbm_failing_code = BBM_CODE_COLUMN;
	error_context_stack = &callback;
	for (int i = 0; i < n; i++)
	{
		const BbmKeyColumn *column = &key->columns[i];

		callback.arg = (void *) column;
		/* without the column's type modifier, which would round or truncate the value */
		values[i] = InputFunctionCall((FmgrInfo *) &column->in, TextDatumGetCString(elements[i]),
									  column->ioparam, -1);
	}
	error_context_stack = callback.previous;
	bbm_failing_code = code;
	AtEOXact_GUC(true, level);
}

/* Sets the bound to these values; does not change its number unless that is the value. */
void
bbm_key_bound(const BbmKey *key, const Datum *values, BbmBound *bound)
{
	if (!key->is_integer)
	{
		bound->key = key_text(key, values);
		return;
	}
	bound->key = (Datum) 0;
	switch (key->columns[0].type)
	{
		case INT2OID:
			bound->number = DatumGetInt16(values[0]);
			break;
		case INT4OID:
			bound->number = DatumGetInt32(values[0]);
			break;
		default:
			bound->number = DatumGetInt64(values[0]);
	}
}

/* Raises an error if the bound is one of a different kind of key, and so unusable for this key. */
void
bbm_key_check_bound(const BbmKey *key, const BbmBound *bound)
{
	if (key->is_integer == (DatumGetPointer(bound->key) == NULL))
		return;
	bbm_failing_code = BBM_CODE_COLUMN;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the type of batching key \"%s\" has changed", bbm_key_to_string(key)),
			 errdetail("The migration has bounds of another type."),
			 key->is_integer ? errhint("Change it back, or define another migration for what is left. An INSERT gives the bounds of an integer key in min_value and max_value.") :
			 errhint("Change it back, or define another migration for what is left. An INSERT gives the bounds of this key in min_key and max_key.")));
}

/* The lowest and the highest value of an integer key. */
static void
integer_limits(const BbmKey *key, int64 *lowest, int64 *highest)
{
	switch (key->columns[0].type)
	{
		case INT2OID:
			*lowest = PG_INT16_MIN;
			*highest = PG_INT16_MAX;
			break;
		case INT4OID:
			*lowest = PG_INT32_MIN;
			*highest = PG_INT32_MAX;
			break;
		default:
			*lowest = PG_INT64_MIN;
			*highest = PG_INT64_MAX;
	}
}

/*
 * The values of a bound.  A number outside the range of the key's type stands
 * for the type's lowest or highest value; as a range that begins or ends there
 * is then another one, see bbm_key_range_values.
 */
void
bbm_key_values(const BbmKey *key, const BbmBound *bound, Datum *values)
{
	int64		lowest;
	int64		highest;
	int64		number;

	bbm_key_check_bound(key, bound);
	if (!key->is_integer)
	{
		values_of_text(key, bound->key, values);
		return;
	}
	integer_limits(key, &lowest, &highest);
	number = Min(Max(bound->number, lowest), highest);
	values[0] = key->columns[0].type == INT2OID ? Int16GetDatum((int16) number) :
		key->columns[0].type == INT4OID ? Int32GetDatum((int32) number) : Int64GetDatum(number);
}

/*
 * Does the key's type have a value between the two bounds, of which either may
 * be NULL?  Not between two numbers that are both above its highest value, or
 * both below its lowest.
 */
bool
bbm_key_has_between(const BbmKey *key, const BbmBound *min, const BbmBound *max)
{
	int64		lowest;
	int64		highest;

	if (!key->is_integer)
		return true;
	integer_limits(key, &lowest, &highest);
	return (min == NULL || min->number <= highest) && (max == NULL || max->number >= lowest);
}

/*
 * The values of both bounds of a range.  A range in which the key's type has no
 * value gets bounds that no row is between.
 */
void
bbm_key_range_values(const BbmKey *key, const BbmBound *min, const BbmBound *max, Datum *min_values, Datum *max_values)
{
	BbmBound	low = *min;
	BbmBound	high = *max;

	if (!bbm_key_has_between(key, min, max))
	{
		low.number = 1;
		high.number = 0;
	}
	bbm_key_values(key, &low, min_values);
	bbm_key_values(key, &high, max_values);
}
