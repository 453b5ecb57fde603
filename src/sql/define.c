/*-------------------------------------------------------------------------
 *
 * define.c
 *		bbm_create, bbm_update, bbm_delete, bbm_alter, bbm_drop.
 *
 * They check everything at the call: what a worker would check when it starts
 * the migration, with the same code, as the role that will own it.  What the
 * row itself shows is checked by its trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/locks.h"
#include "base/txn.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/merge.h"
#include "catalog/migrations.h"
#include "catalog/partitions.h"
#include "engine/event.h"
#include "sql/access.h"
#include "strategy/resolve.h"
#include "strategy/strategy.h"
#include "target/cascade.h"
#include "target/job.h"
#include "target/key.h"
#include "target/lockset.h"
#include "target/null_keys.h"
#include "target/order.h"
#include "target/relation.h"
#include "target/target.h"

PG_FUNCTION_INFO_V1(bbm_create);
PG_FUNCTION_INFO_V1(bbm_update);
PG_FUNCTION_INFO_V1(bbm_delete);
PG_FUNCTION_INFO_V1(bbm_alter);
PG_FUNCTION_INFO_V1(bbm_drop);

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
require(bool given, const char *name)
{
	if (!given)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errdetail("A migration needs it."),
				 errhint("Leave it out for its default, if it has one.")));
}

static void
check_name_is_free(const char *name)
{
	if (bbm_migration_by_name(name, CurrentMemoryContext))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("migration \"%s\" already exists", name),
				 errdetail("Names are unique in a database."),
				 errhint("Choose another name, or bbm_drop that one.")));
}

static char *
required_text_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	require(!PG_ARGISNULL(n), name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static const int *
int_arg(FunctionCallInfo fcinfo, int n)
{
	int		   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(int));
	*value = PG_GETARG_INT32(n);
	return value;
}

static const int64 *
int64_arg(FunctionCallInfo fcinfo, int n)
{
	int64	   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(int64));
	*value = PG_GETARG_INT64(n);
	return value;
}

static const bool *
bool_arg(FunctionCallInfo fcinfo, int n)
{
	bool	   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(bool));
	*value = PG_GETARG_BOOL(n);
	return value;
}

static const ArrayType *
array_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_ARRAYTYPE_P(n);
}

/* The parameters that the defining functions have in common, in this order, after those of their own. */
enum
{
	OPTION_COLUMN, OPTION_BATCH_SIZE, OPTION_SUB_BATCH_SIZE, OPTION_MIN, OPTION_MAX, OPTION_STRATEGY,
	OPTION_WORKERS, OPTION_MAX_ATTEMPTS, OPTION_SHARE_TABLE, OPTION_SYNCHRONOUS, OPTION_START,
	OPTION_TARGET_DURATION, OPTION_MIN_BATCH_SIZE, OPTION_MAX_BATCH_SIZE, OPTION_MAX_BATCH_WAL, OPTION_INDEX,
	OPTION_MIN_KEY, OPTION_MAX_KEY, OPTION_VERIFY, OPTION_CHECK, OPTION_FOLLOW,
	OPTION_ON_ERROR, OPTION_MAX_ERRORS, OPTION_ALLOW_FULL_SCAN, OPTION_SETTINGS, OPTION_ROWS_STAY,
	OPTION_SKIP_NULL_KEYS, OPTION_LAST
};

/*
 * A batch whose size was not given begins with this many keys, and aims at
 * this much time: a batch that waits for its commit aims at more, since it
 * waits that often.
 */
#define BBM_FIRST_SIZE 100
#define BBM_TARGET_US 1000
#define BBM_SYNCHRONOUS_TARGET_US (10 * 1000)

static const Interval *
interval_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_INTERVAL_P(n);
}

