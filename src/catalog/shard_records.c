/*-------------------------------------------------------------------------
 *
 * shard_records.c
 *		The record of a migration of a distributed table, as the coordinator
 *		sees it.
 *
 * NOTES
 *	  The record has two rows for each shard: what is done in it, which its
 *	  node writes with each batch, and what is to be done, which only we write:
 *	  so a pause does not wait for a batch.  The key of both hashes into the
 *	  shard, so that they go where the shard goes.
 *
 *	  When Citus splits a shard, both rows go to one of its parts, with the
 *	  hash values of the whole.  No batch runs in any part until its own rows
 *	  are there; we copy them from those of the whole, all in one transaction
 *	  of Citus, which commits on all nodes or on none.  What is quarantined in
 *	  the whole is shown, and counted, as one part's; but nobody knows in which
 *	  part its rows are now, so that all parts try it again.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shard_records.h"

#include "catalog/dependency.h"
#include "catalog/pg_class_d.h"
#include "catalog/pg_extension_d.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "base/point.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/jobs.h"
#include "catalog/shards.h"
#include "catalog/sql.h"
#include "catalog/totals.h"

/* How many values are tried at first, for each shard, and at most. */
#define FIRST_VALUES 64
#define MOST_VALUES 1000000

/* Reads how Citus has distributed the table; false if it has not. */
bool
bbm_distribution(Oid relid, BbmDistribution *d)
{
	char	   *column;

	memset(d, 0, sizeof(BbmDistribution));
	if (!bbm_citus_is_here() ||
		bbm_cluster_query(GetUserId(),
						  psprintf("SELECT p.partmethod, p.repmodel, p.colocationid, "
								   "CASE WHEN p.partkey IS NOT NULL THEN column_to_column_name(p.logicalrelid, p.partkey) END, "
								   "(SELECT count(*) FROM pg_catalog.pg_dist_shard s WHERE s.logicalrelid = p.logicalrelid), "
								   "(SELECT count(*) FROM pg_catalog.pg_dist_shard s JOIN pg_catalog.pg_dist_placement l "
								   " ON l.shardid = s.shardid WHERE s.logicalrelid = p.logicalrelid), "
								   "EXISTS (SELECT FROM pg_catalog.pg_dist_schema n JOIN pg_catalog.pg_class c ON c.relnamespace = n.schemaid "
								   " WHERE c.oid = p.logicalrelid) "
								   "FROM pg_catalog.pg_dist_partition p WHERE p.logicalrelid = %u", relid)) == 0)
		return false;
	d->method = bbm_cluster_text(0, 1)[0];
	d->replication = bbm_cluster_text(0, 2)[0];
	d->colocation = (int) bbm_cluster_int64(0, 3);
	column = bbm_cluster_text(0, 4);
	d->column = column ? pstrdup(column) : NULL;
	d->shards = (int) bbm_cluster_int64(0, 5);
	d->placements = (int) bbm_cluster_int64(0, 6);
	d->of_tenant = bbm_cluster_bool(0, 7);
	return true;
}

/* ----------------------------------------------------------------
 * Keys that hash into a shard
 * ----------------------------------------------------------------
 */

/* An expression that makes values of the type from the number i; NULL if we know none. */
static char *
value_expression(Oid type)
{
	char	   *name = format_type_be_qualified(type);
	char		category;
	bool		preferred;

	if (type == UUIDOID)
		return pstrdup("pg_catalog.md5(i::pg_catalog.text)::pg_catalog.uuid");
	if (type == INT2OID)
		return pstrdup("(i % 32768)::pg_catalog.int2");
	if (type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID)
		return psprintf("('2000-01-01'::pg_catalog.date + i::pg_catalog.int4)::%s", name);
	get_type_category_preferred(type, &category, &preferred);
	if (category == TYPCATEGORY_NUMERIC || category == TYPCATEGORY_STRING)
		return psprintf("i::pg_catalog.text::%s", name);
	return NULL;
}

