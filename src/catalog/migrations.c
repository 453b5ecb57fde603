/*-------------------------------------------------------------------------
 *
 * migrations.c
 *		SQL over batched_background_migrations and bbm_events.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/migrations.h"

#include "access/table.h"
#include "mb/pg_wchar.h"
#include "utils/varlena.h"

#include "base/locks.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/sql.h"

/* What a row of all our columns has: its values last as long as SPI_tuptable. */
static void
read_definition(uint64 row, BbmDefinition *d)
{
	int			i = 0;

	memset(d, 0, sizeof(BbmDefinition));
	for (; bbm_options[i].column; i++)
	{
		d->values[i] = bbm_sql_get(row, i + 1, &d->nulls[i]);
		d->given[i] = true;
	}
}

/* Is it in a cloned or restored database, in which it was not started since? */
bool
bbm_migration_is_copy(const char *origin, bool restored)
{
	return restored || origin == NULL || strcmp(origin, bbm_origin()) != 0;
}

static BbmMigration *
read_migration(uint64 row, MemoryContext context)
{
	BbmDefinition d;
	BbmMigration *m;

	read_definition(row, &d);
	m = bbm_definition_migration(&d, context);
	/* in another database the OID is another table's, or nobody's */
	if (bbm_migration_is_copy(m->origin, m->restored))
		m->table_oid = InvalidOid;
	return m;
}

/* In the current memory context; NULL when there is none. */
BbmMigration *
bbm_migration_by_name(const char *name)
{
	static BbmSql sql = {
		"SELECT # FROM @.batched_background_migrations WHERE name = $1",
		1, {TEXTOID}
	};

	bbm_sql_run(&sql, false, CStringGetTextDatum(name));
	return SPI_processed == 0 ? NULL : read_migration(0, CurrentMemoryContext);
}