/* A bound that is given as a number or as a key; NULL when it is not given. */
static const BbmBound *
bound_arg(FunctionCallInfo fcinfo, int number, int key)
{
	BbmBound   *bound;

	if (PG_ARGISNULL(number) && PG_ARGISNULL(key))
		return NULL;
	bound = palloc0(sizeof(BbmBound));
	if (!PG_ARGISNULL(number))
		bound->number = PG_GETARG_INT64(number);
	if (!PG_ARGISNULL(key))
		bound->key = PointerGetDatum(PG_GETARG_ARRAYTYPE_P_COPY(key));
	return bound;
}

static void
read_options(FunctionCallInfo fcinfo, int first, BbmDefinition *d)
{
	static const struct
	{
		int			option;
		const char *name;
	}			required[] = {
		{OPTION_WORKERS, "workers"}, {OPTION_MAX_ATTEMPTS, "max_attempts"}, {OPTION_SHARE_TABLE, "share_table"},
		{OPTION_SYNCHRONOUS, "synchronous"}, {OPTION_MIN_BATCH_SIZE, "min_batch_size"},
		{OPTION_MAX_BATCH_SIZE, "max_batch_size"}, {OPTION_VERIFY, "verify"}, {OPTION_FOLLOW, "follow"},
		{OPTION_ON_ERROR, "on_error"}, {OPTION_MAX_ERRORS, "max_errors"},
		{OPTION_ALLOW_FULL_SCAN, "allow_full_scan"}, {OPTION_ROWS_STAY, "rows_stay"},
		{OPTION_SKIP_NULL_KEYS, "skip_null_keys"}
	};

	for (int i = 0; i < lengthof(required); i++)
		require(!PG_ARGISNULL(first + required[i].option), required[i].name);
	d->column_name = text_arg(fcinfo, first + OPTION_COLUMN);
	d->batch_size = int_arg(fcinfo, first + OPTION_BATCH_SIZE);
	d->sub_batch_size = int_arg(fcinfo, first + OPTION_SUB_BATCH_SIZE);
	d->min = bound_arg(fcinfo, first + OPTION_MIN, first + OPTION_MIN_KEY);
	d->max = bound_arg(fcinfo, first + OPTION_MAX, first + OPTION_MAX_KEY);
	d->strategy = text_arg(fcinfo, first + OPTION_STRATEGY);
	d->workers = int_arg(fcinfo, first + OPTION_WORKERS);
	d->max_attempts = int_arg(fcinfo, first + OPTION_MAX_ATTEMPTS);
	d->share_table = bool_arg(fcinfo, first + OPTION_SHARE_TABLE);
	d->synchronous = bool_arg(fcinfo, first + OPTION_SYNCHRONOUS);
	d->target_duration = interval_arg(fcinfo, first + OPTION_TARGET_DURATION);
	d->min_batch_size = int_arg(fcinfo, first + OPTION_MIN_BATCH_SIZE);
	d->max_batch_size = int_arg(fcinfo, first + OPTION_MAX_BATCH_SIZE);
	d->max_batch_wal = int64_arg(fcinfo, first + OPTION_MAX_BATCH_WAL);
	d->index_name = text_arg(fcinfo, first + OPTION_INDEX);
	d->verify = bool_arg(fcinfo, first + OPTION_VERIFY);
	d->row_check = text_arg(fcinfo, first + OPTION_CHECK);
	d->follow = bool_arg(fcinfo, first + OPTION_FOLLOW);
	d->on_error = text_arg(fcinfo, first + OPTION_ON_ERROR);
	d->max_errors = int_arg(fcinfo, first + OPTION_MAX_ERRORS);
	d->allow_full_scan = bool_arg(fcinfo, first + OPTION_ALLOW_FULL_SCAN);
	d->settings = array_arg(fcinfo, first + OPTION_SETTINGS);
	d->rows_stay = bool_arg(fcinfo, first + OPTION_ROWS_STAY);
	d->skip_null_keys = bool_arg(fcinfo, first + OPTION_SKIP_NULL_KEYS);
	d->search_path = pstrdup(namespace_search_path);
	bbm_check_max_attempts(d->max_attempts);
}