/* A shard of a table, and a value of the distribution column that hashes into it, as text. */
typedef struct Shard
{
	int64		id;
	char	   *low;
	char	   *high;
	char	   *value;			/* NULL: none was found */
} Shard;

static Shard *
shard_of(List *shards, int64 id)
{
	ListCell   *cell;

	foreach(cell, shards)
	{
		if (((Shard *) lfirst(cell))->id == id)
			return lfirst(cell);
	}
	return NULL;
}

static List *
read_shards(Oid relid)
{
	List	   *shards = NIL;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT shardid, coalesce(shardminvalue, ''), coalesce(shardmaxvalue, '') "
									  "FROM pg_catalog.pg_dist_shard WHERE logicalrelid = %u ORDER BY shardid", relid));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Shard	   *shard = palloc0(sizeof(Shard));

		shard->id = bbm_cluster_int64(i, 1);
		shard->low = bbm_cluster_text(i, 2);
		shard->high = bbm_cluster_text(i, 3);
		shards = lappend(shards, shard);
	}
	return shards;
}

static int
without_value(List *shards)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, shards)
		n += ((Shard *) lfirst(cell))->value == NULL;
	return n;
}

/* Sets the values of the last statement, (shard, value). */
static void
set_values(List *shards)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Shard	   *shard = shard_of(shards, bbm_cluster_int64(i, 1));

		if (shard && shard->value == NULL)
			shard->value = bbm_cluster_text(i, 2);
	}
}

/*
 * Finds a value for each shard: Citus says where one goes.  A shard of few
 * hash values, as a single tenant's, is hardly hit by chance: a row of its own
 * has such a value.  A shard that is empty, too, remains without.
 */
static void
find_values(Oid user, Oid relid, const char *column, List *shards)
{
	Oid			type = column ? get_atttype(relid, get_attnum(relid, column)) : INT8OID;
	char	   *value = value_expression(type);
	int			least = list_length(shards) * FIRST_VALUES;
	char	   *command;
	ListCell   *cell;

	if (column == NULL)
	{
		foreach(cell, shards)
			((Shard *) lfirst(cell))->value = "0";
		return;
	}
	for (int n = least, from = 1; value && without_value(shards) > 0 && n <= MOST_VALUES; from = n + 1, n *= 8)
	{
		(void) bbm_cluster_query(GetUserId(),
								 psprintf("SELECT shard, min(value::text) FROM (SELECT v.value, "
										  "get_shard_id_for_distribution_column(%u::regclass, v.value) AS shard "
										  "FROM (SELECT %s AS value FROM generate_series(%d, %d) i) v) s GROUP BY shard",
										  relid, value, from, n));
		set_values(shards);
	}
	if (without_value(shards) == 0)
		return;
	command = psprintf("SELECT %s::text FROM %%s WHERE %s IS NOT NULL LIMIT 1", quote_identifier(column),
					   quote_identifier(column));
	(void) bbm_cluster_query(user,
							 psprintf("SELECT shardid, result FROM run_command_on_shards(%u::regclass, %s) WHERE success AND result <> ''",
									  relid, quote_literal_cstr(command)));
	set_values(shards);
}

/* ----------------------------------------------------------------
 * The record
 * ----------------------------------------------------------------
 */

/*
 * The record's name.  A schema that is distributed as a whole has its own
 * group of colocated tables, with the tables that are created in it and no
 * others.
 */
static char *
record_name(int64 migration_id, Oid relid, const BbmDistribution *d)
{
	char	   *schema = d->of_tenant ? get_namespace_name(get_rel_namespace(relid)) : "bbm_internal";

	return quote_qualified_identifier(schema, psprintf("bbm_shards_" INT64_FORMAT, migration_id));
}

/* DROP EXTENSION names the record, or drops it, as it does with what is in a schema of the extension. */
static void
depend_on_extension(const char *record)
{
	ObjectAddress table = {RelationRelationId};
	ObjectAddress extension = {ExtensionRelationId, bbm_catalog()->extension};

	(void) bbm_cluster_query(bbm_catalog()->owner, psprintf("SELECT %s::regclass::oid", quote_literal_cstr(record)));
	table.objectId = (Oid) bbm_cluster_int64(0, 1);
	recordDependencyOn(&table, &extension, DEPENDENCY_NORMAL);
}