/* Leaves its row in SPI_tuptable; false when there is none. */
static bool
run_by_id(int64 id)
{
	static BbmSql sql = {
		"SELECT # FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(id));
	return SPI_processed > 0;
}

/*
 * Is there this migration, and is it this role's, with this snapshot?  Reads
 * no more than that: the views ask it of each of their rows.
 */
bool
bbm_migration_is_of(int64 id, Oid owner, Snapshot snapshot)
{
	Relation	migrations = table_open(bbm_catalog()->migrations, AccessShareLock);
	SysScanDesc scan = bbm_scan_id(migrations, bbm_catalog()->migrations_key, "id", id, snapshot);
	HeapTuple	tuple = systable_getnext(scan);
	bool		is_of = HeapTupleIsValid(tuple) && !bbm_tuple_is_null(tuple, migrations, "owner_oid") &&
		DatumGetObjectId(bbm_tuple_column(tuple, migrations, "owner_oid")) == owner;

	systable_endscan(scan);
	table_close(migrations, NoLock);
	return is_of;
}

/* NULL when there is none. */
BbmMigration *
bbm_migration_by_id(int64 id, MemoryContext context)
{
	return run_by_id(id) ? read_migration(0, context) : NULL;
}

/* All its columns, until SPI_finish.  Returns false when it does not exist any more. */
bool
bbm_migration_definition(int64 id, BbmDefinition *d)
{
	memset(d, 0, sizeof(BbmDefinition));
	if (!run_by_id(id))
		return false;
	read_definition(0, d);
	return true;
}

/* Is it the other name as bbm_status() shortens it, with "..." for its middle? */
static bool
is_shortened(const char *name, const char *other)
{
	const char *cut = strstr(name, "...");
	size_t		length = strlen(other);
	size_t		end;

	if (cut == NULL || length < strlen(name))
		return false;
	end = strlen(cut + 3);
	return strncmp(name, other, cut - name) == 0 && strcmp(cut + 3, other + length - end) == 0;
}

/*
 * The name nearest to one that no migration has, among the migrations that
 * may_see allows; NULL when none is near: a name of which half is different is
 * not what was meant, unless that half is left out.
 */
char *
bbm_migration_nearest(const char *name, bool (*may_see) (Oid owner))
{
	static BbmSql sql = {"SELECT name, owner_oid FROM @.batched_background_migrations ORDER BY name"};
	int			most = Min(pg_mbstrlen(name) / 2, 8);
	char	   *nearest = NULL;

	bbm_sql_run_values(&sql, NULL, NULL, false);
	for (uint64 i = 0; i < SPI_processed && most > 0; i++)
	{
		char	   *other = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		int			distance = is_shortened(name, other) ? 0 :
			varstr_levenshtein_less_equal(name, strlen(name), other, strlen(other), 1, 1, 1, most, true);

		if (distance > most || !may_see(bbm_sql_oid(i, 2)))
			continue;
		nearest = other;
		/* another one has to be nearer */
		most = distance - 1;
	}
	return nearest;
}

/*
 * What a worker has to do something about, as a list of these columns: what is
 * started, or has nodes that do not know yet that it is not.  In two parts, so
 * that each finds its rows with an index, and leaves alone the many that may be
 * paused, failed or finished.
 */
#define RUNNABLE(columns) \
	"SELECT " columns " FROM @.batched_background_migrations WHERE status IN (1, 4) " \
	"UNION ALL SELECT " columns " FROM @.batched_background_migrations WHERE status IN (0, 3) AND unreached_nodes IS NOT NULL"

/*
 * Returns a list of BbmRunnable: the owner's migrations that a worker may run
 * here, or whose nodes it has yet to tell that they are paused, by id.  The
 * rank is the priority; that of a migration which waits while others have a
 * higher one grows by one in ten seconds, up to the highest, so that none
 * waits forever.
 */
List *
bbm_migrations_runnable(Oid owner, MemoryContext context)
{
	/* has it waited since its newest job?  If it is retrying older ones, it soon counts as first. */
	static BbmSql sql = {
		"SELECT m.id, m.status::bigint, m.workers::bigint, CASE WHEN m.priority = m.highest THEN m.priority ELSE "
		"least(greatest(m.priority + floor((extract(epoch FROM clock_timestamp()) - extract(epoch FROM coalesce("
		"(SELECT j.updated_at FROM @.batched_background_migration_jobs j WHERE j.batched_background_migration_id = m.id "
		"ORDER BY j.id DESC LIMIT 1), m.updated_at, m.created_at))) / 10), m.priority), m.highest) END::bigint "
		"FROM (SELECT r.*, max(priority) OVER () AS highest "
		"FROM (" RUNNABLE("id, status, workers, priority, updated_at, created_at, owner_oid, origin, restored") ") r "
		"WHERE owner_oid = $1 AND origin = $2 AND NOT restored) m ORDER BY m.id",
		2, {OIDOID, TEXTOID}
	};
	List	   *list = NIL;
	MemoryContext old;

	bbm_sql_run(&sql, false, ObjectIdGetDatum(owner), CStringGetTextDatum(bbm_origin()));
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmRunnable *runnable = palloc(sizeof(BbmRunnable));

		runnable->id = bbm_sql_int64(i, 1);
		runnable->status = (BbmStatus) bbm_sql_int64(i, 2);
		runnable->workers = bbm_sql_int64(i, 3);
		runnable->rank = bbm_sql_int64(i, 4);
		list = lappend(list, runnable);
	}
	MemoryContextSwitchTo(old);
	return list;
}

/* All rows of the last statement, in the current memory context. */
static List *
read_migrations(void)
{
	List	   *list = NIL;

	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend(list, read_migration(i, CurrentMemoryContext));
	return list;
}

/* Returns a list of BbmMigration with one of these statuses, by priority and id. */
List *
bbm_migrations_with_status(List *statuses)
{
	static BbmSql sql = {
		"SELECT # FROM @.batched_background_migrations "
		"WHERE status = ANY ($1) ORDER BY priority DESC, id",
		1, {INT2ARRAYOID}
	};
	Datum		elements[5];
	int			n = 0;
	Datum		values[1];
	ListCell   *cell;

	foreach(cell, statuses)
		elements[n++] = Int16GetDatum(lfirst_int(cell));
	values[0] = PointerGetDatum(construct_array(elements, n, INT2OID, 2, true, TYPALIGN_SHORT));
	bbm_sql_run_values(&sql, values, NULL, false);
	return read_migrations();
}

