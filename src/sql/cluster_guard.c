/*-------------------------------------------------------------------------
 *
 * cluster_guard.c
 *		The rules of the guards for migrations of distributed tables (Citus):
 *		what can be changed, and how the nodes learn of a change.
 *
 * NOTES
 *	  See sql/guards.c, which calls these, for locks and order.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/cluster_guard.h"

#include "base/bbm.h"
#include "base/user.h"
#include "catalog/options.h"
#include "sql/cluster.h"
#include "sql/cluster_control.h"
#include "sql/columns.h"

/* Is it about a distributed table as a whole? */
static bool
is_of_cluster(BbmRow row)
{
	return !bbm_row_is_null(row, "shard_record") && bbm_row_is_null(row, "shard_id");
}

static BbmClusterRow
cluster_row(BbmRow row)
{
	BbmClusterRow result = {
		bbm_row_int(row, "id"), (Oid) bbm_row_int(row, "owner_oid"), bbm_row_text(row, "name"),
		bbm_row_text(row, "shard_record"), bbm_row_text(row, "table_name")
	};

	return result;
}

static bool
runs(BbmRow row)
{
	int64		status = bbm_row_int(row, "status");

	return status == BBM_ACTIVE || status == BBM_RUNNING;
}

/*
 * The nodes have the definition in the record of their shards, and each part of
 * it is the record's.  How the whole is done can be altered, as far as the
 * nodes adopt that: see redefine.
 */
void
bbm_cluster_guard_update(Relation rel, BbmRow old, BbmRow new)
{
	const char *column;

	if (bbm_row_is_null(old, "shard_record"))
		return;
	/* the coordinator has this node start and pause it, with a statement of ours */
	if (!bbm_row_is_null(old, "shard_id") && !bbm_our_statement() && bbm_row_int(old, "status") != bbm_row_int(new, "status"))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the status of migration \"%s\" cannot be set", bbm_row_text(old, "name")),
				 errdetail("It is the part of a migration of a distributed table that is about one shard."),
				 errhint(BBM_OF_THE_WHOLE)));
	column = bbm_columns_changed_but(rel, old.tuple, new.tuple, BBM_WHAT | BBM_HOW,
									 bbm_row_is_null(old, "shard_id") ? bbm_cluster_may_alter : NULL);
	/* the record belongs to the owner, on all nodes */
	if (bbm_row_at_origin(old) && !bbm_row_same(old, new, "owner"))
		column = "owner";
	if (column)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s of migration \"%s\" cannot be changed", column, bbm_row_text(old, "name")),
				 errdetail("It is about a distributed table, or one shard of it, and its nodes have its definition."),
				 errhint("Drop it, and define another one for what is left.")));
}

/*
 * The nodes see it before their next batch, once we have committed; Citus
 * commits on all nodes that we write to, or on none.
 */
static void
tell_nodes(BbmRow old, BbmRow now)
{
	int64		to = bbm_row_int(now, "status");
	BbmClusterRow row;

	if (to == BBM_FINISHED || (runs(old) == runs(now) && bbm_row_at_origin(old)))
		return;
	row = cluster_row(now);
	if (runs(now))
		bbm_cluster_tell_start(&row);
	else
		bbm_cluster_tell_stop(&row, to == BBM_FAILED);
}

/* A user has altered its name, or how it is done: the nodes adopt that when they are asked the next time. */
static void
redefine(Relation rel, BbmRow old, BbmRow now)
{
	BbmClusterRow row;

	if (bbm_engine_writes() ||
		(!bbm_columns_changed(rel, old.tuple, now.tuple, BBM_HOW) && bbm_row_same(old, now, "name")))
		return;
	row = cluster_row(now);
	bbm_cluster_redefine(&row);
}

/* The row has been changed, in this transaction.  Needs SPI, as the next one does. */
void
bbm_cluster_changed(Relation rel, BbmRow old, BbmRow now)
{
	if (!is_of_cluster(now) || !bbm_row_at_origin(now))
		return;
	tell_nodes(old, now);
	redefine(rel, old, now);
}

/* The row has been deleted, in this transaction. */
void
bbm_cluster_deleted(BbmRow old)
{
	BbmClusterRow row;

	if (!is_of_cluster(old) || !bbm_row_at_origin(old))
		return;
	row = cluster_row(old);
	bbm_cluster_drop(&row);
}