static void
create_table(const char *record, int64 migration_id, Oid relid, const BbmDistribution *d, Oid owner)
{
	Oid			us = bbm_catalog()->owner;
	Oid			type = INT8OID;
	int32		typmod = -1;
	Oid			collation = InvalidOid;
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));

	if (d->column)
		get_atttypetypmodcoll(relid, get_attnum(relid, d->column), &type, &typmod, &collation);
	bbm_cluster_command(us, psprintf("CREATE TABLE %s (key %s%s%s NOT NULL, low text NOT NULL, high text NOT NULL, "
									 "kind text NOT NULL, active boolean, definition jsonb, epoch bigint NOT NULL DEFAULT 0, "
									 "state text, cursor_value bigint, cursor_key text[], bounds jsonb, "
									 "row_count bigint NOT NULL DEFAULT 0, key_count bigint NOT NULL DEFAULT 0, errors jsonb, "
									 "errors_of_whole jsonb, retries jsonb, repairs boolean NOT NULL DEFAULT false, updated_at timestamptz, PRIMARY KEY (key, low, high, kind)) WITH (fillfactor = 10)",
									 record, format_type_with_typemod(type, typmod), OidIsValid(collation) ? " COLLATE " : "",
									 OidIsValid(collation) ? generate_collation_name(collation) : ""));
	(void) bbm_cluster_query(us, psprintf("COMMENT ON TABLE %s IS %s", record,
										  quote_literal_cstr(psprintf("bbm: what is done in each shard, by migration " INT64_FORMAT, migration_id))));
	(void) bbm_cluster_query(us, psprintf("ALTER TABLE %s OWNER TO %s", record,
										  quote_identifier(GetUserNameFromId(owner, false))));
	/* there, Citus has distributed it when it was created */
	if (d->of_tenant)
	{
		depend_on_extension(record);
		return;
	}
	/* the transaction's other statements may have used one connection for each shard, and so does this */
	(void) bbm_cluster_query(us, psprintf("SELECT create_distributed_table(%s, %s, colocate_with => %s)",
										  quote_literal_cstr(record), d->column ? "'key'" : "NULL",
										  quote_literal_cstr(table)));
}

static void
no_value(const char *table, int64 shard)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("found no value of the distribution column for shard " INT64_FORMAT " of table \"%s\"", shard, table),
			 errdetail("What is done in a shard is recorded in a row that goes where the shard goes; the shard has no row to learn its values from."),
			 errhint("Insert the rows of that shard first, or distribute the table by a column of a number, a text, a date or a uuid.")));
}

/* The migration's row, as jsonb. */
static char *
definition_of(int64 migration_id)
{
	(void) bbm_cluster_query(bbm_catalog()->owner,
							 psprintf("SELECT to_jsonb(m) FROM %s.batched_background_migrations m WHERE id = " INT64_FORMAT,
									  bbm_catalog()->schema, migration_id));
	return bbm_cluster_text(0, 1);
}

/*
 * Creates the record of a migration whose row is there, colocated with the
 * table; returns its name.  All of it is part of the caller's transaction, on
 * all nodes.
 */
