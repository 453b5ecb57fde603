/*-------------------------------------------------------------------------
 *
 * migrations.c
 *		SQL over batched_background_migrations and bbm_events.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/migrations.h"

#include "miscadmin.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/locks.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/sql.h"

#define MIGRATION_COLUMNS \
	"id, name, status::bigint, updated_at, min_value, max_value, batch_size::bigint, " \
	"sub_batch_size::bigint, job_signature_name, table_name, column_name, batching_strategy, " \
	"workers::bigint, max_attempts::bigint, share_table, synchronous, job_search_path, " \
	"owner_oid, origin, table_oid, total_tuple_count IS NOT NULL, min_key, max_key, index_name, operation, " \
	"set_clause, filter, row_check, verify, follow, allow_key_change, pass::bigint, " \
	"(extract(epoch FROM target_duration) * 1000)::float8, min_batch_size::bigint, max_batch_size::bigint, " \
	"max_batch_wal, on_error, max_errors::bigint, allow_full_scan, settings, key_order, finished_at IS NOT NULL, " \
	"rows_stay, partition_order, min_found, max_found, followed, skip_null_keys, coalesce(updated_at, created_at), " \
	"started_at IS NOT NULL"

static Oid
get_oid(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(datum);
}

static bool
get_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return !isnull && DatumGetBool(datum);
}

/* 0 when NULL. */
static double
get_float(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return isnull ? 0 : DatumGetFloat8(datum);
}

/* A trigger allows no other value. */
static BbmOnError
on_error_of(const char *word)
{
	return strcmp(word, "split") == 0 ? BBM_ON_ERROR_BISECT :
		strcmp(word, "skip") == 0 ? BBM_ON_ERROR_SKIP : BBM_ON_ERROR_FAIL;
}

static const char *const partition_orders[] = {NULL, "as_one_table", "by_filter", "by_key", "rows_stay"};

/* Undecided when NULL; also for any other value, which an INSERT may contain. */
static BbmPartitionOrder
partition_order_of(const char *word)
{
	for (int i = 1; word && i < lengthof(partition_orders); i++)
	{
		if (strcmp(word, partition_orders[i]) == 0)
			return (BbmPartitionOrder) i;
	}
	return BBM_ORDER_UNDECIDED;
}

/* NULL when NULL. */
static const BbmOverrides *
get_overrides(uint64 row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return isnull ? NULL : bbm_overrides_read(DatumGetArrayTypeP(datum), context);
}

/*
 * The guards enforce this for users, but the owner of the tables can bypass
 * them.  An impossible number must not make a process fail or loop forever.
 */
static void
hold_to_bounds(BbmMigration *m)
{
	m->batch_size = Max(m->batch_size, 1);
	m->sub_batch_size = Max(m->sub_batch_size, 0);
	m->workers = Min(Max(m->workers, 1), BBM_MAX_WORKERS_PER_MIGRATION);
	m->max_attempts = Min(Max(m->max_attempts, 1), BBM_MAX_ATTEMPTS);
	m->min_batch_size = Max(m->min_batch_size, 1);
	m->max_batch_size = Max(m->max_batch_size, m->min_batch_size);
	m->max_batch_wal = Max(m->max_batch_wal, 0);
	m->max_errors = Max(m->max_errors, 1);
	m->pass = Max(m->pass, BBM_FIRST_PASS);
	/* written this way because of NaN */
	m->target_ms = m->target_ms > 0 ? Min(m->target_ms, 86400000.0) : 0;
}