/* Returns a list of BbmMigration: those that have started on a table here and are not finished, by id. */
List *
bbm_migrations_started(void)
{
	static BbmSql sql = {
		"SELECT # FROM @.batched_background_migrations "
		"WHERE status = ANY ('{0,1,3,4}'::smallint[]) AND started_at IS NOT NULL AND table_oid IS NOT NULL AND origin = $1 AND NOT restored "
		"ORDER BY id",
		1, {TEXTOID}
	};

	bbm_sql_run(&sql, false, CStringGetTextDatum(bbm_origin()));
	return read_migrations();
}

/*
 * Writes the names of owners that were renamed: what counts here is the OID,
 * but on another server a dump has only the name, which may be another role's
 * by then.  A row that somebody has locked is left for the next time.
 */
void
bbm_migrations_refresh_owners(void)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET owner = owner WHERE id = ANY (ARRAY("
		"SELECT m.id FROM @.batched_background_migrations m JOIN pg_roles r ON r.oid = m.owner_oid "
		"WHERE m.owner IS DISTINCT FROM r.rolname AND m.origin = $1 AND NOT m.restored "
		"ORDER BY m.id FOR UPDATE OF m SKIP LOCKED))",
		1, {TEXTOID}
	};

	bbm_sql_run(&sql, true, CStringGetTextDatum(bbm_origin()));
}

/* Returns the OIDs of the owners whose migrations a worker may run here. */
List *
bbm_runnable_owners(MemoryContext context)
{
	static BbmSql sql = {
		"SELECT DISTINCT owner_oid FROM (" RUNNABLE("owner_oid, origin, restored") ") r "
		"WHERE origin = $1 AND NOT restored AND owner_oid IS NOT NULL",
		1, {TEXTOID}
	};
	List	   *list = NIL;
	MemoryContext old;

	bbm_sql_run(&sql, false, CStringGetTextDatum(bbm_origin()));
	old = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < SPI_processed; i++)
		list = lappend_oid(list, bbm_sql_oid(i, 1));
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

	bbm_sql_run(&row, true, Int64GetDatum(id));
	if (SPI_processed == 0)
		return false;
	bbm_lock_migration(bbm_lock_class(), id);
	bbm_sql_run(&read, false, Int64GetDatum(id));
	if (SPI_processed == 0)
		return false;
	*status = (BbmStatus) bbm_sql_int64(0, 1);
	return true;
}

/* Has nobody changed the row since it was read as given? */
bool
bbm_migration_is_as_read(const BbmMigration *as_read)
{
	const BbmMigration *now = bbm_migration_by_id(as_read->id, CurrentMemoryContext);

	return now && now->updated_at == as_read->updated_at;
}

/* Locks it, and that is so. */
bool
bbm_migration_lock_as_read(const BbmMigration *as_read, BbmStatus *status)
{
	return bbm_migration_lock(as_read->id, status) && bbm_migration_is_as_read(as_read);
}

/*
 * Appends what is given, as "column = $n" or as "column" and "$n"; returns how
 * many values there are in "values" then.
 */
static int
append_given(const BbmDefinition *d, StringInfo columns, StringInfo parameters, int n, Oid *types, Datum *values,
			 char *nulls)
{
	bbm_each_option(option)
	{
		int			i = option - bbm_options;

		if (!d->given[i])
			continue;
		types[n] = option->type;
		values[n] = d->values[i];
		nulls[n] = d->nulls[i] ? 'n' : ' ';
		n++;
		appendStringInfo(columns, "%s%s", columns->len > 0 ? ", " : "", option->column);
		appendStringInfo(parameters ? parameters : columns, "%s$%d", parameters == NULL ? " = " : n > 1 ? ", " : "", n);
	}
	return n;
}

/* Changes the columns that are given; with none, the row is written as it is.  "engine": not by the rules for users. */
void
bbm_migration_write(int64 id, const BbmDefinition *d, bool engine)
{
	BbmSql		sql = {.once = true, .types = {INT8OID}};
	StringInfoData columns;
	Datum		values[BBM_MAX_OPTIONS + 1] = {Int64GetDatum(id)};
	char		nulls[BBM_MAX_OPTIONS + 1] = " ";

	initStringInfo(&columns);
	sql.nargs = append_given(d, &columns, NULL, 1, sql.types, values, nulls);
	sql.text = psprintf("UPDATE @.batched_background_migrations SET %s WHERE id = $1",
						sql.nargs > 1 ? columns.data : "name = name");
	bbm_sql_run_values(&sql, values, nulls, engine);
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

	bbm_sql_run(&sql, true, Int64GetDatum(id), Int64GetDatum(total), ObjectIdGetDatum(table), min->key, max->key,
				bbm_sql_text_value(key_order), bbm_sql_text_value(bbm_partition_order_word(partition_order)));
}