char *
bbm_shard_record_create(int64 migration_id, Oid relid, const BbmDistribution *d, Oid owner, bool active)
{
	char	   *record = record_name(migration_id, relid, d);
	List	   *shards = read_shards(relid);
	StringInfoData values;
	char	   *definition;
	ListCell   *cell;

	find_values(GetUserId(), relid, d->column, shards);
	create_table(record, migration_id, relid, d, owner);
	definition = quote_literal_cstr(definition_of(migration_id));
	initStringInfo(&values);
	foreach(cell, shards)
	{
		Shard	   *shard = lfirst(cell);
		char	   *low = quote_literal_cstr(shard->low);
		char	   *high = quote_literal_cstr(shard->high);

		if (shard->value == NULL)
			no_value(get_rel_name(relid), shard->id);
		appendStringInfo(&values, "%s(%s, %s, %s, 'control', %s, %s::jsonb, NULL), (%s, %s, %s, 'shard', NULL, NULL, 'new')",
						 values.len > 0 ? ", " : "", quote_literal_cstr(shard->value), low, high,
						 active ? "true" : "false", definition, quote_literal_cstr(shard->value), low, high);
	}
	(void) bbm_cluster_query(bbm_catalog()->owner,
							 psprintf("INSERT INTO %s (key, low, high, kind, active, definition, state) VALUES %s", record,
									  values.data));
	return record;
}

/* The command by which a node brings its migrations into line with the record, and reports; see bbm_shards_sync. */
char *
bbm_shards_sync_command(const char *record, const char *table, const char *action)
{
	return psprintf("SELECT bbm_internal.bbm_shards_sync(%s, %s, %s)", quote_literal_cstr(record),
					quote_literal_cstr(table), quote_literal_cstr(action));
}

/*
 * The command by which a node says that it answers and has its part of the
 * record.  That is gone when somebody has dropped the extension there.
 */
char *
bbm_shards_record_command(const char *record)
{
	return psprintf("SELECT CASE WHEN pg_catalog.to_regclass(%s) IS NULL THEN '' ELSE '[]' END", quote_literal_cstr(record));
}

/*
 * The nodes end what they have of it, each in a transaction of its own: if ours
 * is rolled back, they start it again.  A node may do so between the two
 * statements, too, because the coordinator has asked just then; that ends by
 * itself when its next batch does not find the record.  The DROP waits for batches in
 * flight, which have locked their shards of the record.
 */
void
bbm_shard_record_drop(Oid owner, const char *record)
{
	(void) bbm_cluster_query(owner,
							 psprintf("SELECT count(*) FROM run_command_on_all_nodes(%s, give_warning_for_connection_errors => false) "
									  "WHERE to_regclass(%s) IS NOT NULL",
									  quote_literal_cstr(bbm_shards_sync_command(record, "", "end")),
									  quote_literal_cstr(record)));
	BBM_POINT("drop-ended");
	(void) bbm_cluster_query(bbm_catalog()->owner, psprintf("DROP TABLE IF EXISTS %s", record));
}

/* Needs SPI. */
bool
bbm_shard_record_is_here(Oid user, const char *record)
{
	return bbm_cluster_query(user, psprintf("SELECT 1 WHERE pg_catalog.to_regclass(%s) IS NOT NULL",
												   quote_literal_cstr(record))) > 0;
}

/* Does the table exist, and belong to another than the current user?  Needs SPI. */
bool
bbm_shard_record_is_foreign(const char *record)
{
	return bbm_cluster_query(GetUserId(),
							 psprintf("SELECT 1 FROM pg_catalog.pg_class WHERE oid = to_regclass(%s) AND relowner <> %u",
									  quote_literal_cstr(record), GetUserId())) > 0;
}

/* Batches that begin after the commit see it, on each node. */
void
bbm_shard_record_activate(Oid owner, const char *record, bool active)
{
	if (bbm_shard_record_is_here(owner, record))
		(void) bbm_cluster_query(owner, psprintf("UPDATE %s SET active = %s WHERE kind = 'control' AND active IS DISTINCT FROM %s",
												 record, active ? "true" : "false", active ? "true" : "false"));
}

/*
 * The migration's row has been altered, in this transaction.  Each node adopts
 * that when it is asked the next time: the epoch of what is to be done says that
 * there is something new.  As above, no batch waits for us, and we wait for no
 * batch.
 */
void
bbm_shard_record_define(Oid owner, const char *record, int64 migration_id)
{
	(void) bbm_cluster_query(owner, psprintf("UPDATE %s SET definition = %s::jsonb, epoch = epoch + 1 WHERE kind = 'control'",
											 record, quote_literal_cstr(definition_of(migration_id))));
}

