/*-------------------------------------------------------------------------
 *
 * options.c
 *		The columns of a migration: what each is, who sets it, what it may be.
 *
 * NOTES
 *	  This is the only list of them in C.  The functions read their arguments
 *	  by it and write the row, the guards check the row by it and decide who
 *	  may change what, and the row is read into a BbmMigration by it.  To add
 *	  an option is to add a row here (and a field, if C is to know it), and the
 *	  column with its comment and the parameters to the install script, which
 *	  sql/options.sql compares with this list.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/options.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/guc.h"

/* ----------------------------------------------------------------
 * Reading a value into its field
 * ----------------------------------------------------------------
 */

static int64
number(Datum value, Oid type)
{
	return type == INT2OID ? DatumGetInt16(value) : type == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value);
}

/*
 * The guards enforce the bounds for users, but the owner of the tables can
 * bypass them.  An impossible number must not make a process fail or loop
 * forever.
 */
static int64
bounded(const BbmOption *option, Datum value, bool isnull)
{
	int64		n = isnull ? 0 : number(value, option->type);

	if ((isnull && !(option->flags & BBM_NOT_NULL)) || option->min == option->max)
		return n;
	return Max(Min(n, option->max), option->min);
}

static void
read_int(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(int *) field = (int) bounded(option, value, isnull);
}

static void
read_int64(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(int64 *) field = bounded(option, value, isnull);
}

/* A number with a meaning of its own, which must not become another one. */
static void
read_code(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(int *) field = isnull ? 0 : (int) number(value, option->type);
}

/* Negative when NULL. */
static void
read_share(const BbmOption *option, void *field, Datum value, bool isnull)
{
	double		share = isnull ? -1 : DatumGetFloat8(value);

	/* written this way because of NaN */
	*(double *) field = share >= 0 ? Min(share, 1) : -1;
}

static void
read_bool(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(bool *) field = !isnull && DatumGetBool(value);
}

static void
read_set(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(bool *) field = !isnull;
}

/* Negative when it is not known. */
static void
read_total(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(int64 *) field = isnull ? -1 : bounded(option, value, false);
}

static void
read_text(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(char **) field = isnull ? NULL : TextDatumGetCString(value);
}

static void
read_oid(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(Oid *) field = isnull ? InvalidOid : DatumGetObjectId(value);
}