/* Without a size the batch size is adaptive; with one it is exact. */
static void
default_size(BbmDefinition *d)
{
	static const int first = BBM_FIRST_SIZE;
	static const Interval target = {.time = BBM_TARGET_US};
	static const Interval synchronous_target = {.time = BBM_SYNCHRONOUS_TARGET_US};

	if (d->batch_size == NULL && d->target_duration == NULL)
		d->target_duration = d->synchronous && *d->synchronous ? &synchronous_target : &target;
	if (d->batch_size == NULL)
		d->batch_size = &first;
}

/*
 * The key, where the caller names none: the columns of the primary key, or
 * those of the index.  A composed statement needs no key; it runs block by
 * block.
 */
static void
default_key(BbmDefinition *d, Oid relid)
{
	const BbmStrategy *strategy = bbm_strategy_find(d->strategy);

	if (d->column_name || strategy == NULL)
		return;
	if (strategy->has_key)
		d->column_name = bbm_key_default_columns(relid, d->index_name);
	if (d->operation && d->index_name == NULL && d->min == NULL && d->max == NULL)
		d->column_name = bbm_order_default_key(relid, d->column_name);
	if (d->column_name == NULL && d->operation && d->strategy == NULL && d->index_name == NULL)
	{
		d->strategy = bbm_strategy_block.name;
		strategy = &bbm_strategy_block;
	}
	if (d->column_name == NULL && strategy->table_scans)
		d->column_name = "ctid";
	if (d->column_name == NULL && !strategy->has_key)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column_name must not be null"),
				 errdetail("%s fills a column where it is null.", strategy->name),
				 errhint("Name that column.")));
	if (d->column_name == NULL && d->index_name)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no index \"%s\" of plain columns", get_rel_name(relid), d->index_name),
				 errhint("Name the index without its schema; \\d shows the table's indexes.")));
	if (d->column_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", get_rel_name(relid)),
				 errdetail("Its primary key is the default for the batching key."),
				 errhint("Name the batching key in column_name, or use bbm_update or bbm_delete.")));
}

/* An upper bound that is given is final; one that is determined from the table may move. */
static void
check_follow(const BbmDefinition *d)
{
	if (d->follow && *d->follow && d->max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a migration with an upper bound cannot follow"),
				 errdetail("\"follow\" goes on beyond what is the last key when the migration is defined."),
				 errhint("Leave out the bound, or \"follow\".")));
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
check_bound(const BbmTarget *target, const BbmBound *given, bool by_number, bool by_key)
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
		bbm_key_bound(&target->key, values, (BbmBound *) given);
	}
}

/* min_value and max_value are checked in the row that they are written to. */
static void
check_bounds(const BbmTarget *target, const BbmDefinition *d, bool by_number, bool by_key)
{
	Datum		min[BBM_MAX_KEY_COLUMNS];
	Datum		max[BBM_MAX_KEY_COLUMNS];

	check_bound(target, d->min, by_number, by_key);
	check_bound(target, d->max, by_number, by_key);
	if (!by_key || d->min == NULL || d->max == NULL)
		return;
	bbm_key_values(&target->key, d->min, min);
	bbm_key_values(&target->key, d->max, max);
	if (bbm_key_compare(&target->key, min, max) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("min_key is above max_key"),
				 errdetail("Keys are in the order (%s).", bbm_key_order_list(&target->key)),
				 errhint("Exchange them.")));
}