/* How many shards the record has; and locks the metadata of these, so that none of them is moved or split. */
static int64
lock_shards(Oid owner, const char *record)
{
	(void) bbm_cluster_query(owner,
							 psprintf("SELECT count(*) FROM (SELECT lock_shard_metadata(5, array_agg(s.shardid ORDER BY s.shardid)) "
									  "FROM pg_catalog.pg_dist_shard s WHERE s.logicalrelid = to_regclass(%s)) l",
									  quote_literal_cstr(record)));
	(void) bbm_cluster_query(owner, psprintf("SELECT count(*) FROM pg_catalog.pg_dist_shard WHERE logicalrelid = to_regclass(%s)",
											 quote_literal_cstr(record)));
	return bbm_cluster_int64(0, 1);
}

/*
 * After a split: gives each shard its own rows, with the cursor of the shard
 * that it was a part of.  Returns how many shards have none, because they are
 * empty and no value is known that would be in them.  "reported" is how many
 * shards there were when that was found out: where there are others now, the
 * next call does it, as the caller's count does not include them.
 *
 * No batch moves the cursor meanwhile: none runs in a shard whose rows have
 * other hash values than the shard itself, and those of the whole are not in
 * use by any shard.  There is no other split either until we commit: it would
 * wait for the lock of the shard's metadata.  Citus commits on the other nodes
 * after us, so our commit has to survive a crash: what they have prepared would be
 * rolled back on those which it has not told yet.  A split that came before we had
 * that lock has made the shards more; no split makes them fewer.
 */
int
bbm_shard_records_complete(Oid owner, const char *record, Oid relid, int reported)
{
	BbmDistribution d;
	List	   *shards;
	List	   *missing = NIL;
	StringInfoData known;
	int			empty = 0;
	ListCell   *cell;

	BBM_POINT("parts-begin");
	if (!bbm_distribution(relid, &d) || lock_shards(owner, record) != reported)
		return 0;
	shards = read_shards(relid);
	initStringInfo(&known);
	foreach(cell, shards)
	{
		Shard	   *shard = lfirst(cell);
		char	   *is_his = psprintf("low = %s AND high = %s", quote_literal_cstr(shard->low), quote_literal_cstr(shard->high));

		appendStringInfo(&known, "%s(%s)", known.len > 0 ? " OR " : "", is_his);
		if (bbm_cluster_query(owner, psprintf("SELECT 1 FROM %s WHERE kind = 'shard' AND %s", record, is_his)) == 0)
			missing = lappend(missing, shard);
	}
	if (missing == NIL || d.column == NULL)
		return 0;
	BBM_POINT("parts-listed");
	find_values(owner, relid, d.column, missing);
	foreach(cell, missing)
	{
		Shard	   *shard = lfirst(cell);
		char	   *low = quote_literal_cstr(shard->low);

		if (shard->value == NULL)
		{
			empty++;
			continue;
		}
		bbm_txn_flush();
		(void) bbm_cluster_query(owner,
								 psprintf("INSERT INTO %s (key, low, high, kind, active, definition, epoch, state, cursor_value, "
										  "cursor_key, bounds, row_count, key_count, errors, errors_of_whole, retries, repairs, updated_at) "
										  "SELECT %s::%s, %s, %s, kind, active, definition, epoch, state, cursor_value, cursor_key, "
										  "bounds, CASE WHEN low = %s THEN row_count ELSE 0 END, "
										  "CASE WHEN low = %s THEN key_count ELSE 0 END, CASE WHEN low = %s THEN errors END, "
										  "CASE WHEN low = %s OR errors IS NULL THEN errors_of_whole ELSE coalesce(errors_of_whole, '[]') || errors END, "
										  "retries, repairs, updated_at "
										  "FROM %s WHERE low::integer <= %s AND high::integer >= %s AND NOT (%s)", record,
										  quote_literal_cstr(shard->value),
										  format_type_be_qualified(get_atttype(relid, get_attnum(relid, d.column))),
										  low, quote_literal_cstr(shard->high), low, low, low, low, record, shard->low,
										  shard->high, known.data));
	}
	BBM_POINT("parts-copied");
	(void) bbm_cluster_query(owner, psprintf("DELETE FROM %s WHERE NOT (%s)", record, known.data));
	return empty;
}