/* Reads a row of MIGRATION_COLUMNS. */
static BbmMigration *
read_migration(uint64 row, MemoryContext context)
{
	BbmMigration *m = MemoryContextAllocZero(context, sizeof(BbmMigration));

	m->id = bbm_sql_int64(row, 1);
	m->name = bbm_sql_text(row, 2, context);
	m->status = (BbmStatus) bbm_sql_int64(row, 3);
	m->updated_at = bbm_sql_int64(row, 4);
	m->min.number = bbm_sql_int64(row, 5);
	m->max.number = bbm_sql_int64(row, 6);
	m->batch_size = bbm_sql_int64(row, 7);
	m->sub_batch_size = bbm_sql_int64(row, 8);
	m->job = bbm_sql_text(row, 9, context);
	m->table_name = bbm_sql_text(row, 10, context);
	m->column_name = bbm_sql_text(row, 11, context);
	m->strategy = bbm_sql_text(row, 12, context);
	m->workers = bbm_sql_int64(row, 13);
	m->max_attempts = bbm_sql_int64(row, 14);
	m->share_table = get_bool(row, 15);
	m->synchronous = get_bool(row, 16);
	m->search_path = bbm_sql_text(row, 17, context);
	m->owner = get_oid(row, 18);
	m->origin = bbm_sql_text(row, 19, context);
	/* in another database the OID is another table's, or nobody's */
	if (m->origin && strcmp(m->origin, bbm_origin()) == 0)
		m->table_oid = get_oid(row, 20);
	m->counted = get_bool(row, 21);
	m->min.key = bbm_sql_array(row, 22, context);
	m->max.key = bbm_sql_array(row, 23, context);
	m->index_name = bbm_sql_text(row, 24, context);
	m->operation = bbm_sql_text(row, 25, context);
	m->set_clause = bbm_sql_text(row, 26, context);
	m->filter = bbm_sql_text(row, 27, context);
	m->row_check = bbm_sql_text(row, 28, context);
	m->verify = get_bool(row, 29);
	m->follow = get_bool(row, 30);
	m->allow_key_change = get_bool(row, 31);
	m->pass = bbm_sql_int64(row, 32);
	m->target_ms = get_float(row, 33);
	m->min_batch_size = bbm_sql_int64(row, 34);
	m->max_batch_size = bbm_sql_int64(row, 35);
	m->max_batch_wal = bbm_sql_int64(row, 36);
	m->on_error = on_error_of(bbm_sql_text(row, 37, CurrentMemoryContext));
	m->max_errors = bbm_sql_int64(row, 38);
	m->allow_full_scan = get_bool(row, 39);
	m->overrides = get_overrides(row, 40, context);
	m->key_order = bbm_sql_text(row, 41, context);
	m->was_done = get_bool(row, 42);
	m->rows_stay = get_bool(row, 43);
	m->partition_order = partition_order_of(bbm_sql_text(row, 44, CurrentMemoryContext));
	m->min_found = get_bool(row, 45);
	m->max_found = get_bool(row, 46);
	m->unlimited = superuser_arg(m->owner);
	m->followed = get_bool(row, 47);
	m->skip_null_keys = get_bool(row, 48);
	m->changed_at = bbm_sql_int64(row, 49);
	m->was_begun = get_bool(row, 50);
	hold_to_bounds(m);
	return m;
}

/* NULL when there is none. */
BbmMigration *
bbm_migration_by_name(const char *name, MemoryContext context)
{
	static BbmSql sql = {
		"SELECT " MIGRATION_COLUMNS " FROM @.batched_background_migrations WHERE name = $1",
		1, {TEXTOID}
	};
	Datum		values[] = {CStringGetTextDatum(name)};

	bbm_sql_run(&sql, values, NULL, false);
	return SPI_processed == 0 ? NULL : read_migration(0, context);
}

/* NULL when there is none. */
BbmMigration *
bbm_migration_by_id(int64 id, MemoryContext context)
{
	static BbmSql sql = {
		"SELECT " MIGRATION_COLUMNS " FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	bbm_sql_run(&sql, values, NULL, false);
	return SPI_processed == 0 ? NULL : read_migration(0, context);
}

/* Returns a list of BbmRunnable: the owner's migrations that a worker may run here, by id. */
List *
bbm_migrations_runnable(Oid owner, MemoryContext context)
{
	static BbmSql sql = {
		"SELECT id, status::bigint, workers::bigint FROM @.batched_background_migrations "
		"WHERE status IN (1, 4) AND owner_oid = $1 AND origin = $2 ORDER BY id",
		2, {OIDOID, TEXTOID}
	};
	Datum		values[] = {ObjectIdGetDatum(owner), CStringGetTextDatum(bbm_origin())};
	List	   *list = NIL;
	MemoryContext old;

	bbm_sql_run(&sql, values, NULL, false);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmRunnable *runnable = palloc(sizeof(BbmRunnable));

		runnable->id = bbm_sql_int64(i, 1);
		runnable->status = (BbmStatus) bbm_sql_int64(i, 2);
		runnable->workers = bbm_sql_int64(i, 3);
		list = lappend(list, runnable);
	}
	MemoryContextSwitchTo(old);
	return list;
}

