/*-------------------------------------------------------------------------
 *
 * shard_parts.c
 *		The migrations of the shards that this node has.
 *
 * NOTES
 *	  Such a migration is made from the record of its shard, and may be made
 *	  anew at any time: it has no state that must not be lost.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shard_parts.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

#include "catalog/migrations.h"
#include "catalog/sql.h"

/* Returns a list of BbmShardPart: those of this record, and of the current user, in the current memory context. */
List *
bbm_shard_parts(const char *record)
{
	static BbmSql sql = {
		"SELECT m.id, m.shard_id, m.shard_epoch, m.status::bigint, m.total_tuple_count, m.error_message, m.error_sqlstate, "
		"s.waiting_on, m.error_detail, CASE WHEN m.status = 3 AND m.phase = 'verify' AND m.error_sqlstate = '23514' "
		"AND m.failure_error_code IS DISTINCT FROM $3 THEN "
		"(SELECT sum(j.row_count)::bigint FROM @.batched_background_migration_jobs j WHERE j.batched_background_migration_id = m.id "
		" AND j.phase = 'verify' AND j.round = m.round) END FROM @.batched_background_migrations m JOIN @.bbm_migration_status s ON s.name = m.name "
		"WHERE m.shard_record = $1 AND m.shard_id IS NOT NULL AND m.owner_oid = $2 ORDER BY m.id",
		3, {TEXTOID, OIDOID, INT2OID}
	};
	List	   *parts = NIL;

	bbm_sql_run(&sql, false, CStringGetTextDatum(record), ObjectIdGetDatum(GetUserId()),
				Int16GetDatum(BBM_CODE_ATTEMPTS));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmShardPart *part = palloc(sizeof(BbmShardPart));

		part->id = bbm_sql_int64(i, 1);
		part->shard = bbm_sql_int64(i, 2);
		part->epoch = bbm_sql_int64(i, 3);
		part->status = (BbmStatus) bbm_sql_int64(i, 4);
		part->has_total = !bbm_sql_is_null(i, 5);
		part->total = bbm_sql_int64(i, 5);
		part->error = bbm_sql_text(i, 6, CurrentMemoryContext);
		part->sqlstate = bbm_sql_text(i, 7, CurrentMemoryContext);
		part->waiting = bbm_sql_text(i, 8, CurrentMemoryContext);
		part->detail = bbm_sql_text(i, 9, CurrentMemoryContext);
		part->found = bbm_sql_int64(i, 10);
		parts = lappend(parts, part);
	}
	return parts;
}

/* What the record defines, with the range if that is known: the columns that users set, and no others. */
void
bbm_shard_part_definition(const BbmShardRecord *shard, BbmDefinition *d)
{
	static BbmSql sql = {
		"SELECT # FROM jsonb_populate_record(NULL::@.batched_background_migrations, $1::jsonb || coalesce($2::jsonb, '{}'))",
		2, {TEXTOID, TEXTOID}
	};

	if (shard->definition == NULL)
		bbm_shard_record_lacks(shard, "definition");
	bbm_sql_run(&sql, false, CStringGetTextDatum(shard->definition), bbm_sql_text_value(shard->bounds));
	memset(d, 0, sizeof(BbmDefinition));
	bbm_each_option(option)
	{
		bool		isnull;
		Datum		value;

		if (!(option->flags & BBM_USERS) || strcmp(option->column, "id") == 0)
			continue;
		value = bbm_sql_get(0, option - bbm_options + 1, &isnull);
		if (isnull)
		{
			if (option->flags & BBM_NOT_NULL)
				bbm_shard_record_lacks(shard, option->column);
			continue;
		}
		bbm_definition_set(d, option->column,
						   datumCopy(value, get_typbyval(option->type), get_typlen(option->type)));
	}
}

/* The migration's name with that of the shard, as long as a name may be. */
char *
bbm_shard_part_name(const char *name, int64 shard)
{
	char	   *suffix = psprintf("/" INT64_FORMAT, shard);
	int			length = pg_mbcliplen(name, strlen(name), BBM_MAX_NAME_LENGTH - strlen(suffix));

	return psprintf("%.*s%s", length, name, suffix);
}

/*
 * How it is done may have been altered since this node has started it: writes
 * what is not as the record says.  A worker of this node may meanwhile have found
 * that the shard is done, or is not here, and deleted the migration.
 */