/*
 * Stores what we have found out at the definition: the table, and which bounds
 * were not given.  Called in the transaction that has inserted the row.
 */
void
bbm_migration_defined(int64 id, Oid table, bool min_found, bool max_found)
{
	BbmDefinition d = {0};

	bbm_definition_set(&d, "table_oid", ObjectIdGetDatum(table));
	bbm_definition_set(&d, "min_found", BoolGetDatum(min_found));
	bbm_definition_set(&d, "max_found", BoolGetDatum(max_found));
	bbm_migration_write(id, &d, true);
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
		"min_value = $4, max_value = $5, min_key = $6, max_key = $7, key_order = $8, partition_order = NULL, phase = 'work', round = 1, "
		"total_tuple_count = NULL, followed = false, "
		"started_at = NULL, finished_at = NULL, status = CASE status WHEN 4 THEN 1 ELSE status END WHERE id = $1",
		8, {INT8OID, OIDOID, TEXTOID, INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(id), ObjectIdGetDatum(table), bbm_sql_text_value(job),
				Int64GetDatum(min->number), Int64GetDatum(max->number), min->key, max->key,
				bbm_sql_text_value(key_order));
}

/*
 * Starts the next phase; verify_max is not NULL when it also verifies rows
 * beyond the migration's range, up to there.  The caller has
 * bbm_migration_lock.
 */
void
bbm_migration_set_phase(int64 id, BbmPhase phase, const BbmBound *verify_max)
{
	BbmDefinition d = {0};

	bbm_definition_set_text(&d, "phase", bbm_phase_name(phase));
	bbm_definition_set(&d, "round", Int32GetDatum(phase.round));
	bbm_definition_set_null(&d, "verify_max_value");
	bbm_definition_set_null(&d, "verify_max_key");
	if (verify_max)
		bbm_definition_set_bound(&d, "verify_max_value", "verify_max_key", verify_max);
	bbm_migration_write(id, &d, true);
}

/*
 * Stores how many keys there are to do in all, by the table as it is now, or
 * after a user has extended the range.  Leaves it when the row is locked: a user
 * changes it, or another worker does the same; and when it was changed since it
 * was read: the number is of another range, perhaps, or it does not run any more.
 */
void
bbm_migration_recount(const BbmMigration *as_read, int64 total)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET total_tuple_count = $2 WHERE id = "
		"(SELECT m.id FROM @.batched_background_migrations m WHERE m.id = $1 "
		"AND coalesce(m.updated_at, '2000-01-01+00') = $3 FOR NO KEY UPDATE SKIP LOCKED)",
		3, {INT8OID, INT8OID, TIMESTAMPTZOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(as_read->id), Int64GetDatum(total), TimestampTzGetDatum(as_read->updated_at));
}

/* Extends the first phase up to "max", and (follow) perhaps further later.  The caller has bbm_migration_lock. */
void
bbm_migration_extend(int64 id, const BbmBound *max, bool follow)
{
	BbmDefinition d = {0};

	if (DatumGetPointer(max->key))
		bbm_definition_set(&d, "max_key", max->key);
	else
		bbm_definition_set(&d, "max_value", Int64GetDatum(max->number));
	bbm_definition_set(&d, "follow", BoolGetDatum(follow));
	bbm_definition_set(&d, "followed", BoolGetDatum(true));
	bbm_migration_write(id, &d, true);
}

/* The caller has bbm_migration_lock and has checked that nothing is left to do. */
void
bbm_migration_finish(int64 id)
{
	BbmDefinition d = {0};

	bbm_definition_set(&d, "status", Int16GetDatum(BBM_FINISHED));
	bbm_definition_set(&d, "finished_at", TimestampTzGetDatum(GetCurrentTimestamp()));
	bbm_migration_write(id, &d, true);
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
	/* the context, the last value, is not stored */
	Datum		values[7] = {Int64GetDatum(id), Int32GetDatum(code)};

	bbm_error_values(error, &values[2]);
	bbm_sql_run_values(&sql, values, NULL, true);
}

