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
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/point.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/shards.h"
#include "catalog/sql.h"
#include "catalog/totals.h"

/* ----------------------------------------------------------------
 * The record
 * ----------------------------------------------------------------
 */

/* The lowest hash value, and the highest. */
#define ALL_HASHES "-2147483648", "2147483647"

/*
 * The record's name.  A schema that is distributed as a whole has its own
 * group of colocated tables, with the tables that are created in it and no
 * others.  And Citus creates a shard that it moves as the table's owner: one who is no
 * superuser may not create anything in our schema, where functions of ours are, but
 * may beside the table.
 */
static char *
record_name(int64 migration_id, Oid relid, const BbmDistribution *d, Oid owner)
{
	char	   *schema = d->of_tenant || !superuser_arg(owner) ? get_namespace_name(get_rel_namespace(relid)) : "bbm_internal";

	return quote_qualified_identifier(schema, psprintf("bbm_shards_" INT64_FORMAT, migration_id));
}

/* Raises an error for an owner as whom Citus could not create the record's shards where it moves them. */
static void
check_may_create(Oid relid, Oid owner)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	(void) bbm_cluster_query(bbm_catalog()->owner, psprintf("SELECT has_schema_privilege(%u, %u, 'CREATE')", owner,
															get_rel_namespace(relid)));
	if (!bbm_cluster_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", schema),
				 errdetail("What is done in each shard is recorded in a table beside it, which belongs to the migration's owner."),
				 errhint("GRANT CREATE ON SCHEMA %s TO %s.", quote_identifier(schema),
						 quote_identifier(GetUserNameFromId(owner, false)))));
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
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));

	bbm_cluster_command(us, psprintf("CREATE TABLE %s (key %s%s%s NOT NULL, low text NOT NULL, high text NOT NULL, "
									 "kind text NOT NULL, active boolean, definition jsonb, epoch bigint NOT NULL DEFAULT 0, "
									 "state text, cursor_value bigint, cursor_key text[], bounds jsonb, "
									 "row_count bigint NOT NULL DEFAULT 0, key_count bigint NOT NULL DEFAULT 0, errors jsonb, "
									 "errors_of_whole jsonb, retries jsonb, repairs boolean NOT NULL DEFAULT false, updated_at timestamptz, PRIMARY KEY (key, low, high, kind)) WITH (fillfactor = 10)",
									 record, d->column ? d->type : "bigint", d->collation ? " COLLATE " : "",
									 d->collation ? d->collation : ""));
	(void) bbm_cluster_query(us, psprintf("COMMENT ON TABLE %s IS %s", record,
										  quote_literal_cstr(psprintf("bbm: what is done in each shard, by migration " INT64_FORMAT, migration_id))));
	(void) bbm_cluster_query(us, psprintf("ALTER TABLE %s OWNER TO %s", record,
										  quote_identifier(GetUserNameFromId(owner, false))));
	/*
	 * In a distributed schema, Citus has distributed it when it was created.  The
	 * transaction's other statements may have used one connection for each shard, and so does this.
	 */
	if (!d->of_tenant)
		(void) bbm_cluster_query(us, psprintf("SELECT create_distributed_table(%s, %s, colocate_with => %s)",
											  quote_literal_cstr(record), d->column ? "'key'" : "NULL",
											  quote_literal_cstr(table)));
	if (d->of_tenant || !superuser_arg(owner))
		depend_on_extension(record);
}

static void
no_value(const char *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("found no value of the distribution column of table \"%s\"", table),
			 errdetail("What is done in a shard is recorded in a row that goes where the shard goes; no shard has a row to learn a value from."),
			 errhint("Insert the rows first, or distribute the table by a column of a number, a text, a date or a uuid.")));
}