/* Where the shards of the table are, as a text that is the same as long as they are the same shards, there. */
char *
bbm_shard_places(Oid relid)
{
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT coalesce(string_agg(s.shardid || ' ' || p.groupid, ', ' ORDER BY s.shardid, p.groupid), '') "
									  "FROM pg_catalog.pg_dist_shard s JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid "
									  "WHERE s.logicalrelid = %u", relid));
	return bbm_cluster_text(0, 1);
}

/* ----------------------------------------------------------------
 * What the nodes report
 * ----------------------------------------------------------------
 */

/* Which nodes do not return this from the command, and what they return instead; NULL: none. */
char *
bbm_cluster_nodes_ready(const char *command, const char *version)
{
	StringInfoData others;

	initStringInfo(&others);
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT coalesce(n.nodename || ':' || n.nodeport, 'this node'), c.success, c.result, "
									  "n.hasmetadata AND n.metadatasynced "
									  "FROM run_command_on_all_nodes(%s, give_warning_for_connection_errors => false) c "
									  "LEFT JOIN pg_catalog.pg_dist_node n ON n.nodeid = c.nodeid ORDER BY 1",
									  quote_literal_cstr(command)));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *result = bbm_cluster_text(i, 3);
		char	   *synced = bbm_cluster_text(i, 4);
		bool		success = bbm_cluster_bool(i, 2);

		if (success && result && strcmp(result, version) == 0 && (synced == NULL || strcmp(synced, "t") == 0))
			continue;
		appendStringInfo(&others, "%s%s: %s", others.len > 0 ? "; " : "", bbm_cluster_text(i, 1),
						 !success ? result ? result : "no answer" :
						 result == NULL || strcmp(result, version) != 0 ? psprintf("version %s", result ? result : "none") :
						 "its metadata are not synced");
	}
	return others.len > 0 ? others.data : NULL;
}

/*
 * Runs the command as this user on each node, in a transaction of its own, and
 * joins what they return, which are jsonb arrays; with a record only on nodes
 * that have shards of it.  A node that returns something else has no record.
 */
void
bbm_cluster_ask(Oid user, const char *record, const char *command, BbmClusterReport *report)
{
	const char *which = record == NULL ? "" :
		psprintf("WHERE n.nodeid IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_dist_placement p "
				 "JOIN pg_catalog.pg_dist_shard s ON s.shardid = p.shardid "
				 "WHERE p.groupid = n.groupid AND s.logicalrelid = to_regclass(%s)) ", quote_literal_cstr(record));
	StringInfoData all;
	StringInfoData silent;
	StringInfoData trouble;

	memset(report, 0, sizeof(BbmClusterReport));
	initStringInfo(&all);
	initStringInfo(&silent);
	initStringInfo(&trouble);
	(void) bbm_cluster_query(user,
							 psprintf("SELECT coalesce(n.nodename || ':' || n.nodeport, 'this node'), c.success, c.result "
									  "FROM run_command_on_all_nodes(%s, give_warning_for_connection_errors => false) c "
									  "LEFT JOIN pg_catalog.pg_dist_node n ON n.nodeid = c.nodeid %sORDER BY 1",
									  quote_literal_cstr(command), which));
	report->nodes = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *result = bbm_cluster_text(i, 3);
		size_t		length = result ? strlen(result) : 0;
		bool		success = bbm_cluster_bool(i, 2);

		if (!success || length == 0)
		{
			report->silent++;
			report->lacking += success;
			appendStringInfo(&silent, "%s%s", silent.len > 0 ? ", " : "", bbm_cluster_text(i, 1));
			appendStringInfo(&trouble, "%snode %s: %s", trouble.len > 0 ? "; " : "", bbm_cluster_text(i, 1),
							 success ? "the record of what is done in its shards is gone, with the extension bbm" :
							 result ? result : "no answer");
		}
		else if (length > 2)
			appendStringInfo(&all, "%s%.*s", all.len > 0 ? ", " : "", (int) length - 2, result + 1);
	}
	report->shards = psprintf("[%s]", all.data);
	report->silent_nodes = silent.len > 0 ? silent.data : NULL;
	report->trouble = trouble.len > 0 ? trouble.data : NULL;
}