/* Sets the range to what the table has now, where the caller gave none. */
static void
fix_bounds(BbmTarget *target, BbmDefinition *d)
{
	BbmBound   *low = palloc0(sizeof(BbmBound));
	BbmBound   *high = palloc0(sizeof(BbmBound));

	if (d->min && d->max)
		return;
	if (!bbm_target_bounds(target, low, high))
	{
		/* an empty table: one key, which no row has yet */
		low->number = d->min ? d->min->number : d->max ? d->max->number : target->key.is_integer ? 1 : 0;
		high->number = low->number;
	}
	if (d->min == NULL)
	{
		if (d->max)
			low->number = Min(low->number, d->max->number);
		d->min = low;
	}
	if (d->max == NULL)
	{
		/* all rows may lie below the lowest key asked for; then there is nothing to do */
		high->number = Max(high->number, d->min->number);
		d->max = high;
	}
}

/* The definition as a migration, to be resolved as a worker would resolve it. */
static BbmMigration
as_migration(const BbmDefinition *d, Oid owner)
{
	BbmMigration migration = {
		.name = (char *) d->name, .job = (char *) d->job, .operation = (char *) d->operation,
		.set_clause = (char *) d->set_clause, .filter = (char *) d->filter,
		.row_check = (char *) d->row_check, .table_name = (char *) d->table_name,
		.column_name = (char *) d->column_name, .index_name = (char *) d->index_name,
		.strategy = (char *) d->strategy, .search_path = (char *) d->search_path, .owner = owner,
		.max_attempts = 1, .batch_size = 1, .pass = BBM_FIRST_PASS, .verify = d->verify && *d->verify,
		.follow = d->follow && *d->follow, .allow_key_change = d->allow_key_change && *d->allow_key_change,
		.allow_full_scan = d->allow_full_scan && *d->allow_full_scan,
		.rows_stay = d->rows_stay && *d->rows_stay, .skip_null_keys = d->skip_null_keys && *d->skip_null_keys
	};

	return migration;
}

/* The statement as it is shown to users, for the table as a whole. */
static char *
composed_job(BbmTarget *target)
{
	char	   *name = bbm_table_sql_name(target->relid);
	BbmPartition		root = {.relid = target->relid, .name = name,
		.source = psprintf("%s%s", target->has_partitions ? "" : "ONLY ", name),
	.as_one_table = target->has_partitions};

	return bbm_job_sql(target, &root);
}

/*
 * Checks a definition as the caller, who will be the owner, and writes it.  No
 * check is left for later.
 */
static int64
define(BbmDefinition *d, bool start, bool by_number, bool by_key)
{
	Oid			owner = GetUserId();
	BbmMigration migration = as_migration(d, owner);
	bool		min_found = d->min == NULL;
	bool		max_found = d->max == NULL;
	BbmTarget  *target;
	Oid			relid;
	int			level;
	int64		id;

	(void) bbm_catalog();
	bbm_check_may_log_in(owner);
	check_name_is_free(d->name);
	default_size(d);
	check_follow(d);
	level = bbm_job_settings(&migration);
	relid = bbm_target_table(d->table_name, BBM_WORK_LOCK);
	default_key(d, relid);
	bbm_user_settings_end(level);

	migration = as_migration(d, owner);
	target = bbm_target_open(&migration);
	bbm_target_check_partitions(target);
	check_bounds(target, d, by_number, by_key);
	fix_bounds(target, d);
	bbm_null_keys_warn(target);
	d->key_order = bbm_key_order_to_string(&target->key);
	d->table_name = bbm_table_sql_name(target->relid);
	if (d->operation)
		d->job = composed_job(target);
	relid = target->relid;
	bbm_target_close(target);
	id = bbm_migration_insert(d, owner, start ? BBM_ACTIVE : BBM_PAUSED);
	bbm_migration_defined(id, relid, min_found, max_found);
	if (d->operation)
		ereport(NOTICE, (errmsg("migration \"%s\" runs: %s", d->name, d->job)));
	return id;
}

