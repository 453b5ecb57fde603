/*-------------------------------------------------------------------------
 *
 * properties.c
 *		Entry points for the tests: properties, tried with random cases, of
 *		what needs a server.
 *
 * property.h says what a property is.  No SQL of the extension
 * declares these functions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/hours.h"
#include "catalog/migrations.h"
#include "strategy/resolve.h"
#include "target/bound.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/key_sql.h"
#include "target/partition.h"
#include "target/target.h"

#include "property.h"

PG_FUNCTION_INFO_V1(bbm_test_hours_properties);
PG_FUNCTION_INFO_V1(bbm_test_key_properties);
PG_FUNCTION_INFO_V1(bbm_test_range_properties);

/* What a property allocates ends with the case. */
static MemoryContext case_context;

/* Tries each; returns which fails first, and with what, or NULL. */
static Datum
try_all(FunctionCallInfo fcinfo, const Property *properties, int cases, uint64 seed,
		char *(*describe) (const uint32 *n))
{
	case_context = AllocSetContextCreate(CurrentMemoryContext, "bbm_test case", ALLOCSET_DEFAULT_SIZES);
	for (const Property *property = properties; property->name; property++)
	{
		uint32		n[NUMBERS];

		CHECK_FOR_INTERRUPTS();
		if (property_try(property, cases, seed, n) >= 0)
			PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s, seed " UINT64_FORMAT ": %s", property->name, seed,
													 describe(n))));
	}
	PG_RETURN_NULL();
}

/* ----------------------------------------------------------------
 * base/hours.c
 * ----------------------------------------------------------------
 */

/* Zones in which clocks are set by an hour or half of one, at midnight, to another day, or never. */
static const char *const zones[] = {
	"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu",
	"Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Asia/Beirut"
};

static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

/* One window, of any days and hours, or of hours around those in which clocks are set. */
static char *
draw_window(uint64 *state, const char *zone)
{
	int			kind = property_draw(state) % 3;
	int			around = property_draw(state) % 2 ? 24 * 60 : 4 * 60;
	int			from = property_draw(state) % around;
	int			to = property_draw(state) % around;
	const char *first = days[property_draw(state) % 7];
	const char *last = days[property_draw(state) % 7];

	if (to == from)
		to++;
	return psprintf("%s%s%s%s%02d:%02d-%02d:%02d%s%s", kind > 0 ? first : "", kind > 1 ? "-" : "", kind > 1 ? last : "",
					kind > 0 ? " " : "", from / 60, from % 60, to / 60, to % 60, zone ? " " : "", zone ? zone : "");
}

/* A case: a list of windows in a zone, and a moment, mostly within two days of one at which clocks there are set. */
static char *
draw_hours(const uint32 *n, TimestampTz *now, pg_tz **zone)
{
	uint64		state = n[0];
	char	   *text = NULL;
	pg_time_t	at = 946684800 + (int64) (n[2] % 9000) * SECS_PER_DAY;
	pg_time_t	boundary;
	long		before;
	long		after;
	int			is_dst;

	*zone = pg_tzset(zones[n[1] % lengthof(zones)]);
	for (int i = 0; i <= (int) (n[3] % 3); i++)
	{
		char	   *window = draw_window(&state, zones[n[1] % lengthof(zones)]);

		text = text ? psprintf("%s, %s", text, window) : window;
	}
	if (n[5] % 4 > 0 && pg_next_dst_boundary(&at, &before, &is_dst, &boundary, &after, &is_dst, *zone) == 1)
		at = boundary - 2 * SECS_PER_DAY;
	*now = time_t_to_timestamptz(at + n[4] % (4 * SECS_PER_DAY));
	return text;
}

/* The definition, of a window on a minute: the local time is in it, which began today or yesterday. */
static bool
is_open_by_definition(const List *windows, TimestampTz t, pg_tz *zone)
{
	pg_time_t	seconds = timestamptz_to_time_t(t);
	struct pg_tm local = *pg_localtime(&seconds, zone);
	int			minute = local.tm_hour * 60 + local.tm_min;
	ListCell   *cell;

	foreach(cell, windows)
	{
		const BbmHours *window = lfirst(cell);

		for (int yesterday = 0; yesterday <= 1; yesterday++)
		{
			int			since_day = minute + yesterday * 24 * 60;
			int			end = window->to > window->from ? window->to : window->to + 24 * 60;

			if ((window->days & (1 << ((local.tm_wday + 7 - yesterday) % 7))) && since_day >= window->from &&
				since_day < end)
				return true;
		}
	}
	return false;
}