static void
read_array(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(Datum *) field = isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

static void
read_settings(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(const BbmOverrides **) field = isnull ? NULL : bbm_overrides_read(DatumGetArrayTypeP(value));
}

/* The first when NULL; also for any other word, which an INSERT may contain. */
static void
read_word(const BbmOption *option, void *field, Datum value, bool isnull)
{
	char	   *word = isnull ? NULL : TextDatumGetCString(value);

	*(int *) field = 0;
	for (int i = 0; word && option->words[i]; i++)
	{
		if (strcmp(word, option->words[i]) == 0)
			*(int *) field = i;
	}
}

static void
read_verifies(const BbmOption *option, void *field, Datum value, bool isnull)
{
	*(bool *) field = !isnull && strcmp(TextDatumGetCString(value), "verify") == 0;
}

/* In milliseconds, a day at most; 0 when NULL. */
static void
read_duration(const BbmOption *option, void *field, Datum value, bool isnull)
{
	Interval   *interval = isnull ? NULL : DatumGetIntervalP(value);
	double		ms = isnull ? 0 : interval->time / 1000.0 + (interval->day + 30.0 * interval->month) * 86400000.0;

	/* written this way because of NaN */
	*(double *) field = ms > 0 ? Min(ms, 86400000.0) : 0;
}

/* ----------------------------------------------------------------
 * The table
 * ----------------------------------------------------------------
 */

#define FIELD(kind, name) read_##kind, offsetof(BbmMigration, name)

/* by BbmOnError, BbmPartitionOrder */
static const char *const on_error_words[] = {"fail", "split", "skip", NULL};
static const char *const partition_order_words[] = {"", "as_one_table", "by_filter", "by_key", "rows_stay", NULL};
static const char *const operation_words[] = {"update", "delete", NULL};

const BbmOption bbm_options[] = {
	{"id", INT8OID, BBM_CONTROL | BBM_NOT_NULL, FIELD(int64, id)},
	{"name", TEXTOID, BBM_CONTROL | BBM_REQUIRED, FIELD(text, name)},
	{"created_at", TIMESTAMPTZOID, BBM_NOT_NULL, FIELD(int64, changed_at)},
	{"updated_at", TIMESTAMPTZOID, 0, FIELD(int64, updated_at)},
	{"started_at", TIMESTAMPTZOID, 0, FIELD(set, was_started)},
	{"finished_at", TIMESTAMPTZOID, 0, FIELD(set, was_done)},
	{"min_value", INT8OID, BBM_WHAT | BBM_NOT_NULL | BBM_FIXED | BBM_DERIVED, FIELD(int64, min.number)},
	{"max_value", INT8OID, BBM_WHAT | BBM_NOT_NULL | BBM_DERIVED, FIELD(int64, max.number)},
	{"batch_size", INT4OID, BBM_HOW | BBM_NOT_NULL, FIELD(int, batch_size), 1, PG_INT32_MAX, NULL,
	"A batch has at least one key.", "Use a number from 1 to 2147483647."},
	{"status", INT2OID, BBM_CONTROL | BBM_NOT_NULL, FIELD(code, status), BBM_PAUSED, BBM_RUNNING, NULL,
		"The codes are 0 paused, 1 active, 2 finished, 3 failed, 4 running.",
	"Set 1 to start a migration, 0 to pause it."},
	{"job_signature_name", TEXTOID, BBM_WHAT | BBM_REQUIRED, FIELD(text, job), .parameter = "job"},
	{"table_name", TEXTOID, BBM_WHAT | BBM_REQUIRED, FIELD(text, table_name)},
	{"column_name", TEXTOID, BBM_WHAT | BBM_NOT_NULL | BBM_FIXED | BBM_DERIVED, FIELD(text, column_name)},
	{"failure_error_code", INT2OID, 0},
	{"batching_strategy", TEXTOID, BBM_WHAT | BBM_DERIVED, FIELD(text, strategy)},
	{"total_tuple_count", INT8OID, 0, FIELD(total, total), 0, PG_INT64_MAX, NULL,
	"It is how many rows the table is taken to have.", "Leave it NULL, and a worker estimates it."},
	{"sub_batch_size", INT4OID, BBM_HOW | BBM_NOT_NULL, FIELD(int, sub_batch_size), 0, PG_INT32_MAX, NULL,
	"It is how many keys a commit has.", "Use a number from 1 to 2147483647, or 0 for one commit a job."},
	{"workers", INT4OID, BBM_HOW | BBM_REQUIRED, FIELD(int, workers), 1, BBM_MAX_WORKERS_PER_MIGRATION, NULL,
		"It is how many jobs of the migration may run at once.",
	"Use a number from 1 to 256; bbm.max_workers limits the whole server."},
	{"max_attempts", INT2OID, BBM_HOW | BBM_REQUIRED, FIELD(int, max_attempts), 1, BBM_MAX_ATTEMPTS, NULL,
	"It is how often a job may be executed before the migration fails.", "Use a number from 1 to 100."},
	{"priority", INT2OID, BBM_HOW | BBM_REQUIRED, NULL, 0, -100, 100, NULL,
	"Migrations of a higher priority come first.", "Use a number from -100 to 100; 0 is the default."},
	{"share_table", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, share_table)},
	{"synchronous", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, synchronous)},
	{"allow_full_scan", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, allow_full_scan)},
	{"job_search_path", TEXTOID, BBM_WHAT | BBM_NOT_NULL, FIELD(text, search_path)},
	{"job_settings", TEXTARRAYOID, BBM_WHAT | BBM_NOT_NULL, FIELD(array, job_settings)},
	{"min_key", TEXTARRAYOID, BBM_WHAT | BBM_FIXED | BBM_DERIVED, FIELD(array, min.key)},
	{"max_key", TEXTARRAYOID, BBM_WHAT | BBM_DERIVED, FIELD(array, max.key)},
	{"index_name", TEXTOID, BBM_HOW, FIELD(text, index_name)},
	{"key_order", TEXTOID, BBM_FIXED, FIELD(text, key_order)},
	{"min_found", BOOLOID, BBM_NOT_NULL, FIELD(bool, min_found)},
	{"max_found", BOOLOID, BBM_NOT_NULL, FIELD(bool, max_found)},
	{"operation", TEXTOID, BBM_WHAT | BBM_FIXED, FIELD(text, operation), .words = operation_words,
		.detail = "It is what bbm_update or bbm_delete has composed.",
	.hint = "Leave it NULL, and write the statement into job_signature_name."},
	{"set_clause", TEXTOID, BBM_WHAT | BBM_FIXED, FIELD(text, set_clause), .parameter = "set"},
	{"filter", TEXTOID, BBM_WHAT | BBM_FIXED, FIELD(text, filter)},
	{"row_check", TEXTOID, BBM_WHAT, FIELD(text, row_check)},
	{"verify", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, verify)},
	{"follow", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, follow)},
	{"allow_key_change", BOOLOID, BBM_HOW | BBM_NOT_NULL, FIELD(bool, allow_key_change)},
	{"target_duration", INTERVALOID, BBM_HOW, FIELD(duration, target_ms),
		.detail = "It is what a batch is to take.",
	.hint = "Use an interval from 1 millisecond to 1 day, or NULL for batches of exactly batch_size keys."},
	{"min_batch_size", INT4OID, BBM_HOW | BBM_REQUIRED, FIELD(int, min_batch_size), 1, PG_INT32_MAX, NULL,
	"A batch has at least one key, and no more than max_batch_size.", "Use a number from 1 to max_batch_size."},
	{"max_batch_size", INT4OID, BBM_HOW | BBM_REQUIRED, FIELD(int, max_batch_size), 1, PG_INT32_MAX, NULL,
	"A batch has at least one key, and no less than min_batch_size.", "Use a number from min_batch_size to 2147483647."},
	{"max_batch_wal", INT8OID, BBM_HOW, FIELD(int64, max_batch_wal), 1, PG_INT64_MAX, NULL,
	"It is the WAL that a batch may write, in bytes.", "Use a positive number, or NULL for no limit."},
	{"on_error", TEXTOID, BBM_HOW | BBM_REQUIRED, FIELD(word, on_error), .words = on_error_words,
	.detail = "It is what becomes of a job that has used up its attempts.", .hint = "Use fail, split or skip."},
	{"max_errors", INT4OID, BBM_HOW | BBM_REQUIRED, FIELD(int, max_errors), 1, PG_INT32_MAX, NULL,
	"It is how many rows or ranges may be quarantined.", "Use a number from 1 to 2147483647."},
	{"max_failed_share", FLOAT8OID, BBM_HOW, FIELD(share, max_failed_share), 0, 1, NULL,
		"It is the share of the last jobs that may fail before the migration is paused.",
	"Use a number from 0 to 1, as 0.5 for half of them, or NULL for no limit."},
	{"finish_by", TIMESTAMPTZOID, BBM_HOW},
	{"rows_stay", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, rows_stay)},
	{"skip_null_keys", BOOLOID, BBM_HOW | BBM_REQUIRED, FIELD(bool, skip_null_keys)},
	{"partition_order", TEXTOID, 0, FIELD(word, partition_order), .words = partition_order_words},
	{"followed", BOOLOID, BBM_NOT_NULL, FIELD(bool, followed)},
	{"verify_max_value", INT8OID, 0},
	{"verify_max_key", TEXTARRAYOID, 0},
	{"phase", TEXTOID, BBM_NOT_NULL, FIELD(verifies, phase.verifies)},
	{"round", INT4OID, BBM_NOT_NULL, FIELD(int, phase.round), 1, PG_INT32_MAX},
	{"owner", NAMEOID, BBM_CONTROL},
	{"owner_oid", OIDOID, 0, FIELD(oid, owner)},
	{"origin", TEXTOID, 0, FIELD(text, origin)},
	{"restored", BOOLOID, BBM_NOT_NULL, FIELD(bool, restored)},
	{"table_oid", OIDOID, 0, FIELD(oid, table_oid)},
	{"error_sqlstate", TEXTOID, 0},
	{"error_message", TEXTOID, 0},
	{"error_detail", TEXTOID, 0},
	{"error_hint", TEXTOID, 0},
	{"settings", TEXTARRAYOID, BBM_HOW, FIELD(settings, overrides)},
	{"shard_record", TEXTOID, 0, FIELD(text, shard_record)},
	{"shard_id", INT8OID, 0, FIELD(int64, shard_id)},
	{"shard_epoch", INT8OID, 0, FIELD(int64, shard_epoch)},
	{"unreached_nodes", TEXTOID, 0, FIELD(text, unreached_nodes)},
	{NULL}
};