static int64
define_with_options(FunctionCallInfo fcinfo, int first, BbmDefinition *d)
{
	bool		start = !PG_ARGISNULL(first + OPTION_START) && PG_GETARG_BOOL(first + OPTION_START);
	MemoryContext caller = CurrentMemoryContext;
	int64		id;

	read_options(fcinfo, first, d);
	SPI_connect();
	id = define(d, start, !PG_ARGISNULL(first + OPTION_MIN) || !PG_ARGISNULL(first + OPTION_MAX),
				!PG_ARGISNULL(first + OPTION_MIN_KEY) || !PG_ARGISNULL(first + OPTION_MAX_KEY));
	/* the name as it was resolved must outlive SPI, too */
	d->table_name = MemoryContextStrdup(caller, d->table_name);
	SPI_finish();
	return id;
}

/* bbm_create(name, table_name, job, options, "filter") */
Datum
bbm_create(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {
		.name = required_text_arg(fcinfo, 0, "name"),
		.table_name = required_text_arg(fcinfo, 1, "table_name"),
		.job = required_text_arg(fcinfo, 2, "job"),
		.filter = text_arg(fcinfo, 3 + OPTION_LAST)
	};

	PG_RETURN_INT64(define_with_options(fcinfo, 3, &d));
}

/* bbm_update(name, table_name, set, where, options, allow_key_change) */
Datum
bbm_update(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {
		.name = required_text_arg(fcinfo, 0, "name"),
		.table_name = required_text_arg(fcinfo, 1, "table_name"),
		.operation = "update",
		.set_clause = required_text_arg(fcinfo, 2, "set"),
		.filter = text_arg(fcinfo, 3),
		.allow_key_change = bool_arg(fcinfo, 4 + OPTION_LAST)
	};

	PG_RETURN_INT64(define_with_options(fcinfo, 4, &d));
}

/* bbm_delete(name, table_name, where, options) */
Datum
bbm_delete(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {
		.name = required_text_arg(fcinfo, 0, "name"),
		.table_name = required_text_arg(fcinfo, 1, "table_name"),
		.operation = "delete",
		.filter = required_text_arg(fcinfo, 2, "filter")
	};
	int64		id = define_with_options(fcinfo, 3, &d);
	char	   *cascades;

	/* by the name that was found, whatever search_path it was found with */
	cascades = bbm_statement_cascades(bbm_target_table(d.table_name, BBM_READ_LOCK));
	if (cascades)
		ereport(NOTICE,
				(errmsg("rows of other tables go with those that migration \"%s\" deletes", d.name),
				 errdetail("%s", cascades)));
	PG_RETURN_INT64(id);
}

/* The order of bbm_alter's parameters. */
enum
{
	ALTER_NAME, ALTER_NEW_NAME, ALTER_JOB, ALTER_BATCH_SIZE, ALTER_SUB_BATCH_SIZE, ALTER_MAX, ALTER_WORKERS,
	ALTER_MAX_ATTEMPTS, ALTER_SHARE_TABLE, ALTER_SYNCHRONOUS, ALTER_OWNER, ALTER_TARGET_DURATION,
	ALTER_MIN_BATCH_SIZE, ALTER_MAX_BATCH_SIZE, ALTER_MAX_BATCH_WAL, ALTER_INDEX, ALTER_VERIFY, ALTER_FOLLOW,
	ALTER_ON_ERROR, ALTER_MAX_ERRORS, ALTER_ALLOW_FULL_SCAN, ALTER_SETTINGS, ALTER_ROWS_STAY, ALTER_RESTART,
	ALTER_SKIP_NULL_KEYS
};

/* A new job is checked as bbm_create checks one, as the role that will run it. */
static void
check_new_job(const BbmMigration *old, const BbmDefinition *d)
{
	BbmMigration migration = *old;

	if (old->owner != GetUserId() || d->owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the job of migration \"%s\" can only be changed by its owner", old->name),
				 errdetail("It is checked with the rights of the role that will run it."),
				 errhint("SET ROLE to the owner first.")));
	if (old->operation)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the job of migration \"%s\" cannot be changed", old->name),
				 errdetail("bbm_%s composed it from its arguments.", old->operation),
				 errhint("Define another migration.")));
	migration.job = (char *) d->job;
	migration.search_path = (char *) d->search_path;
	bbm_target_close(bbm_target_open(&migration));
}