/*
 * What the reports come to; of several failures, one that is not what
 * verification has found, if there is such a one.  The table's shards are read after the reports:
 * one that was split meanwhile is not among them, and its parts have no report.
 */
void
bbm_cluster_state(const char *record, Oid relid, const char *shards, BbmClusterState *state)
{
	memset(state, 0, sizeof(BbmClusterState));
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT count(*), count(*) FILTER (WHERE f.state = 'finished'), "
									  "count(*) FILTER (WHERE f.state = 'failed'), count(*) FILTER (WHERE f.state IS NULL), "
									  "count(*) FILTER (WHERE f.state = 'unrecorded'), "
									  "(array_agg(f.error ORDER BY coalesce(f.found, 0) > 0, f.id) FILTER (WHERE f.state = 'failed'))[1], "
									  "(array_agg(f.sqlstate ORDER BY coalesce(f.found, 0) > 0, f.id) FILTER (WHERE f.state = 'failed'))[1], "
									  "(array_agg(f.name ORDER BY coalesce(f.found, 0) > 0, f.id) FILTER (WHERE f.state = 'failed'))[1], "
									  "min(f.waiting) FILTER (WHERE f.state NOT IN ('finished', 'failed')), "
									  "(SELECT count(DISTINCT p.colocationid) = 1 AND count(*) = 2 FROM pg_catalog.pg_dist_partition p "
									  " WHERE p.logicalrelid IN (%u, to_regclass(%s))), sum(f.errors), "
									  "(array_agg(f.detail ORDER BY coalesce(f.found, 0) > 0, f.id) FILTER (WHERE f.state = 'failed'))[1], "
									  "count(*) FILTER (WHERE f.state = 'failed' AND f.found > 0), sum(f.found) FILTER (WHERE f.state = 'failed'), "
									  "sum(f.keys), CASE WHEN count(*) = count(f.total) THEN sum(f.total) END "
									  "FROM pg_catalog.pg_dist_shard s LEFT JOIN (SELECT DISTINCT ON (r.id) * FROM "
									  "jsonb_to_recordset(%s) AS r(id bigint, name text, state text, error text, detail text, sqlstate text, waiting text, errors bigint, found bigint, "
									  "keys bigint, total bigint) ORDER BY r.id, r.state = 'finished' DESC) f ON f.id = s.shardid WHERE s.logicalrelid = %u",
									  relid, quote_literal_cstr(record), quote_literal_cstr(shards), relid));
	state->shards = (int) bbm_cluster_int64(0, 1);
	state->finished = (int) bbm_cluster_int64(0, 2);
	state->failed = (int) bbm_cluster_int64(0, 3);
	state->missing = (int) bbm_cluster_int64(0, 4);
	state->unrecorded = (int) bbm_cluster_int64(0, 5);
	state->failure = bbm_cluster_text(0, 6);
	state->sqlstate = bbm_cluster_text(0, 7);
	state->failed_shard = bbm_cluster_text(0, 8);
	state->waiting = bbm_cluster_text(0, 9);
	state->same_table = bbm_cluster_bool(0, 10);
	state->errors = bbm_cluster_int64(0, 11);
	state->detail = bbm_cluster_text(0, 12);
	state->not_right = (int) bbm_cluster_int64(0, 13);
	state->found = bbm_cluster_int64(0, 14);
	state->keys = bbm_cluster_int64(0, 15);
	state->total = bbm_cluster_int64(0, 16);
}