/* Returns a list of BbmMigration with one of these statuses, by id. */
List *
bbm_migrations_with_status(List *statuses, MemoryContext context)
{
	static BbmSql sql = {
		"SELECT " MIGRATION_COLUMNS " FROM @.batched_background_migrations "
		"WHERE status = ANY ($1) ORDER BY id",
		1, {INT2ARRAYOID}
	};
	Datum		elements[5];
	int			n = 0;
	Datum		values[1];
	List	   *list = NIL;
	ListCell   *cell;
	MemoryContext old;

	foreach(cell, statuses)
		elements[n++] = Int16GetDatum(lfirst_int(cell));
	values[0] = PointerGetDatum(construct_array(elements, n, INT2OID, 2, true, TYPALIGN_SHORT));
	bbm_sql_run(&sql, values, NULL, false);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend(list, read_migration(i, context));
	MemoryContextSwitchTo(old);
	return list;
}

/* Returns a list of BbmMigration: those that have started on a table here and are not finished, by id. */
List *
bbm_migrations_begun(MemoryContext context)
{
	static BbmSql sql = {
		"SELECT " MIGRATION_COLUMNS " FROM @.batched_background_migrations "
		"WHERE status = ANY ('{0,1,3,4}'::smallint[]) AND started_at IS NOT NULL AND table_oid IS NOT NULL AND origin = $1 "
		"ORDER BY id",
		1, {TEXTOID}
	};
	Datum		values[] = {CStringGetTextDatum(bbm_origin())};
	List	   *list = NIL;
	MemoryContext old;

	bbm_sql_run(&sql, values, NULL, false);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend(list, read_migration(i, context));
	MemoryContextSwitchTo(old);
	return list;
}

/* Returns the OIDs of the owners whose migrations a worker may run here. */
List *
bbm_runnable_owners(MemoryContext context)
{
	static BbmSql sql = {
		"SELECT DISTINCT owner_oid FROM @.batched_background_migrations "
		"WHERE status IN (1, 4) AND origin = $1 AND owner_oid IS NOT NULL",
		1, {TEXTOID}
	};
	Datum		values[] = {CStringGetTextDatum(bbm_origin())};
	List	   *list = NIL;
	MemoryContext old;

	bbm_sql_run(&sql, values, NULL, false);
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend_oid(list, get_oid(i, 1));
	MemoryContextSwitchTo(old);
	return list;
}

/*
 * Takes the row's lock and then the migration's, in the order in which
 * everybody who changes a status takes them, and reads the status that is
 * committed now.  False when the migration is gone.  Waits at most
 * lock_timeout.
 */
