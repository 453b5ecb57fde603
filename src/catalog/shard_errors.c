/*-------------------------------------------------------------------------
 *
 * shard_errors.c
 *		The quarantined rows of a distributed table.
 *
 * NOTES
 *	  They are kept in the record of their shard, as a jsonb array: so they
 *	  commit with the batch that has left them out, and go where the shard
 *	  goes.  What the node itself has of them ends with its migration of the
 *	  shard.  The coordinator copies them when the nodes report more than it
 *	  has.
 *
 *	  To try them again, the coordinator moves them to another array, and raises
 *	  the epoch: each node makes its migration of the shard anew, with a job for
 *	  each of them.  The batch that does one takes it out of the array.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shard_errors.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"

#include "base/printable.h"
#include "catalog/errors.h"
#include "catalog/sql.h"

/* An array of text as a literal, or NULL. */
static char *
array_literal(Datum array)
{
	return DatumGetPointer(array) == NULL ? "NULL" : quote_literal_cstr(OidOutputFunctionCall(F_ARRAY_OUT, array));
}

static char *
text_literal(const char *text)
{
	return text ? quote_literal_cstr(bbm_shortened(text, BBM_LONGEST_KEPT)) : "NULL";
}

/*
 * Quarantines a range that fails with this error.  Caller has entered the shard
 * in this transaction, so the record is locked.  Needs SPI.
 */
void
bbm_shard_error_add(const BbmShard *shard, const BbmBound *min, const BbmBound *max,
					const ErrorData *error)
{
	char	   *sql = psprintf("UPDATE %s SET errors = coalesce(errors, '[]') || jsonb_build_array(jsonb_build_object("
							   "'min_value', " INT64_FORMAT ", 'max_value', " INT64_FORMAT ", 'min_key', %s::text[], "
							   "'max_key', %s::text[], 'error_sqlstate', %s::text, 'error_message', %s::text, "
							   "'error_detail', %s::text, 'error_hint', %s::text, 'error_context', %s::text, 'at', clock_timestamp())) "
							   "WHERE kind = 'shard' AND low = %s AND high = %s AND epoch = " INT64_FORMAT,
							   shard->record, min->number, max->number, array_literal(min->key),
							   array_literal(max->key), text_literal(unpack_sql_state(error->sqlerrcode)),
							   text_literal(error->message), text_literal(error->detail), text_literal(error->hint),
							   text_literal(error->context),
							   quote_literal_cstr(shard->low), quote_literal_cstr(shard->high), shard->epoch);

	if (bbm_cluster_query(GetUserId(), sql) != 1)
		bbm_shard_record_is_lost(shard);
}

/* Which of the quarantined ranges it is: of an element of the record's arrays, and of bounds. */
#define RANGE_OF_ELEMENT "jsonb_build_array(e.e->'min_value', e.e->'max_value', e.e->'min_key', e.e->'max_key')"

static char *
range_of(const BbmBound *min, const BbmBound *max)
{
	return psprintf("jsonb_build_array(" INT64_FORMAT "::bigint, " INT64_FORMAT "::bigint, %s::text[], %s::text[])",
					min->number, max->number, array_literal(min->key), array_literal(max->key));
}

/*
 * A quarantined range was tried again, and changed so many rows: up to this key
 * (cursor), or all of it.  Rows of it that cannot be done are quarantined
 * anew, in the same transaction.  As above.
 */
void
bbm_shard_retry_note(const BbmShard *shard, const BbmBound *min, const BbmBound *max, const BbmBound *cursor,
					 int64 rows)
{
	char	   *is_it = psprintf(RANGE_OF_ELEMENT " = %s", range_of(min, max));
	char	   *left = cursor == NULL ? psprintf("SELECT jsonb_agg(e.e ORDER BY e.n) FROM jsonb_array_elements(retries) WITH ORDINALITY e (e, n) "
												 "WHERE NOT %s", is_it) :
		psprintf("SELECT jsonb_agg(CASE WHEN %s THEN e.e || jsonb_build_object('cursor_value', " INT64_FORMAT "::bigint, "
				 "'cursor_key', %s::text[]) ELSE e.e END ORDER BY e.n) FROM jsonb_array_elements(retries) WITH ORDINALITY e (e, n)",
				 is_it, cursor->number, array_literal(cursor->key));

	if (bbm_cluster_query(GetUserId(),
						  psprintf("UPDATE %s SET state = 'running', retries = (%s), row_count = row_count + " INT64_FORMAT ", "
								   "updated_at = clock_timestamp() WHERE kind = 'shard' AND low = %s AND high = %s "
								   "AND epoch = " INT64_FORMAT " AND EXISTS "
								   "(SELECT FROM jsonb_array_elements(retries) e (e) WHERE %s)",
								   shard->record, left, rows, quote_literal_cstr(shard->low),
								   quote_literal_cstr(shard->high), shard->epoch, is_it)) != 1)
		bbm_shard_record_is_lost(shard);
}

