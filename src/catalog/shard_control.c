/*-------------------------------------------------------------------------
 *
 * shard_control.c
 *		How the nodes of a migration of a distributed table learn that it is
 *		paused, while some of them do not answer.
 *
 * NOTES
 *	  What is to be done in a shard is a row of the record, in the record's
 *	  shard beside it, so it cannot be written while that node is away.  An
 *	  UPDATE of all these rows fails then, and would leave the other nodes at
 *	  work just when somebody wants them to stop.  So we write the rows of the
 *	  nodes that answer, all of them in the caller's transaction, one by one by
 *	  their keys, since Citus then talks to the node of that row alone.  Nobody
 *	  but the nodes knows these keys.
 *
 *	  Which nodes are left is in the migration's row, until the coordinator has
 *	  reached them as well (engine/cluster.c).
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/shard_control.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "catalog/migrations.h"
#include "catalog/options.h"
#include "catalog/shards.h"

/* How often the nodes are asked for their keys, while shards move. */
#define MOST_TRIES 3

/*
 * On a node: appends a jsonb array with an object for each shard of the record
 * that is here, its number and the keys of the rows that say what is to be done.
 * The table itself may have another name by now.  Needs SPI; reads as the current
 * user, whose table the record is.
 */
void
bbm_shard_keys(const char *record, StringInfo buf)
{
	ListCell   *cell;

	appendStringInfoChar(buf, '[');
	foreach(cell, bbm_shards_here(record, record))
	{
		const BbmShardRecord *shard = lfirst(cell);

		(void) bbm_cluster_query(GetUserId(),
								 psprintf("SELECT coalesce(json_agg(DISTINCT to_jsonb(key) #>> '{}'), '[]') FROM %s "
										  "WHERE kind = 'control'", shard->record));
		appendStringInfo(buf, "%s{\"id\": " INT64_FORMAT ", \"keys\": %s}", buf->len > 1 ? ", " : "", shard->record_id,
						 bbm_cluster_text(0, 1));
	}
	appendStringInfoChar(buf, ']');
}

/* How many shards of the record, on nodes that have answered, are not among those that they have reported? */
static int64
unreported_shards(const char *record, const BbmClusterReport *report)
{
	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT count(*) FROM pg_catalog.pg_dist_shard s "
									  "JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid "
									  "JOIN pg_catalog.pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary' "
									  "WHERE s.logicalrelid = to_regclass(%s) "
									  "AND n.nodename || ':' || n.nodeport <> ALL (string_to_array(%s, ', ')) "
									  "AND s.shardid NOT IN (SELECT r.id FROM jsonb_to_recordset(%s) AS r(id bigint))",
									  quote_literal_cstr(record), quote_literal_cstr(report->silent_nodes),
									  quote_literal_cstr(report->shards)));
	return bbm_cluster_int64(0, 1);
}

/* The keys of all reported shards, as a list of strings. */
static List *
reported_keys(const BbmClusterReport *report)
{
	List	   *keys = NIL;

	(void) bbm_cluster_query(GetUserId(),
							 psprintf("SELECT DISTINCT k FROM jsonb_to_recordset(%s) AS r(keys text[]), unnest(r.keys) k",
									  quote_literal_cstr(report->shards)));
	for (uint64 i = 0; i < SPI_processed; i++)
		keys = lappend(keys, bbm_cluster_text(i, 1));
	return keys;
}

/*
 * Has the nodes begin no other batch, once this transaction has committed.
 * Those that cannot be reached are in the report, and the others do not depend
 * on them.
 *
 * A shard that moves while we ask may be reported by neither of its nodes, so
 * we then ask again; one that moves after that keeps its key.  If a node that
 * did not answer has come back and lost a shard to another one meanwhile, that
 * shard goes on until the coordinator reaches the node that is in the report.
 * After a split, a part without a row of its own does not run.
 */
void
bbm_shard_record_pause(Oid owner, const char *record, const char *table, BbmClusterReport *report)
{
	ListCell   *cell;

	/* no keys are needed as long as all nodes answer */
	bbm_cluster_ask(owner, record, bbm_shards_record_command(record), report);
	for (int i = 1; report->silent > 0; i++)
	{
		bbm_cluster_ask(owner, record, bbm_shards_sync_command(record, table, "keys"), report);
		if (report->silent == 0 || unreported_shards(record, report) == 0)
			break;
		if (i == MOST_TRIES)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("shards of table %s are being moved", table),
					 errdetail("It is not known at this moment which of its nodes has them; and %s.", report->trouble),
					 errhint("Repeat it.")));
	}
	if (report->silent == 0)
	{
		bbm_shard_record_activate(owner, record, false);
		return;
	}
	foreach(cell, reported_keys(report))
		(void) bbm_cluster_query(owner, psprintf("UPDATE %s SET active = false WHERE key = %s AND kind = 'control'",
												 record, quote_literal_cstr(lfirst(cell))));
}

/* The nodes that were not reached yet, as they are in the migration's row; NULL: none. */
char *
bbm_unreached_nodes(const BbmClusterReport *report)
{
	return report->silent == 0 ? NULL :
		psprintf("%d of %d nodes: %s", report->silent, report->nodes, report->silent_nodes);
}

/* Writes them there.  Caller has bbm_migration_lock. */
void
bbm_unreached_nodes_write(int64 migration_id, const BbmClusterReport *report)
{
	BbmDefinition d = {0};
	char	   *nodes = bbm_unreached_nodes(report);

	if (nodes)
		bbm_definition_set_text(&d, "unreached_nodes", nodes);
	else
		bbm_definition_set_null(&d, "unreached_nodes");
	bbm_migration_write(migration_id, &d, true);
}