bool
bbm_migration_lock(int64 id, BbmStatus *status)
{
	static BbmSql row = {
		"SELECT 1 FROM @.batched_background_migrations WHERE id = $1 FOR NO KEY UPDATE",
		1, {INT8OID}
	};
	static BbmSql read = {
		"SELECT status::bigint FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	bbm_sql_run(&row, values, NULL, true);
	if (SPI_processed == 0)
		return false;
	bbm_lock_migration(bbm_lock_class(), id);
	bbm_sql_run(&read, values, NULL, false);
	if (SPI_processed == 0)
		return false;
	*status = (BbmStatus) bbm_sql_int64(0, 1);
	return true;
}

static Datum
number_or_null(const BbmBound *bound, char *null)
{
	*null = bound ? ' ' : 'n';
	return bound ? Int64GetDatum(bound->number) : (Datum) 0;
}

static Datum
array_or_null(const BbmBound *bound, char *null)
{
	*null = bound && DatumGetPointer(bound->key) ? ' ' : 'n';
	return *null == ' ' ? bound->key : (Datum) 0;
}

/*
 * Sets an active migration to running, and fixes bounds that were not given.
 * The caller has bbm_migration_lock.
 */
void
bbm_migration_set_started(int64 id, int64 total, Oid table, const BbmBound *min, const BbmBound *max,
						  const char *key_order, BbmPartitionOrder partition_order)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET status = 4, "
		"started_at = coalesce(started_at, clock_timestamp()), finished_at = NULL, "
		"total_tuple_count = coalesce(total_tuple_count, $2), table_oid = $3, "
		"min_found = min_found OR ($4 IS NOT NULL AND min_key IS NULL), "
		"max_found = max_found OR ($5 IS NOT NULL AND max_key IS NULL), "
		"min_key = coalesce(min_key, $4), max_key = coalesce(max_key, $5), "
		"key_order = coalesce(key_order, $6), partition_order = coalesce(partition_order, $7) WHERE id = $1",
		7, {INT8OID, INT8OID, OIDOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID}
	};
	const char *order = partition_orders[partition_order];
	char		nulls[8] = "       ";
	Datum		values[] = {
		Int64GetDatum(id), Int64GetDatum(total), ObjectIdGetDatum(table), array_or_null(min, &nulls[3]),
		array_or_null(max, &nulls[4]), key_order ? CStringGetTextDatum(key_order) : (Datum) 0,
		order ? CStringGetTextDatum(order) : (Datum) 0
	};

	nulls[5] = key_order ? ' ' : 'n';
	nulls[6] = order ? ' ' : 'n';
	bbm_sql_run(&sql, values, nulls, true);
}

/*
 * Stores what we have found out at the definition: the table, and which bounds
 * were not given.  Called in the transaction that has inserted the row.
 */
void
bbm_migration_defined(int64 id, Oid table, bool min_found, bool max_found)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET table_oid = $2, min_found = $3, max_found = $4 WHERE id = $1",
		4, {INT8OID, OIDOID, BOOLOID, BOOLOID}
	};
	Datum		values[] = {
		Int64GetDatum(id), ObjectIdGetDatum(table), BoolGetDatum(min_found), BoolGetDatum(max_found)
	};

	bbm_sql_run(&sql, values, NULL, true);
}

/*
 * Restarts the migration with this table and these bounds, as if it had just
 * been defined.  The caller has bbm_migration_lock, and has deleted its jobs.
 */
void
bbm_migration_restart(int64 id, Oid table, const char *job, const BbmBound *min, const BbmBound *max,
					  const char *key_order)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET table_oid = $2, job_signature_name = coalesce($3, job_signature_name), "
		"min_value = $4, max_value = $5, min_key = $6, max_key = $7, key_order = $8, partition_order = NULL, pass = 1, "
		"total_tuple_count = NULL, followed = false, "
		"started_at = NULL, finished_at = NULL, status = CASE status WHEN 4 THEN 1 ELSE status END WHERE id = $1",
		8, {INT8OID, OIDOID, TEXTOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID}
	};
	char		nulls[9] = "        ";
	Datum		values[] = {
		Int64GetDatum(id), ObjectIdGetDatum(table), job ? CStringGetTextDatum(job) : (Datum) 0,
		Int64GetDatum(min->number), Int64GetDatum(max->number), array_or_null(min, &nulls[5]),
		array_or_null(max, &nulls[6]), key_order ? CStringGetTextDatum(key_order) : (Datum) 0
	};

	nulls[2] = job ? ' ' : 'n';
	nulls[7] = key_order ? ' ' : 'n';
	bbm_sql_run(&sql, values, nulls, true);
}

/*
 * Starts the next pass; verify_max is not NULL when it also verifies rows
 * beyond the migration's range, up to there.  The caller has
 * bbm_migration_lock.
 */