/* Has the migration failed by what verification has found?  Then all its shards are finished, or have been verified. */
static bool
failed_by_verification(int64 migration_id)
{
	static BbmSql sql = {
		"SELECT 1 FROM @.batched_background_migrations WHERE id = $1 AND status = 3 AND error_sqlstate = '23514' "
		"AND failure_error_code IS DISTINCT FROM $2",
		2, {INT8OID, INT2OID}
	};

	bbm_sql_run(&sql, false, Int64GetDatum(migration_id), Int16GetDatum(BBM_CODE_ATTEMPTS));
	return SPI_processed > 0;
}

/*
 * All that is quarantined is to be tried again, wherever its shard is; returns
 * how many there are, or else how many are to be tried again already: before a crash
 * of this server somebody may have asked for that in a transaction that has
 * committed on nodes alone, or there later than the migration was finished again.
 * On the coordinator, in the caller's transaction.  Waits
 * for the batch in flight in each of these shards; the next one does not find
 * its epoch.  The nodes make their migrations of these shards anew, which do not
 * know what verification has found: it is found again, and is to be done then.
 */
int64
bbm_shard_errors_retry(Oid owner, const char *record, int64 migration_id)
{
	const char *repairs = failed_by_verification(migration_id) ? "repairs OR state <> 'finished'" : "repairs";
	int64		n;

	(void) bbm_cluster_query(owner, psprintf("SELECT coalesce(nullif(sum(jsonb_array_length(errors)), 0), sum(jsonb_array_length(retries)), 0) "
											 "FROM %s WHERE kind = 'shard'", record));
	n = bbm_cluster_int64(0, 1);
	(void) bbm_cluster_query(owner,
							 psprintf("UPDATE %s SET retries = coalesce(retries, '[]') || coalesce(errors, '[]') || "
									  "coalesce(errors_of_whole, '[]'), errors = NULL, errors_of_whole = NULL, state = 'running', "
									  "repairs = %s, epoch = epoch + 1 "
									  "WHERE kind = 'shard' AND (errors IS NOT NULL OR errors_of_whole IS NOT NULL)",
									  record, repairs));
	return n;
}

/* How many there are in the shard, wherever it was when they were found.  As above. */
int64
bbm_shard_errors_count(const BbmShard *shard)
{
	return bbm_cluster_query(GetUserId(),
							 psprintf("SELECT coalesce(jsonb_array_length(errors), 0) FROM %s WHERE kind = 'shard' AND low = %s "
									  "AND high = %s", shard->record, quote_literal_cstr(shard->low),
									  quote_literal_cstr(shard->high))) > 0 ? bbm_cluster_int64(0, 1) : 0;
}

/*
 * Returns a list of BbmQuarantined: what is quarantined in the shard, and what
 * was in the whole that it is a part of.  As above.
 */
List *
bbm_shard_errors(const BbmShard *shard)
{
	List	   *list = NIL;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT e.min_value, e.max_value, e.min_key, e.max_key FROM %s r CROSS JOIN "
									  "jsonb_to_recordset(coalesce(r.errors, '[]') || coalesce(r.errors_of_whole, '[]')) "
									  "AS e(min_value bigint, max_value bigint, min_key text[], max_key text[]) "
									  "WHERE r.kind = 'shard' AND r.low = %s AND r.high = %s", shard->record,
									  quote_literal_cstr(shard->low), quote_literal_cstr(shard->high)));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BbmQuarantined *entry = palloc0(sizeof(BbmQuarantined));

		entry->min.number = bbm_cluster_int64(i, 1);
		entry->max.number = bbm_cluster_int64(i, 2);
		entry->min.key = bbm_cluster_array(i, 3);
		entry->max.key = bbm_cluster_array(i, 4);
		list = lappend(list, entry);
	}
	return list;
}