/* bbm itself pauses it, for this reason.  The caller has bbm_migration_lock. */
void
bbm_migration_pause(int64 id, const ErrorData *reason)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations SET status = 0, error_sqlstate = $2, error_message = $3, error_detail = $4, "
		"error_hint = $5 WHERE id = $1",
		5, {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	/* the context, the last value, is not stored */
	Datum		values[6] = {Int64GetDatum(id)};

	bbm_error_values(reason, &values[1]);
	bbm_sql_run_values(&sql, values, NULL, true);
}

/* A finished migration has work again.  The caller has bbm_migration_lock. */
void
bbm_migration_reopen(int64 id)
{
	BbmDefinition d = {0};

	bbm_definition_set(&d, "status", Int16GetDatum(BBM_ACTIVE));
	bbm_definition_set_null(&d, "finished_at");
	bbm_migration_write(id, &d, true);
}

/*
 * Does the same as a user's UPDATE ... SET status, guards included; the caller
 * has checked that its user may.  True when the status has changed, or a copy
 * has been started here.
 */
bool
bbm_migration_set_status(int64 id, BbmStatus status)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migrations m SET status = $2::smallint "
		"FROM (SELECT o.id, o.status, o.restored, o.origin FROM @.batched_background_migrations o WHERE o.id = $1 FOR NO KEY UPDATE) old "
		"WHERE m.id = old.id RETURNING m.status <> old.status OR m.restored <> old.restored OR m.origin IS DISTINCT FROM old.origin",
		2, {INT8OID, INT4OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(id), Int32GetDatum((int) status));
	return SPI_processed > 0 && bbm_sql_bool(0, 1);
}

/*
 * Inserts a checked definition; returns its id, or 0 when there is a migration
 * of that name, which another session may have defined just now.
 */
int64
bbm_migration_insert(const BbmDefinition *d)
{
	BbmSql		sql = {.once = true};
	StringInfoData columns;
	StringInfoData parameters;
	Datum		values[BBM_MAX_OPTIONS];
	char		nulls[BBM_MAX_OPTIONS];

	initStringInfo(&columns);
	initStringInfo(&parameters);
	sql.nargs = append_given(d, &columns, &parameters, 0, sql.types, values, nulls);
	sql.text = psprintf("INSERT INTO @.batched_background_migrations (%s) VALUES (%s) "
						"ON CONFLICT DO NOTHING RETURNING id", columns.data, parameters.data);
	bbm_sql_run_values(&sql, values, nulls, false);
	return SPI_processed == 0 ? 0 : bbm_sql_int64(0, 1);
}

/* Also deletes its jobs.  Waits for a batch in flight. */
void
bbm_migration_delete(int64 id)
{
	static BbmSql sql = {
		"DELETE FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(id));
}

/* Reads what bbm_status_detail() shows of the migration, as the extension's owner. */
void
bbm_migration_progress(int64 id, MemoryContext context, BbmProgress *progress)
{
	static BbmSql sql = {
		"SELECT coalesce(s.percent, 0)::text, s.rows_done, s.jobs_finished, m.error_sqlstate, m.error_message, "
		"m.error_detail, m.error_hint, s.last_error "
		"FROM @.batched_background_migrations m JOIN @.bbm_migration_status s ON s.id = m.id WHERE m.id = $1",
		1, {INT8OID}
	};

	memset(progress, 0, sizeof(BbmProgress));
	bbm_sql_run(&sql, false, Int64GetDatum(id));
	if (SPI_processed == 0)
		return;
	progress->percent = bbm_sql_text(0, 1, context);
	progress->rows = bbm_sql_int64(0, 2);
	progress->jobs = bbm_sql_int64(0, 3);
	progress->sqlstate = bbm_sql_text(0, 4, context);
	progress->error = bbm_sql_text(0, 5, context);
	progress->detail = bbm_sql_text(0, 6, context);
	progress->hint = bbm_sql_text(0, 7, context);
	progress->last_error = bbm_sql_text(0, 8, context);
}