StaticAssertDecl(lengthof(bbm_options) <= BBM_MAX_OPTIONS, "a definition has room for all columns");
StaticAssertDecl(sizeof(BbmOnError) == sizeof(int) && sizeof(BbmStatus) == sizeof(int) &&
				 sizeof(BbmPartitionOrder) == sizeof(int), "codes are read as int");

/* NULL when it is not a column of ours. */
const BbmOption *
bbm_option_of_column(const char *column)
{
	bbm_each_option(option)
	{
		if (strcmp(option->column, column) == 0)
			return option;
	}
	return NULL;
}

const char *
bbm_option_parameter(const BbmOption *option)
{
	return option->parameter ? option->parameter : option->column;
}

/* NULL when it is not an option. */
const BbmOption *
bbm_option_of_parameter(const char *parameter)
{
	bbm_each_option(option)
	{
		if ((option->flags & BBM_USERS) && strcmp(bbm_option_parameter(option), parameter) == 0)
			return option;
	}
	return NULL;
}

/* The names of all columns, in their order here, for a SELECT. */
char *
bbm_option_names(void)
{
	StringInfoData names;

	initStringInfo(&names);
	bbm_each_option(option)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", option->column);
	return names.data;
}

/* NULL when it is not decided yet. */
const char *
bbm_partition_order_word(BbmPartitionOrder order)
{
	return order == BBM_ORDER_UNDECIDED ? NULL : partition_order_words[order];
}