/* Adds the two rows of the record that are about these hash values. */
static void
append_rows(StringInfo values, const char *key, const char *low, const char *high, bool active, const char *definition)
{
	char	   *of = psprintf("%s, %s, %s", quote_literal_cstr(key), quote_literal_cstr(low), quote_literal_cstr(high));

	appendStringInfo(values, "%s(%s, 'control', %s, %s::jsonb, NULL), (%s, 'shard', NULL, NULL, 'new')",
					 values->len > 0 ? ", " : "", of, active ? "true" : "false", definition, of);
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
	char	   *record = record_name(migration_id, relid, d, owner);
	List	   *shards = bbm_distribution_shards(relid);
	StringInfoData values;
	const char *key = NULL;
	char	   *definition;
	bool		empty = false;
	ListCell   *cell;

	check_may_create(relid, owner);
	bbm_distribution_values(GetUserId(), relid, d, shards);
	create_table(record, migration_id, relid, d, owner);
	definition = quote_literal_cstr(definition_of(migration_id));
	initStringInfo(&values);
	foreach(cell, shards)
	{
		BbmDistributionShard *shard = lfirst(cell);

		if (shard->value)
			append_rows(&values, key = shard->value, shard->low, shard->high, active, definition);
		else
			empty = true;
	}
	if (key == NULL)
		no_value(get_rel_name(relid));
	/* an empty shard gets its rows from these when it has a row, as after a split */
	if (empty)
		append_rows(&values, key, ALL_HASHES, active, definition);
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

/*
 * Batches that begin after the commit see it, on each node.  Rows that say so
 * already are written, too: after a crash of this server, a node may have a
 * change prepared that says the opposite, and which Citus is about to commit
 * there.  Then this waits for that.
 */
void
bbm_shard_record_activate(Oid owner, const char *record, bool active)
{
	if (bbm_shard_record_is_here(owner, record))
		(void) bbm_cluster_query(owner, psprintf("UPDATE %s SET active = %s WHERE kind = 'control'", record,
												 active ? "true" : "false"));
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
 * Gives a part of a shard that was split rows of its own, from those that are
 * about hash values of no shard (not "known") but include its own: of several, a
 * part that was split again is the smallest.  The first part shows what is
 * quarantined; if the rows of the whole stay, they do not.  Before a crash of
 * this server we may have done so already: then the node has the same rows
 * prepared, and this waits until Citus commits them there.
 */
static void
add_part(Oid owner, const char *record, const BbmDistribution *d, const BbmDistributionShard *shard, const char *known)
{
	char	   *low = quote_literal_cstr(shard->low);

	bbm_txn_flush();
	(void) bbm_cluster_query(owner,
							 psprintf("INSERT INTO %s (key, low, high, kind, active, definition, epoch, state, cursor_value, "
									  "cursor_key, bounds, row_count, key_count, errors, errors_of_whole, retries, repairs, updated_at) "
									  "SELECT DISTINCT ON (kind) %s::%s, %s, %s, kind, active, definition, epoch, state, cursor_value, cursor_key, "
									  "bounds, CASE WHEN low = %s THEN row_count ELSE 0 END, "
									  "CASE WHEN low = %s THEN key_count ELSE 0 END, CASE WHEN low = %s THEN errors END, "
									  "CASE WHEN low = %s OR errors IS NULL THEN errors_of_whole ELSE coalesce(errors_of_whole, '[]') || errors END, "
									  "retries, repairs, updated_at "
									  "FROM %s WHERE low::integer <= %s AND high::integer >= %s AND NOT (%s) "
									  "ORDER BY kind, high::bigint - low::bigint ON CONFLICT DO NOTHING", record,
									  quote_literal_cstr(shard->value), d->type, low, quote_literal_cstr(shard->high),
									  low, low, low, low, record, shard->low, shard->high, known));
	(void) bbm_cluster_query(owner,
							 psprintf("UPDATE %s SET errors = NULL, errors_of_whole = coalesce(errors_of_whole, '[]') || errors "
									  "WHERE errors IS NOT NULL AND low = %s AND NOT (%s)", record, low, known));
}

/*
 * After a split: gives each shard its own rows, with the cursor of the shard
 * that it was a part of.  Returns how many shards have none, because they are
 * empty and no value is known that would be in them; the rows of the whole stay
 * for these, as they may get a row of the table at any time.  "reported" is how many
 * shards there were when that was found out: where there are others now, the
 * next call does it, as the caller's count does not include them.
 *
 * No batch moves the cursor meanwhile: none runs in a shard whose rows have
 * other hash values than the shard itself, and those of the whole are not in
 * use by any shard.  There is no other split either until we commit: it would
 * wait for the lock of the shard's metadata.  Citus commits on the other nodes
 * after us, so our commit has to survive a crash: what they have prepared would be
 * rolled back on those which do not know of it yet.  A split that came before we had
 * that lock has made the shards more; no split makes them fewer.
 */
int
bbm_shard_records_complete(Oid owner, const char *record, Oid relid, int reported)
{
	BbmDistribution d;
	List	   *missing = NIL;
	StringInfoData known;
	StringInfoData needed;
	int			empty = 0;
	ListCell   *cell;

	BBM_POINT("parts-begin");
	if (!bbm_distribution(relid, &d) || lock_shards(owner, record) != reported)
		return 0;
	initStringInfo(&known);
	initStringInfo(&needed);
	foreach(cell, bbm_distribution_shards(relid))
	{
		BbmDistributionShard *shard = lfirst(cell);
		char	   *is_his = psprintf("low = %s AND high = %s", quote_literal_cstr(shard->low), quote_literal_cstr(shard->high));

		appendStringInfo(&known, "%s(%s)", known.len > 0 ? " OR " : "", is_his);
		if (bbm_cluster_query(owner, psprintf("SELECT 1 FROM %s WHERE kind = 'shard' AND %s", record, is_his)) == 0)
			missing = lappend(missing, shard);
	}
	if (missing == NIL || d.column == NULL)
		return 0;
	BBM_POINT("parts-listed");
	bbm_distribution_values(owner, relid, &d, missing);
	foreach(cell, missing)
	{
		BbmDistributionShard *shard = lfirst(cell);

		if (shard->value)
		{
			add_part(owner, record, &d, shard, known.data);
			continue;
		}
		empty++;
		appendStringInfo(&needed, " OR (low::integer <= %s AND high::integer >= %s)", shard->low, shard->high);
	}
	BBM_POINT("parts-copied");
	(void) bbm_cluster_query(owner, psprintf("DELETE FROM %s WHERE NOT (%s%s)", record, known.data, needed.data));
	return empty;
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
 * Has this transaction created the record?  Then no other session sees it yet,
 * and no node has anything to say about it.  Needs SPI.
 */
static bool
is_new(Oid user, const char *record)
{
	Relation	rel;
	bool		result;

	(void) bbm_cluster_query(user, psprintf("SELECT to_regclass(%s)::oid", quote_literal_cstr(record)));
	rel = RelationIdGetRelation((Oid) bbm_cluster_int64(0, 1));
	result = rel && rel->rd_createSubid != InvalidSubTransactionId;
	if (rel)
		RelationClose(rel);
	return result;
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
	report->shards = "[]";
	if (record && is_new(user, record))
		return;
	initStringInfo(&all);
	initStringInfo(&silent);
	initStringInfo(&trouble);
	(void) bbm_cluster_query(user,
							 psprintf("SELECT coalesce(n.nodename || ':' || n.nodeport, 'this node'), c.success, c.result, "
									  "n.nodeid IS NULL OR (n.hasmetadata AND n.metadatasynced) "
									  "FROM run_command_on_all_nodes(%s, give_warning_for_connection_errors => false) c "
									  "LEFT JOIN pg_catalog.pg_dist_node n ON n.nodeid = c.nodeid %sORDER BY 1",
									  quote_literal_cstr(command), which));
	report->nodes = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *result = bbm_cluster_text(i, 3);
		size_t		length = result ? strlen(result) : 0;
		bool		success = bbm_cluster_bool(i, 2);
		bool		synced = bbm_cluster_bool(i, 4);

		if (!success || length == 0)
		{
			report->silent++;
			report->lacking += success && synced;
			appendStringInfo(&silent, "%s%s", silent.len > 0 ? ", " : "", bbm_cluster_text(i, 1));
			appendStringInfo(&trouble, "%snode %s: %s", trouble.len > 0 ? "; " : "", bbm_cluster_text(i, 1),
							 !success ? result ? result : "no answer" :
							 synced ? "the record of what is done in its shards is gone, with the extension bbm" :
							 "its metadata are not synced (start_metadata_sync_to_node)");
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
									  "sum(f.keys), CASE WHEN count(*) = count(f.total) THEN sum(f.total) END, count(*) FILTER (WHERE f.held) "
									  "FROM pg_catalog.pg_dist_shard s LEFT JOIN (SELECT DISTINCT ON (r.id) * FROM "
									  "jsonb_to_recordset(%s) AS r(id bigint, name text, state text, error text, detail text, sqlstate text, waiting text, errors bigint, found bigint, "
									  "keys bigint, total bigint, held boolean) ORDER BY r.id, r.state = 'finished' DESC) f ON f.id = s.shardid WHERE s.logicalrelid = %u",
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
	state->held = (int) bbm_cluster_int64(0, 17);
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