/*
 * Shows the shards as jobs of the migration, so that everything that reads
 * jobs shows what the nodes do; "complete" says that all shards are reported.
 * Caller has bbm_migration_lock.
 */
void
bbm_cluster_show(int64 migration_id, const char *shards, bool complete)
{
	static BbmSql update = {
		"UPDATE @.batched_background_migration_jobs j SET status = s.status, row_count = s.rows, key_count = s.keys, "
		"cursor_value = s.id, updated_at = clock_timestamp(), finished_at = CASE WHEN s.status = 2 THEN clock_timestamp() END, "
		"error_message = s.error, error_sqlstate = s.sqlstate "
		"FROM jsonb_to_recordset($2::jsonb) AS s(id bigint, name text, status smallint, rows bigint, keys bigint, error text, sqlstate text) "
		"WHERE j.batched_background_migration_id = $1 AND j.relation_name = s.name AND j.min_value = s.id AND j.status <> 2 "
		"AND (j.status, j.row_count, j.key_count) IS DISTINCT FROM (s.status, s.rows, s.keys)",
		2, {INT8OID, TEXTOID}
	};
	static BbmSql insert = {
		"INSERT INTO @.batched_background_migration_jobs (batched_background_migration_id, min_value, max_value, status, "
		"row_count, key_count, cursor_value, relation_name, started_at, updated_at, finished_at, error_message, error_sqlstate) "
		"SELECT $1, s.id, s.id, s.status, s.rows, s.keys, s.id, s.name, clock_timestamp(), clock_timestamp(), "
		"CASE WHEN s.status = 2 THEN clock_timestamp() END, s.error, s.sqlstate "
		"FROM jsonb_to_recordset($2::jsonb) AS s(id bigint, name text, status smallint, rows bigint, keys bigint, error text, sqlstate text) "
		"WHERE NOT EXISTS (SELECT 1 FROM @.batched_background_migration_jobs j "
		"WHERE j.batched_background_migration_id = $1 AND j.min_value = s.id)",
		2, {INT8OID, TEXTOID}
	};
	static BbmSql total = {
		"UPDATE @.batched_background_migrations SET total_tuple_count = s.total "
		"FROM (SELECT sum(r.total)::bigint AS total FROM jsonb_to_recordset($2::jsonb) AS r(total bigint) "
		"HAVING count(*) > 0 AND count(*) = count(r.total)) s "
		"WHERE id = $1 AND total_tuple_count IS NULL",
		2, {INT8OID, TEXTOID}
	};
	/* a shard that was split is not there any more, and its rows are counted in its parts */
	static BbmSql delete = {
		"DELETE FROM @.batched_background_migration_jobs j WHERE j.batched_background_migration_id = $1 "
		"AND NOT EXISTS (SELECT 1 FROM jsonb_to_recordset($2::jsonb) AS s(id bigint) WHERE s.id = j.min_value)",
		2, {INT8OID, TEXTOID}
	};
	Datum		values[] = {Int64GetDatum(migration_id), CStringGetTextDatum(shards)};

	if (complete)
	{
		bbm_sql_run_values(&delete, values, NULL, true);
		if (SPI_processed > 0)
			bbm_totals_forget(migration_id);
	}
	bbm_sql_run_values(&update, values, NULL, true);
	bbm_sql_run_values(&insert, values, NULL, true);
	bbm_sql_run_values(&total, values, NULL, true);
}

/*
 * Shards that are finished may have work again: none is shown as finished until
 * its node says so again.  Caller has bbm_migration_lock.
 */
void
bbm_cluster_show_unfinished(int64 migration_id)
{
	static BbmSql sql = {
		"UPDATE @.batched_background_migration_jobs SET status = 1, finished_at = NULL, updated_at = clock_timestamp() "
		"WHERE batched_background_migration_id = $1 AND status = 2",
		1, {INT8OID}
	};

	bbm_sql_run(&sql, true, Int64GetDatum(migration_id));
	bbm_totals_forget(migration_id);
}
