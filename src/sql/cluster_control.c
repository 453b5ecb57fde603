/*-------------------------------------------------------------------------
 *
 * cluster_control.c
 *		Migrations of distributed tables (Citus): what the coordinator has the
 *		nodes do.
 *
 * NOTES
 *	  A node may not answer just when somebody wants a migration to stop.  So a
 *	  pause, and a failure, are for the nodes that answer, and say which do not:
 *	  in a WARNING, and in the migration's row until these know it, too.
 *	  Whoever waits for the end of all batches asks for more than that, and gets
 *	  an error.  So does everything else, before anything has changed on any
 *	  node: a migration that is started, altered or dropped on some nodes alone
 *	  would be half of what was asked for.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/cluster_control.h"

#include "miscadmin.h"

#include "base/commit.h"
#include "base/locks.h"
#include "base/user.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/shard_control.h"
#include "catalog/shard_errors.h"
#include "catalog/shard_records.h"

#define RECORD_HINT \
	"What was done in its shards is not known any more. Create the extension there, drop the migration, and define another one, whose filter leaves out the rows that are done."
#define NODE_HINT \
	"Repeat it when that node is back, or when a failover or citus_disable_node has made the cluster whole without it."

/* The nodes of a copy are those of the original. */
static bool
has_nodes(const BbmMigration *migration)
{
	return bbm_is_of_cluster(migration) && !bbm_migration_is_copy(migration->origin, migration->restored);
}

static BbmClusterRow
row_of(const BbmMigration *migration)
{
	BbmClusterRow row = {
		migration->id, migration->owner, migration->name, migration->shard_record, migration->table_name
	};

	return row;
}

static int
compare_ids(const ListCell *a, const ListCell *b)
{
	int64		x = ((const BbmMigration *) lfirst(a))->id;
	int64		y = ((const BbmMigration *) lfirst(b))->id;

	return x < y ? -1 : x > y;
}

/*
 * Keeps others from starting these migrations on the nodes, and from completing
 * their records, until our transaction ends.  Called before their rows are written, so that a process that is asking
 * the nodes at this moment does not wait for us; all sessions take the locks in
 * the same order.
 */
void
bbm_cluster_hold(List *migrations)
{
	ListCell   *cell;

	migrations = list_copy(migrations);
	list_sort(migrations, compare_ids);
	foreach(cell, migrations)
	{
		if (has_nodes(lfirst(cell)))
			bbm_lock_nodes(bbm_lock_class(), ((BbmMigration *) lfirst(cell))->id);
	}
}

/*
 * Raises an error that names the nodes which cannot be reached; with a
 * record, of those that have shards of it.  Or says so in a WARNING, and returns false.
 */
static bool
check_nodes_answer(int elevel, const BbmClusterRow *row, bool with_shards, const char *verb, const char *participle,
				   const char *hint)
{
	BbmClusterReport report;
	int			code;

	bbm_cluster_ask(row->owner, with_shards ? row->record : NULL,
					with_shards ? bbm_shards_record_command(row->record) : "SELECT '[]'", &report);
	if (report.silent == 0)
		return true;
	code = report.lacking > 0 ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE : ERRCODE_CONNECTION_FAILURE;
	ereport(elevel,
			(errcode(elevel == WARNING ? ERRCODE_WARNING : code),
			 errmsg("cannot %s migration \"%s\" on every node", verb, row->name),
			 errdetail("It could be %s on %d of %d nodes, and nothing has changed on any; %s.", participle,
					   report.nodes - report.silent, report.nodes, report.trouble),
			 errhint("%s", report.lacking > 0 ? RECORD_HINT : hint)));
	return false;
}

/* ----------------------------------------------------------------
 * A pause
 * ----------------------------------------------------------------
 */

/* They are to be paused by somebody who waits for the end of all batches: each node has to answer. */
void
bbm_cluster_check_pause(List *migrations)
{
	ListCell   *cell;

	foreach(cell, migrations)
	{
		BbmClusterRow row = row_of(lfirst(cell));

		if (has_nodes(lfirst(cell)))
			(void) check_nodes_answer(ERROR, &row, true, "pause", "paused",
									  "To pause and cancel it on the nodes that answer, without waiting: bbm_pause(..., cancel => true).");
	}
}

/*
 * Pauses it on each node, at once, where our transaction is not seen before
 * its commit; returns how many batches are in flight on them, or have been
 * cancelled.  Caller has bbm_cluster_hold, and has paused the whole in this
 * transaction: when that commits, no node has begun another batch; when it
 * does not, the nodes go on.  "strict": each node has to answer.
 */