void
bbm_migration_set_pass(int64 id, int pass, const BbmBound *verify_max)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET pass = $2, verify_max_value = $3, verify_max_key = $4 WHERE id = $1",
		4, {INT8OID, INT4OID, INT8OID, TEXTARRAYOID}
	};
	char		nulls[5] = "    ";
	Datum		values[4] = {Int64GetDatum(id), Int32GetDatum(pass)};

	values[2] = number_or_null(verify_max, &nulls[2]);
	values[3] = array_or_null(verify_max, &nulls[3]);
	bbm_sql_run(&sql, values, nulls, true);
}

/* Extends the pass up to "max", and (follow) perhaps further later.  The caller has bbm_migration_lock. */
void
bbm_migration_extend(int64 id, const BbmBound *max, bool follow)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET max_value = coalesce($2, max_value), "
		"max_key = coalesce($3, max_key), follow = $4, followed = true WHERE id = $1",
		4, {INT8OID, INT8OID, TEXTARRAYOID, BOOLOID}
	};
	char		nulls[5] = "    ";
	Datum		values[] = {
		Int64GetDatum(id), Int64GetDatum(max->number), array_or_null(max, &nulls[2]), BoolGetDatum(follow)
	};

	nulls[1] = DatumGetPointer(max->key) ? 'n' : ' ';
	bbm_sql_run(&sql, values, nulls, true);
}

/* The caller has bbm_migration_lock and has checked that nothing is left to do. */
void
bbm_migration_finish(int64 id)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET status = 2, finished_at = clock_timestamp() "
		"WHERE id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	bbm_sql_run(&sql, values, NULL, true);
}

/* Caller has bbm_migration_lock. */
void
bbm_migration_fail(int64 id, int code, const ErrorData *error)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET status = 3, failure_error_code = $2::smallint, "
		"error_sqlstate = $3, error_message = $4, error_detail = $5, error_hint = $6 WHERE id = $1",
		6, {INT8OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	char		nulls[8] = "       ";
	/* the context, the last value, is not stored */
	Datum		values[7] = {Int64GetDatum(id), Int32GetDatum(code)};

	bbm_error_values(error, &values[2], &nulls[2]);
	bbm_sql_run(&sql, values, nulls, true);
}

/* A finished migration has work again.  The caller has bbm_migration_lock. */
void
bbm_migration_reopen(int64 id)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET status = 1, finished_at = NULL WHERE id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	bbm_sql_run(&sql, values, NULL, true);
}

/*
 * Does the same as a user's UPDATE … SET status, guards included; the caller
 * has checked that its user may.  True when the status has changed.
 */
bool
bbm_migration_set_status(int64 id, BbmStatus status)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations m SET status = $2::smallint "
		"FROM (SELECT o.id, o.status FROM @.batched_background_migrations o WHERE o.id = $1 FOR NO KEY UPDATE) old "
		"WHERE m.id = old.id RETURNING m.status <> old.status",
		2, {INT8OID, INT4OID}
	};
	Datum		values[] = {Int64GetDatum(id), Int32GetDatum((int) status)};

	bbm_sql_run(&sql, values, NULL, false);
	return SPI_processed > 0 && get_bool(0, 1);
}

static Datum
text_or_null(const char *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? CStringGetTextDatum(value) : (Datum) 0;
}

static Datum
int_or_null(const int *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? Int32GetDatum(*value) : (Datum) 0;
}

static Datum
int64_or_null(const int64 *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? Int64GetDatum(*value) : (Datum) 0;
}

static Datum
bool_or_null(const bool *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? BoolGetDatum(*value) : (Datum) 0;
}

static Datum
interval_or_null(const Interval *value, char *null)
{
	*null = value ? ' ' : 'n';
	return value ? IntervalPGetDatum(value) : (Datum) 0;
}

static Datum
settings_or_null(const ArrayType *value, char *null)
{
	*null = value ? ' ' : 'n';
	return PointerGetDatum(value);
}