/* ----------------------------------------------------------------
 * What a value may be
 * ----------------------------------------------------------------
 */

/* From 1 millisecond to 1 day. */
static bool
is_duration(const Interval *value)
{
	return value->month == 0 && value->day >= 0 && value->day <= 1 && value->time >= 0 &&
		value->time <= (1 - value->day) * USECS_PER_DAY && (value->day != 0 || value->time >= 1000);
}

static bool
is_among(const char *word, const char *const *words)
{
	while (*words && strcmp(word, *words) != 0)
		words++;
	return *words != NULL;
}

static char *
value_text(Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

/* Raises the error for a value that the option may not have. */
static void
refuse(const BbmOption *option, Datum value, Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: %s", option->column, value_text(value, type)),
			 errdetail("%s", option->detail),
			 errhint("%s", option->hint)));
}

/* Raises an error when this alone shows that the option cannot have the value, which is not NULL. */
void
bbm_option_check(const BbmOption *option, Datum value, Oid type)
{
	bool		allowed;

	if (option->detail == NULL)
		return;
	if (option->words)
		allowed = is_among(TextDatumGetCString(value), option->words);
	else if (type == INTERVALOID)
		allowed = is_duration(DatumGetIntervalP(value));
	else if (type == FLOAT8OID)
		allowed = DatumGetFloat8(value) >= option->min && DatumGetFloat8(value) <= option->max;
	else
		allowed = number(value, type) >= option->min && number(value, type) <= option->max;
	if (!allowed)
		refuse(option, value, type);
}

/* The value as text. */
char *
bbm_option_value(const BbmOption *option, Datum value)
{
	return value_text(value, option->type);
}

/* ----------------------------------------------------------------
 * Definitions
 * ----------------------------------------------------------------
 */

static int
position(const char *column)
{
	const BbmOption *option = bbm_option_of_column(column);

	if (option == NULL)
		elog(ERROR, "column \"%s\" is not known", column);
	return option - bbm_options;
}

void
bbm_definition_set(BbmDefinition *d, const char *column, Datum value)
{
	int			i = position(column);

	d->values[i] = value;
	d->given[i] = true;
	d->nulls[i] = false;
}

/* NULL does nothing. */
void
bbm_definition_set_text(BbmDefinition *d, const char *column, const char *value)
{
	if (value)
		bbm_definition_set(d, column, CStringGetTextDatum(value));
}

void
bbm_definition_set_null(BbmDefinition *d, const char *column)
{
	bbm_definition_set(d, column, (Datum) 0);
	d->nulls[position(column)] = true;
}

void
bbm_definition_set_bound(BbmDefinition *d, const char *number, const char *key, const BbmBound *bound)
{
	bbm_definition_set(d, number, Int64GetDatum(bound->number));
	if (DatumGetPointer(bound->key))
		bbm_definition_set(d, key, bound->key);
}

void
bbm_definition_unset(BbmDefinition *d, const char *column)
{
	d->given[position(column)] = false;
}

bool
bbm_definition_has(const BbmDefinition *d, const char *column)
{
	int			i = position(column);

	return d->given[i] && !d->nulls[i];
}

/* (Datum) 0 when it is not given. */
Datum
bbm_definition_get(const BbmDefinition *d, const char *column)
{
	return bbm_definition_has(d, column) ? d->values[position(column)] : (Datum) 0;
}

/* What is not given is NULL, zero or its lowest value. */
BbmMigration *
bbm_definition_migration(const BbmDefinition *d, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	BbmMigration *m = palloc0(sizeof(BbmMigration));

	bbm_each_option(option)
	{
		int			i = option - bbm_options;

		if (option->read)
			option->read(option, (char *) m + option->field, d->values[i], !d->given[i] || d->nulls[i]);
	}
	MemoryContextSwitchTo(old);
	m->max_batch_size = Max(m->max_batch_size, m->min_batch_size);
	if (m->updated_at != 0)
		m->changed_at = m->updated_at;
	m->unlimited = superuser_arg(m->owner);
	return m;
}

/* A copy, with all that it refers to, in the current memory context. */
BbmMigration *
bbm_migration_copy(const BbmMigration *migration)
{
	BbmMigration *copy = palloc(sizeof(BbmMigration));

	*copy = *migration;
	bbm_each_option(option)
	{
		void	   *field = (char *) copy + option->field;

		if (option->read == read_text && *(char **) field)
			*(char **) field = pstrdup(*(char **) field);
		else if (option->read == read_array && DatumGetPointer(*(Datum *) field))
			*(Datum *) field = PointerGetDatum(PG_DETOAST_DATUM_COPY(*(Datum *) field));
	}
	copy->overrides = bbm_overrides_copy(migration->overrides);
	return copy;
}