void
bbm_shard_part_alter(const BbmShardPart *part, const BbmShardRecord *shard)
{
	BbmDefinition is;
	BbmDefinition shall;
	BbmDefinition change = {0};
	bool		differs = false;
	char	   *name;

	if (!bbm_migration_definition(part->id, &is))
		return;
	bbm_shard_part_definition(shard, &shall);
	bbm_each_option(option)
	{
		bool		is_set = bbm_definition_has(&is, option->column);
		bool		shall_be = bbm_definition_has(&shall, option->column);

		if (!(option->flags & BBM_HOW) || (!is_set && !shall_be) ||
			(is_set && shall_be &&
			 datum_image_eq(bbm_definition_get(&is, option->column), bbm_definition_get(&shall, option->column),
							get_typbyval(option->type), get_typlen(option->type))))
			continue;
		differs = true;
		if (shall_be)
			bbm_definition_set(&change, option->column, bbm_definition_get(&shall, option->column));
		else
			bbm_definition_set_null(&change, option->column);
	}
	name = bbm_shard_part_name(TextDatumGetCString(bbm_definition_get(&shall, "name")), part->shard);
	if (strcmp(name, TextDatumGetCString(bbm_definition_get(&is, "name"))) != 0)
	{
		differs = true;
		bbm_definition_set_text(&change, "name", name);
	}
	if (differs)
		bbm_migration_write(part->id, &change, true);
}

/* Such a shard's range is found where there are no keys yet; afterwards each node uses it. */
static void
keep_bounds(int64 id, const BbmShardRecord *shard)
{
	static BbmSql sql = {
		"SELECT jsonb_build_object('min_value', min_value, 'max_value', max_value, 'min_key', min_key, 'max_key', max_key) "
		"FROM @.batched_background_migrations WHERE id = $1",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(id));
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("UPDATE %s SET bounds = %s::jsonb WHERE kind = 'shard' AND low = %s AND high = %s",
									  shard->record, quote_literal_cstr(bbm_cluster_text(0, 1)),
									  quote_literal_cstr(shard->low), quote_literal_cstr(shard->high)));
}

/* Adds a job that has done everything up to the record's cursor: the next range begins after it. */
static void
go_on_after(int64 id, const BbmShardRecord *shard)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, min_key, "
		"max_key, key_count, row_count, status, attempts, started_at, finished_at, updated_at) "
		"VALUES ($1, $2, $2, $3, $3, $4, $5, 2, 1, clock_timestamp(), clock_timestamp(), clock_timestamp())",
		5, {INT8OID, INT8OID, TEXTARRAYOID, INT8OID, INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(id), Int64GetDatum(shard->cursor.number), shard->cursor.key,
				Int64GetDatum(shard->keys), Int64GetDatum(shard->rows));
}

/* Adds a job for each quarantined range that is to be tried again; one may have been begun on another node. */
static void
try_again(int64 id, const BbmShardRecord *shard)
{
	static BbmSql sql = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, min_key, "
		"max_key, cursor_value, cursor_key, status, key_count, batch_size, kind) "
		"SELECT DISTINCT $1, r.min_value, r.max_value, r.min_key, r.max_key, r.cursor_value, r.cursor_key, 1::smallint, 0::bigint, 1, 'retry' "
		"FROM jsonb_to_recordset($2::jsonb) AS r(min_value bigint, max_value bigint, min_key text[], max_key text[], "
		"cursor_value bigint, cursor_key text[])",
		2, {INT8OID, TEXTOID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(id), CStringGetTextDatum(shard->retries));
}

/* The migration's row has been inserted, in this transaction, and its record is locked. */
void
bbm_shard_part_defined(int64 id, const char *record, const BbmShardRecord *shard, int64 total)
{
	BbmDefinition d = {0};

	bbm_definition_set_text(&d, "shard_record", record);
	bbm_definition_set(&d, "shard_id", Int64GetDatum(shard->id));
	bbm_definition_set(&d, "shard_epoch", Int64GetDatum(shard->epoch));
	if (total >= 0)
		bbm_definition_set(&d, "total_tuple_count", Int64GetDatum(total));
	/* verification goes beyond bounds that nobody has given */
	bbm_definition_set(&d, "min_found", BoolGetDatum(!shard->min_given));
	bbm_definition_set(&d, "max_found", BoolGetDatum(!shard->max_given));
	bbm_migration_write(id, &d, true);
	if (shard->bounds == NULL)
		keep_bounds(id, shard);
	if (shard->has_cursor)
		go_on_after(id, shard);
	if (shard->retries)
		try_again(id, shard);
}