/* This range is not quarantined any more.  As above. */
void
bbm_shard_error_end(const BbmShard *shard, const BbmBound *min, const BbmBound *max)
{
	char	   *is_it = psprintf(RANGE_OF_ELEMENT " = %s", range_of(min, max));

	if (bbm_cluster_query(GetUserId(),
						  psprintf("UPDATE %s SET errors = (SELECT jsonb_agg(e.e ORDER BY e.n) "
								   "FROM jsonb_array_elements(errors) WITH ORDINALITY e (e, n) WHERE NOT %s), "
								   "errors_of_whole = (SELECT jsonb_agg(e.e ORDER BY e.n) "
								   "FROM jsonb_array_elements(errors_of_whole) WITH ORDINALITY e (e, n) WHERE NOT %s) "
								   "WHERE kind = 'shard' AND low = %s AND high = %s AND epoch = " INT64_FORMAT,
								   shard->record, is_it, is_it, quote_literal_cstr(shard->low),
								   quote_literal_cstr(shard->high), shard->epoch)) != 1)
		bbm_shard_record_is_lost(shard);
}

/* The number of the table's shard that begins with this hash value. */
static int64
shard_from(Oid relid, const char *low)
{
	return bbm_cluster_query(GetUserId(),
							 psprintf("SELECT shardid FROM pg_catalog.pg_dist_shard WHERE logicalrelid = %u "
									  "AND coalesce(shardminvalue, '') = %s", relid, quote_literal_cstr(low))) > 0 ?
		bbm_cluster_int64(0, 1) : 0;
}

/*
 * Reads those of all shards, on the coordinator, as a jsonb array of shards, in
 * the current memory context.  Raises an error when a node does not answer.
 */
char *
bbm_shard_errors_read(const char *record, Oid relid)
{
	uint64		n = bbm_cluster_query(GetUserId(),
									  psprintf("SELECT low, errors FROM %s WHERE kind = 'shard' AND errors IS NOT NULL", record));
	char	  **low = palloc(n * sizeof(char *));
	char	  **errors = palloc(n * sizeof(char *));
	StringInfoData buf;

	for (uint64 i = 0; i < n; i++)
	{
		low[i] = bbm_cluster_text(i, 1);
		errors[i] = bbm_cluster_text(i, 2);
	}
	initStringInfo(&buf);
	for (uint64 i = 0; i < n; i++)
		appendStringInfo(&buf, "%s{\"shard\": " INT64_FORMAT ", \"errors\": %s}", i > 0 ? ", " : "",
						 shard_from(relid, low[i]), errors[i]);
	return psprintf("[%s]", buf.data);
}

/* Keeps what bbm_shard_errors_read has read as the migration's.  Caller has bbm_migration_lock. */
void
bbm_shard_errors_show(int64 migration_id, const char *errors)
{
	static BbmSql sql = {
		"INSERT INTO @.bbm_row_errors (migration_id, job_id, at, relation_name, min_value, max_value, min_key, max_key, "
		"error_sqlstate, error_message, error_detail, error_hint, error_context) "
		"SELECT $1, j.id, e.at, j.relation_name, e.min_value, e.max_value, e.min_key, e.max_key, e.error_sqlstate, "
		"e.error_message, e.error_detail, e.error_hint, e.error_context "
		"FROM jsonb_to_recordset($2::jsonb) AS s(shard bigint, errors jsonb) "
		"JOIN @.batched_background_migration_jobs j ON j.batched_background_migration_id = $1 AND j.min_value = s.shard "
		"CROSS JOIN jsonb_to_recordset(s.errors) AS e(at timestamptz, min_value bigint, max_value bigint, min_key text[], "
		"max_key text[], error_sqlstate text, error_message text, error_detail text, error_hint text, error_context text) "
		"ORDER BY s.shard, e.at",
		2, {INT8OID, TEXTOID}
	};

	bbm_errors_forget(migration_id);
	bbm_sql_run(&sql, true, Int64GetDatum(migration_id), CStringGetTextDatum(errors));
}