/* open when the definition says so; else it names the first moment at which it will be */
static bool
hours_open_when_said(const uint32 *n)
{
	MemoryContext old = MemoryContextSwitchTo(case_context);
	TimestampTz now;
	pg_tz	   *zone;
	char	   *text = draw_hours(n, &now, &zone);
	List	   *windows;
	const char *why;
	TimestampTz opens;
	TimestampTz ignored;
	uint64		state = n[5];
	bool		open;
	bool		holds;

	holds = bbm_hours_parse(text, &windows, &why);
	open = holds && bbm_hours_open(windows, now, &opens);
	holds = holds && open == is_open_by_definition(windows, now, zone);
	if (holds && !open && opens != DT_NOEND)
	{
		holds = opens > now && bbm_hours_open(windows, opens, &ignored) &&
			!bbm_hours_open(windows, opens - 1, &ignored);
		/* not before: moments between are tried, as there may be weeks */
		for (int i = 0; holds && i < 30; i++)
		{
			TimestampTz t = now + (TimestampTz) ((opens - now) * (property_draw(&state) / 2147483648.0));

			holds = t >= opens || !is_open_by_definition(windows, t, zone);
		}
	}
	else if (holds && !open)
	{
		/* never: then not in the week that follows */
		for (int hours = 0; holds && hours < 7 * 24; hours++)
			holds = !is_open_by_definition(windows, now + hours * USECS_PER_HOUR, zone);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(case_context);
	return holds;
}

static char *
describe_hours(const uint32 *n)
{
	TimestampTz now;
	pg_tz	   *zone;
	char	   *text = draw_hours(n, &now, &zone);

	return psprintf("\"%s\" at %s", text, timestamptz_to_str(now));
}

static const Property hours_properties[] = {
	{"hours_open_when_said", hours_open_when_said},
	{0}
};

/* (cases integer, seed bigint) → which property fails, or NULL */
Datum
bbm_test_hours_properties(PG_FUNCTION_ARGS)
{
	return try_all(fcinfo, hours_properties, PG_GETARG_INT32(0), PG_GETARG_INT64(1), describe_hours);
}

/* ----------------------------------------------------------------
 * target/key.c and target/key_sql.c
 * ----------------------------------------------------------------
 */

static BbmKey key;
static SPIPlanPtr plan;			/* the conditions, of a bound and a row */
static Datum *pool[BBM_MAX_KEY_COLUMNS];	/* values of each column */
static int	pool_size;

/* A key, of a case's number: the digits say which value of each column. */
static void
draw_key(uint32 number, Datum *values)
{
	for (int i = 0; i < key.n; i++)
	{
		values[i] = pool[i][number % pool_size];
		number /= pool_size;
	}
}

static int
sign(int number)
{
	return number > 0 ? 1 : number < 0 ? -1 : 0;
}

/* an order: of each two keys, and of three */
static bool
keys_have_an_order(const uint32 *n)
{
	Datum		k[3][BBM_MAX_KEY_COLUMNS];

	for (int i = 0; i < 3; i++)
		draw_key(n[i], k[i]);
	if (bbm_key_compare(&key, k[0], k[0]) != 0 ||
		sign(bbm_key_compare(&key, k[0], k[1])) != -sign(bbm_key_compare(&key, k[1], k[0])))
		return false;
	return bbm_key_compare(&key, k[0], k[1]) > 0 || bbm_key_compare(&key, k[1], k[2]) > 0 ||
		bbm_key_compare(&key, k[0], k[2]) <= 0;
}

static BbmBound
bound_of(const Datum *values)
{
	BbmBound	bound = {0};

	bbm_key_bound(&key, values, &bound);
	return bound;
}

/* a bound that was written and read is the same key, whatever the settings; the later one is one of the two */
static bool
bound_is_kept(const uint32 *n)
{
	MemoryContext old = MemoryContextSwitchTo(case_context);
	Datum		k[2][BBM_MAX_KEY_COLUMNS];
	Datum		again[BBM_MAX_KEY_COLUMNS];
	BbmBound	bounds[2];
	BbmBound	later;
	bool		holds;

	for (int i = 0; i < 2; i++)
	{
		draw_key(n[i], k[i]);
		bounds[i] = bound_of(k[i]);
	}
	bbm_key_values(&key, &bounds[0], again);
	holds = bbm_key_compare(&key, k[0], again) == 0;
	later = bbm_key_later(&key, &bounds[0], &bounds[1]);
	bbm_key_values(&key, &later, again);
	holds = holds && bbm_key_compare(&key, again, k[0]) >= 0 && bbm_key_compare(&key, again, k[1]) >= 0 &&
		(bbm_key_compare(&key, again, k[0]) == 0 || bbm_key_compare(&key, again, k[1]) == 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(case_context);
	return holds;
}

/* the conditions in SQL say what the comparison in C says: <, <=, >, >=, and of a range */
static bool
sql_compares_alike(const uint32 *n)
{
	MemoryContext old = MemoryContextSwitchTo(case_context);
	Datum		values[3 * BBM_MAX_KEY_COLUMNS];
	Datum	   *low = values;
	Datum	   *high = values + key.n;
	Datum	   *row = values + 2 * key.n;
	int			to_low;
	int			to_high;
	bool		expected[5];
	bool		holds = true;

	draw_key(n[0], low);
	draw_key(n[1], high);
	draw_key(n[2], row);
	to_low = bbm_key_compare(&key, row, low);
	to_high = bbm_key_compare(&key, row, high);
	expected[0] = to_low < 0;
	expected[1] = to_low <= 0;
	expected[2] = to_low > 0;
	expected[3] = to_low >= 0;
	expected[4] = to_low >= 0 && to_high <= 0;
	if (SPI_execute_plan(plan, values, NULL, true, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "the conditions cannot be evaluated");
	for (int i = 0; i < lengthof(expected); i++)
	{
		bool		isnull;

		holds = holds && expected[i] == DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1,
																   &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(old);
	MemoryContextReset(case_context);
	return holds;
}

static const Property key_properties[] = {
	{"keys_have_an_order", keys_have_an_order},
	{"bound_is_kept", bound_is_kept},
	{"sql_compares_alike", sql_compares_alike},
	{0}
};

static char *
describe_keys(const uint32 *n)
{
	StringInfoData string;

	initStringInfo(&string);
	for (int i = 0; i < 3; i++)
	{
		Datum		values[BBM_MAX_KEY_COLUMNS];

		draw_key(n[i], values);
		for (int c = 0; c < key.n; c++)
			appendStringInfo(&string, "%s%s", c > 0 ? ", " : i > 0 ? " | " : "",
							 OutputFunctionCall(&key.columns[c].out, values[c]));
	}
	return string.data;
}

/* Resolves the key of the table, in the order of the index. */
static void
resolve(Oid relid, const char *columns, const char *index_name)
{
	Relation	rel = table_open(relid, AccessShareLock);
	BbmKeyIndex index;

	bbm_key_resolve(&key, relid, columns);
	if (!bbm_key_find_index(&key, rel, index_name, true, &index))
		elog(ERROR, "there is no index \"%s\" on these columns", index_name);
	bbm_key_use_order(&key, &index);
	table_close(rel, NoLock);
}

/* Reads the values of each column, one row of the array per column. */
static void
read_pool(ArrayType *texts)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(texts, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (ARR_NDIM(texts) != 2 || ARR_DIMS(texts)[0] != key.n)
		elog(ERROR, "there must be as many lists of values as columns");
	pool_size = ARR_DIMS(texts)[1];
	for (int i = 0; i < key.n; i++)
	{
		pool[i] = palloc(pool_size * sizeof(Datum));
		for (int j = 0; j < pool_size; j++)
			pool[i][j] = InputFunctionCall(&key.columns[i].in, TextDatumGetCString(elements[i * pool_size + j]),
										   key.columns[i].ioparam, -1);
	}
}

/* SELECT of the conditions: $1 … is a bound, and that from $n+1 on another one; from $2n+1 on it is the row. */
static void
prepare_conditions(void)
{
	static const char *const ops[] = {"<", "<=", ">", ">="};
	StringInfoData sql;
	Oid			types[3 * BBM_MAX_KEY_COLUMNS];

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = 0; i < lengthof(ops); i++)
		appendStringInfo(&sql, "(%s), ", bbm_key_compare_sql(&key, "t", ops[i], 1));
	appendStringInfo(&sql, "(%s) FROM (SELECT ", bbm_key_range_sql(&key, "t"));
	for (int i = 0; i < key.n; i++)
	{
		const BbmKeyColumn *column = &key.columns[i];

		types[i] = types[key.n + i] = types[2 * key.n + i] = column->type;
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", 2 * key.n + i + 1);
		if (OidIsValid(column->collation))
			appendStringInfo(&sql, " COLLATE pg_catalog.%s", quote_identifier(get_collation_name(column->collation)));
		appendStringInfo(&sql, " AS %s", quote_identifier(column->name));
	}
	appendStringInfoString(&sql, ") t");
	plan = SPI_prepare(sql.data, 3 * key.n, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare: %s", sql.data);
}

/*
 * (regclass, columns text, index name text, values text[][], cases integer, seed
 * bigint) → which property fails, or NULL
 */
Datum
bbm_test_key_properties(PG_FUNCTION_ARGS)
{
	Datum		result;

	SPI_connect();
	resolve(PG_GETARG_OID(0), text_to_cstring(PG_GETARG_TEXT_PP(1)), text_to_cstring(PG_GETARG_TEXT_PP(2)));
	read_pool(PG_GETARG_ARRAYTYPE_P(3));
	prepare_conditions();
	result = try_all(fcinfo, key_properties, PG_GETARG_INT32(4), PG_GETARG_INT64(5), describe_keys);
	if (!fcinfo->isnull)
		result = SPI_datumTransfer(result, false, -1);
	SPI_finish();
	return result;
}

/* ----------------------------------------------------------------
 * strategy/serial.c, with an integer key
 * ----------------------------------------------------------------
 */

static BbmTarget *target;
static BbmPartition *partition;
static int64 *keys;				/* those of the table, in order */
static int	nkeys;

/* The keys, and what is beside them. */
static int64
draw_number(uint32 number)
{
	int64		found = keys[(number / 3) % nkeys];

	switch (number % 3)
	{
		case 1:
			return found < PG_INT64_MAX ? found + 1 : found;
		case 2:
			return found > PG_INT64_MIN ? found - 1 : found;
		default:
			return found;
	}
}

/* The range from there on, of at most so many keys: what it must be like. */
static BbmRange
expected_range(int64 from, int64 max, int size)
{
	BbmRange	range = {{from}, {max}, 0};

	for (int i = 0; i < nkeys && range.key_count < size; i++)
	{
		if (keys[i] < from || keys[i] > max)
			continue;
		if (++range.key_count == size)
			range.max.number = keys[i];
	}
	return range;
}

static bool
is_range(const BbmRange *range, const BbmRange *expected)
{
	return range->key_count == expected->key_count && range->min.number == expected->min.number &&
		range->max.number == expected->max.number;
}

/*
 * A range begins with the number after the last one, and has so many keys, or
 * all that are left; there is none beyond the end.
 */
static bool
range_follows(const uint32 *n)
{
	MemoryContext old = MemoryContextSwitchTo(case_context);
	BbmBound	after = {draw_number(n[0])};
	BbmBound	max = {draw_number(n[1])};
	bool		follows = n[2] % 2 == 1;
	BbmAllocation allocation = {.after = follows ? &after : NULL, .max = &max, .size = 1 + (int) (n[3] % (nkeys + 2))};
	bool		left = follows ? after.number < max.number : after.number <= max.number;
	BbmRange	range;
	BbmRange	expected;
	bool		found;

	target->migration->min = after;
	found = target->strategy->next_range(target, partition, &allocation, &range);
	MemoryContextSwitchTo(old);
	MemoryContextReset(case_context);
	if (!left)
		return !found;
	expected = expected_range(follows ? after.number + 1 : after.number, max.number, allocation.size);
	return found && is_range(&range, &expected);
}

/* the same of what is committed at once */
static bool
sub_batch_follows(const uint32 *n)
{
	MemoryContext old = MemoryContextSwitchTo(case_context);
	BbmRange	rest = {{draw_number(n[0])}, {draw_number(n[1])}, 0};
	bool		after = n[2] % 2 == 1;
	int			size = 1 + (int) (n[3] % (nkeys + 2));
	BbmRange	range;
	BbmRange	expected;

	MemoryContextSwitchTo(old);
	/* nothing is left of it, which nobody asks for */
	if (after ? rest.min.number >= rest.max.number : rest.min.number > rest.max.number)
		return true;
	MemoryContextSwitchTo(case_context);
	target->strategy->first_sub_batch(target, partition, &rest, after, size, &range);
	MemoryContextSwitchTo(old);
	MemoryContextReset(case_context);
	expected = expected_range(after ? rest.min.number + 1 : rest.min.number, rest.max.number, size);
	return is_range(&range, &expected);
}

static const Property range_properties[] = {
	{"range_follows", range_follows},
	{"sub_batch_follows", sub_batch_follows},
	{0}
};

static char *
describe_range(const uint32 *n)
{
	return psprintf("%s " INT64_FORMAT ", to " INT64_FORMAT ", %u keys", n[2] % 2 == 1 ? "after" : "from",
					draw_number(n[0]), draw_number(n[1]), 1 + n[3] % (nkeys + 2));
}

/*
 * (migration bigint, keys bigint[], cases integer, seed bigint) → which property
 * fails, or NULL.  The keys are those of the migration's table, in order.
 */
Datum
bbm_test_range_properties(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(1);
	Datum		result;

	SPI_connect();
	keys = (int64 *) ARR_DATA_PTR(array);
	nkeys = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	target = bbm_target_open(bbm_migration_by_id(PG_GETARG_INT64(0), CurrentMemoryContext));
	partition = bbm_partition_open(target, target->relid);
	result = try_all(fcinfo, range_properties, PG_GETARG_INT32(2), PG_GETARG_INT64(3), describe_range);
	if (!fcinfo->isnull)
		result = SPI_datumTransfer(result, false, -1);
	bbm_target_close(target);
	SPI_finish();
	return result;
}