/* Inserts a checked definition; returns its id. */
int64
bbm_migration_insert(const BbmDefinition *d, Oid owner, BbmStatus status)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migrations (name, table_name, column_name, job_signature_name, "
		"batching_strategy, job_search_path, min_value, max_value, batch_size, sub_batch_size, workers, "
		"max_attempts, share_table, synchronous, status, owner, min_key, max_key, index_name, operation, set_clause, "
		"filter, row_check, verify, follow, allow_key_change, target_duration, min_batch_size, max_batch_size, "
		"max_batch_wal, on_error, max_errors, allow_full_scan, settings, key_order, rows_stay, skip_null_keys) "
		"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, 0), $11, $12::smallint, $13, $14, $15::smallint, "
		"(SELECT rolname FROM pg_roles WHERE oid = $16), $17, $18, $19, $20, $21, $22, $23, $24, $25, coalesce($26, false), $27, $28, "
		"$29, $30, $31, $32, $33, $34, $35, $36, coalesce($37, false)) RETURNING id",
		37, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, INT4OID, INT4OID,
			INT4OID, INT4OID, BOOLOID, BOOLOID, INT4OID, OIDOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID, BOOLOID, BOOLOID, BOOLOID, INTERVALOID, INT4OID, INT4OID, INT8OID, TEXTOID, INT4OID,
		BOOLOID, TEXTARRAYOID, TEXTOID, BOOLOID, BOOLOID}
	};
	char		nulls[38] = "                                     ";
	Datum		values[] = {
		text_or_null(d->name, &nulls[0]), text_or_null(d->table_name, &nulls[1]),
		text_or_null(d->column_name, &nulls[2]), text_or_null(d->job, &nulls[3]),
		text_or_null(d->strategy, &nulls[4]), text_or_null(d->search_path, &nulls[5]),
		number_or_null(d->min, &nulls[6]), number_or_null(d->max, &nulls[7]),
		int_or_null(d->batch_size, &nulls[8]), int_or_null(d->sub_batch_size, &nulls[9]),
		int_or_null(d->workers, &nulls[10]), int_or_null(d->max_attempts, &nulls[11]),
		bool_or_null(d->share_table, &nulls[12]), bool_or_null(d->synchronous, &nulls[13]),
		Int32GetDatum((int) status), ObjectIdGetDatum(owner),
		array_or_null(d->min, &nulls[16]), array_or_null(d->max, &nulls[17]),
		text_or_null(d->index_name, &nulls[18]), text_or_null(d->operation, &nulls[19]),
		text_or_null(d->set_clause, &nulls[20]), text_or_null(d->filter, &nulls[21]),
		text_or_null(d->row_check, &nulls[22]), bool_or_null(d->verify, &nulls[23]),
		bool_or_null(d->follow, &nulls[24]), bool_or_null(d->allow_key_change, &nulls[25]),
		interval_or_null(d->target_duration, &nulls[26]), int_or_null(d->min_batch_size, &nulls[27]),
		int_or_null(d->max_batch_size, &nulls[28]), int64_or_null(d->max_batch_wal, &nulls[29]),
		text_or_null(d->on_error, &nulls[30]), int_or_null(d->max_errors, &nulls[31]),
		bool_or_null(d->allow_full_scan, &nulls[32]), settings_or_null(d->settings, &nulls[33]),
		text_or_null(d->key_order, &nulls[34]), bool_or_null(d->rows_stay, &nulls[35]),
		bool_or_null(d->skip_null_keys, &nulls[36])
	};

	bbm_sql_run(&sql, values, nulls, false);
	return bbm_sql_int64(0, 1);
}