int
bbm_cluster_pause(const BbmMigration *migration, bool cancel, bool strict)
{
	BbmClusterReport report;
	int			n = 0;

	if (!has_nodes(migration))
		return 0;
	bbm_cluster_ask(migration->owner, migration->shard_record,
					bbm_shards_sync_command(migration->shard_record, migration->table_name, cancel ? "cancel" : "pause"),
					&report);
	if (report.silent > 0 && strict)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("cannot %s the batches of migration \"%s\" on every node", cancel ? "cancel" : "await",
						migration->name),
				 errdetail("It was paused on %d of %d nodes, and goes on there; %s.", report.nodes - report.silent,
						   report.nodes, report.trouble),
				 errhint(NODE_HINT)));
	for (char *at = report.shards + 1; *at != '\0' && *at != ']'; at += strspn(at, ", "))
		n += (int) strtol(at, &at, 10);
	return n;
}

/*
 * Has the nodes begin no other batch; warns of those that cannot be reached,
 * and leaves them to the coordinator.  Caller has
 * bbm_migration_lock, or is the trigger of a change of the row.
 */
void
bbm_cluster_tell_stop(const BbmClusterRow *row, bool failed)
{
	BbmClusterReport report;

	bbm_shard_record_pause(row->owner, row->record, row->table, &report);
	if (report.silent == 0)
		return;
	bbm_unreached_nodes_write(row->id, &report);
	bbm_wake_at_commit(row->owner);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("migration \"%s\" is %s on %d of %d nodes", row->name, failed ? "stopped" : "paused",
					report.nodes - report.silent, report.nodes),
			 errdetail("It may go on at the others: %s.", report.trouble),
			 errhint("bbm pauses it there as soon as they answer the coordinator; until then bbm_status() shows which they are.")));
}

/* Somebody pauses what is paused: tries the nodes again that could not be reached, and says which cannot now. */
void
bbm_cluster_pause_again(List *migrations)
{
	ListCell   *cell;

	foreach(cell, migrations)
	{
		const BbmMigration *migration = lfirst(cell);
		BbmClusterRow row = row_of(migration);
		BbmClusterReport none = {0};
		BbmStatus	status;

		if (migration->unreached_nodes == NULL || !has_nodes(migration) ||
			!bbm_migration_lock(migration->id, &status) || (status != BBM_PAUSED && status != BBM_FAILED))
			continue;
		bbm_unreached_nodes_write(migration->id, &none);
		bbm_cluster_tell_stop(&row, status == BBM_FAILED);
	}
}

/* ----------------------------------------------------------------
 * What needs all nodes
 * ----------------------------------------------------------------
 */

/*
 * Can it be started, as far as its nodes are concerned?  If not, a WARNING says
 * so: somebody starts all that are paused, and it must not keep the others from that.  A
 * node that is gone a moment later makes the start an error nevertheless.
 */
bool
bbm_cluster_may_start(const BbmMigration *migration)
{
	BbmClusterRow row = row_of(migration);

	return !has_nodes(migration) || check_nodes_answer(WARNING, &row, true, "start", "started", NODE_HINT);
}

/* Tells the nodes that they may go on. */
void
bbm_cluster_tell_start(const BbmClusterRow *row)
{
	if (!bbm_engine_writes())
		(void) check_nodes_answer(ERROR, row, true, "start", "started", NODE_HINT);
	bbm_shard_record_activate(row->owner, row->record, true);
}

/* Gives the nodes what has been altered in the migration's row, in this transaction. */
void
bbm_cluster_redefine(const BbmClusterRow *row)
{
	(void) check_nodes_answer(ERROR, row, true, "alter", "altered", NODE_HINT);
	bbm_shard_record_define(row->owner, row->record, row->id);
}

/*
 * All that is quarantined is to be tried again, where its shards are; returns how
 * many rows or ranges that are.  Caller has bbm_cluster_hold, so that no parts of a
 * shard are given rows that we do not see, and bbm_migration_lock.  What the nodes have
 * reported before is not true any more: whoever is to decide by that sees that
 * the row has been written.
 */
int64
bbm_cluster_retry(const BbmMigration *migration)
{
	BbmClusterRow row = row_of(migration);
	int64		n;

	if (!has_nodes(migration) || bbm_errors_count(migration->id) == 0)
		return 0;
	(void) check_nodes_answer(ERROR, &row, true, "retry", "retried", NODE_HINT);
	n = bbm_shard_errors_retry(row.owner, row.record, row.id);
	bbm_errors_forget(migration->id);
	bbm_cluster_show_unfinished(migration->id);
	bbm_migration_write(migration->id, &(BbmDefinition) {0}, true);
	return n;
}

/* The migration's row has been deleted, in this transaction.  All nodes know of the record, with shards or without. */
void
bbm_cluster_drop(const BbmClusterRow *row)
{
	(void) check_nodes_answer(ERROR, row, false, "drop", "dropped", NODE_HINT);
	bbm_shard_record_drop(row->owner, row->record);
}