/* For a role other than the owner a worker makes this check. */
static void
check_new_index(const BbmMigration *old, const char *index_name)
{
	BbmMigration migration = *old;

	migration.index_name = (char *) index_name;
	bbm_target_close(bbm_target_open(&migration));
}

/*
 * Restarts the migration from the first key, with the table that has the
 * migration's table name now: the record of what was done is deleted.  Caller
 * has bbm_migration_lock, so no job is claimed until we commit; a job in
 * flight is cancelled, and the DELETE of its row waits for it.  If somebody
 * changes the table meanwhile, the first claim detects it, as after
 * bbm_create.
 */
static void
restart(const BbmMigration *old, BbmStatus status)
{
	BbmMigration migration = *old;
	BbmDefinition d = {.min = old->min_found ? NULL : &old->min, .max = old->max_found ? NULL : &old->max};
	BbmTarget  *target;

	if (old->owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("migration \"%s\" can be restarted only by its owner", old->name),
				 errdetail("The table is checked with the rights of the role that will run it."),
				 errhint("SET ROLE to the owner first.")));
	(void) bbm_cancel_running(old->id);
	bbm_jobs_forget(old->id);
	bbm_partitions_forget(old->id);
	bbm_errors_forget(old->id);
	migration.table_oid = InvalidOid;
	migration.key_order = NULL;
	migration.partition_order = BBM_ORDER_UNDECIDED;
	migration.pass = BBM_FIRST_PASS;
	target = bbm_target_open(&migration);
	bbm_target_check_partitions(target);
	/* a bound of another kind of key is void */
	if (target->key.is_integer == (DatumGetPointer(old->max.key) != (Datum) 0))
		d.min = d.max = NULL;
	fix_bounds(target, &d);
	bbm_migration_restart(old->id, target->relid, old->operation ? composed_job(target) : NULL, d.min, d.max,
						  bbm_key_order_to_string(&target->key));
	bbm_report_event(old->id, old->name, "restarted", status == BBM_RUNNING ? BBM_ACTIVE : status, old->owner,
					 psprintf("with table %s, OID %u", bbm_table_sql_name(target->relid), target->relid));
	bbm_target_close(target);
}