/* Changes the columns that are set in the definition. */
void
bbm_migration_alter(int64 id, const BbmDefinition *d)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET name = coalesce($2, name), "
		"job_signature_name = coalesce($3, job_signature_name), "
		"batch_size = coalesce($4, batch_size), sub_batch_size = coalesce($5, sub_batch_size), "
		"max_value = coalesce($6, max_value), workers = coalesce($7, workers), "
		"max_attempts = coalesce($8::smallint, max_attempts), "
		"share_table = coalesce($9, share_table), synchronous = coalesce($10, synchronous), "
		"owner = coalesce($11::name, owner), job_search_path = coalesce($12, job_search_path), "
		"target_duration = CASE WHEN NOT $14 THEN coalesce($13, target_duration) END, "
		"min_batch_size = coalesce($15, min_batch_size), max_batch_size = coalesce($16, max_batch_size), "
		"max_batch_wal = coalesce($17, max_batch_wal), index_name = coalesce($18, index_name), "
		"verify = coalesce($19, verify), follow = coalesce($20, follow), on_error = coalesce($21, on_error), "
		"max_errors = coalesce($22, max_errors), allow_full_scan = coalesce($23, allow_full_scan), "
		"settings = coalesce($24, settings), rows_stay = coalesce($25, rows_stay), "
		"skip_null_keys = coalesce($26, skip_null_keys) WHERE id = $1",
		26, {INT8OID, TEXTOID, TEXTOID, INT4OID, INT4OID, INT8OID, INT4OID, INT4OID, BOOLOID, BOOLOID,
			TEXTOID, TEXTOID, INTERVALOID, BOOLOID, INT4OID, INT4OID, INT8OID, TEXTOID, BOOLOID, BOOLOID,
			TEXTOID, INT4OID, BOOLOID, TEXTARRAYOID, BOOLOID, BOOLOID}
	};
	char		nulls[27] = "                          ";
	Datum		values[] = {
		Int64GetDatum(id), text_or_null(d->name, &nulls[1]), text_or_null(d->job, &nulls[2]),
		int_or_null(d->batch_size, &nulls[3]), int_or_null(d->sub_batch_size, &nulls[4]),
		number_or_null(d->max, &nulls[5]), int_or_null(d->workers, &nulls[6]),
		int_or_null(d->max_attempts, &nulls[7]), bool_or_null(d->share_table, &nulls[8]),
		bool_or_null(d->synchronous, &nulls[9]), text_or_null(d->owner, &nulls[10]),
		text_or_null(d->search_path, &nulls[11]), interval_or_null(d->target_duration, &nulls[12]),
		BoolGetDatum(d->fixed_size), int_or_null(d->min_batch_size, &nulls[14]),
		int_or_null(d->max_batch_size, &nulls[15]), int64_or_null(d->max_batch_wal, &nulls[16]),
		text_or_null(d->index_name, &nulls[17]), bool_or_null(d->verify, &nulls[18]),
		bool_or_null(d->follow, &nulls[19]), text_or_null(d->on_error, &nulls[20]),
		int_or_null(d->max_errors, &nulls[21]), bool_or_null(d->allow_full_scan, &nulls[22]),
		settings_or_null(d->settings, &nulls[23]), bool_or_null(d->rows_stay, &nulls[24]),
		bool_or_null(d->skip_null_keys, &nulls[25])
	};

	bbm_sql_run(&sql, values, nulls, false);
}

/* Also deletes its jobs.  Waits for a batch in flight. */
void
bbm_migration_delete(int64 id)
{
	static BbmSql sql = {
		"DELETE FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	bbm_sql_run(&sql, values, NULL, false);
}

/* Reads what bbm_status() shows of the migration, as the extension's owner. */
void
bbm_migration_progress(int64 id, MemoryContext context, BbmProgress *progress)
{
	static BbmSql sql = {
		"SELECT coalesce(s.percent, 0)::text, s.rows_done, s.jobs_finished, m.error_sqlstate, m.error_message, "
		"m.error_detail, m.error_hint "
		"FROM @.batched_background_migrations m CROSS JOIN LATERAL @.bbm_status(m.name) s WHERE m.id = $1",
		1, {INT8OID}
	};
	Datum		values[] = {Int64GetDatum(id)};

	memset(progress, 0, sizeof(BbmProgress));
	bbm_sql_run(&sql, values, NULL, false);
	if (SPI_processed == 0)
		return;
	progress->percent = bbm_sql_text(0, 1, context);
	progress->rows = bbm_sql_int64(0, 2);
	progress->jobs = bbm_sql_int64(0, 3);
	progress->sqlstate = bbm_sql_text(0, 4, context);
	progress->error = bbm_sql_text(0, 5, context);
	progress->detail = bbm_sql_text(0, 6, context);
	progress->hint = bbm_sql_text(0, 7, context);
}