Datum
bbm_alter(PG_FUNCTION_ARGS)
{
	char	   *name = text_arg(fcinfo, ALTER_NAME);
	BbmDefinition d = {
		.name = text_arg(fcinfo, ALTER_NEW_NAME),
		.job = text_arg(fcinfo, ALTER_JOB),
		.batch_size = int_arg(fcinfo, ALTER_BATCH_SIZE),
		.sub_batch_size = int_arg(fcinfo, ALTER_SUB_BATCH_SIZE),
		.target_duration = interval_arg(fcinfo, ALTER_TARGET_DURATION),
		/* a size without a target duration is exact, as in bbm_create */
		.fixed_size = !PG_ARGISNULL(ALTER_BATCH_SIZE) && PG_ARGISNULL(ALTER_TARGET_DURATION),
		.min_batch_size = int_arg(fcinfo, ALTER_MIN_BATCH_SIZE),
		.max_batch_size = int_arg(fcinfo, ALTER_MAX_BATCH_SIZE),
		.max_batch_wal = int64_arg(fcinfo, ALTER_MAX_BATCH_WAL),
		.index_name = text_arg(fcinfo, ALTER_INDEX),
		.verify = bool_arg(fcinfo, ALTER_VERIFY),
		.follow = bool_arg(fcinfo, ALTER_FOLLOW),
		.on_error = text_arg(fcinfo, ALTER_ON_ERROR),
		.max_errors = int_arg(fcinfo, ALTER_MAX_ERRORS),
		.allow_full_scan = bool_arg(fcinfo, ALTER_ALLOW_FULL_SCAN),
		.workers = int_arg(fcinfo, ALTER_WORKERS),
		.max_attempts = int_arg(fcinfo, ALTER_MAX_ATTEMPTS),
		.share_table = bool_arg(fcinfo, ALTER_SHARE_TABLE),
		.synchronous = bool_arg(fcinfo, ALTER_SYNCHRONOUS),
		.owner = PG_ARGISNULL(ALTER_OWNER) ? NULL : NameStr(*PG_GETARG_NAME(ALTER_OWNER)),
		.settings = array_arg(fcinfo, ALTER_SETTINGS),
		.rows_stay = bool_arg(fcinfo, ALTER_ROWS_STAY),
		.skip_null_keys = bool_arg(fcinfo, ALTER_SKIP_NULL_KEYS)
	};
	bool		again = !PG_ARGISNULL(ALTER_RESTART) && PG_GETARG_BOOL(ALTER_RESTART);
	BbmMigration *migration;
	BbmStatus	status;
	BbmBound	max = {0};

	if (name == NULL)
		bbm_must_not_be_null("name");
	if (!PG_ARGISNULL(ALTER_MAX))
	{
		max.number = PG_GETARG_INT64(ALTER_MAX);
		d.max = &max;
	}
	SPI_connect();
	migration = bbm_get_migration(name);
	/* whichever table has the name now */
	if (again)
		migration->table_oid = InvalidOid;
	bbm_check_max_attempts(d.max_attempts);
	if (d.name && strcmp(d.name, name) != 0)
		check_name_is_free(d.name);
	/* from here on nobody else can change it */
	if (!bbm_migration_lock(migration->id, &status))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("migration \"%s\" does not exist any more", name),
				 errdetail("Another session has dropped or replaced it meanwhile."),
				 errhint("bbm_status() lists those you may see.")));
	if (status == BBM_FINISHED &&
		(d.job || d.batch_size || d.sub_batch_size || d.max || d.workers || d.max_attempts ||
		 d.share_table || d.synchronous || d.target_duration || d.min_batch_size || d.max_batch_size ||
		 d.max_batch_wal || d.index_name || d.verify || d.follow || d.on_error || d.max_errors ||
		 d.allow_full_scan || d.settings || d.rows_stay || d.skip_null_keys || again))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is finished and stays so", name),
				 errdetail("A change would have no effect."),
				 errhint("Define another one for what is still to be done.")));
	if (d.follow && *d.follow)
		bbm_check_follow(migration->strategy);
	if (d.owner)
		bbm_check_may_log_in(get_role_oid(d.owner, false));
	if (d.job)
	{
		d.search_path = pstrdup(namespace_search_path);
		check_new_job(migration, &d);
	}
	if (d.index_name && migration->owner == GetUserId())
		check_new_index(migration, d.index_name);
	bbm_migration_alter(migration->id, &d);
	if (again)
		restart(bbm_migration_by_id(migration->id, CurrentMemoryContext), status);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
bbm_drop(PG_FUNCTION_ARGS)
{
	char	   *name = text_arg(fcinfo, 0);
	bool		if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		exists;

	if (name == NULL)
		bbm_must_not_be_null("name");
	SPI_connect();
	exists = bbm_migration_by_name(name, CurrentMemoryContext) != NULL;
	if (!exists && if_exists)
		ereport(NOTICE, (errmsg("migration \"%s\" does not exist, skipping", name)));
	else
	{
		int64		id = bbm_get_migration(name)->id;

		/* its trigger cancels the batches in flight, which the DELETE then waits for */
		bbm_ours_begin();
		bbm_migration_delete(id);
		bbm_ours_end();
	}
	SPI_finish();
	PG_RETURN_BOOL(exists);
}
