/*-------------------------------------------------------------------------
 *
 * cluster.c
 *		Migrations of distributed tables (Citus): what can be defined, and how
 *		a node begins with the shards that it has.
 *
 * NOTES
 *	  See catalog/shards.c for how a batch and its record stay together, and
 *	  engine/cluster.c for who does what.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/cluster.h"

#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/guc.h"
#include "base/point.h"
#include "base/shmem.h"
#include "base/txn.h"
#include "catalog/extension.h"
#include "catalog/migrations.h"
#include "catalog/shard_control.h"
#include "catalog/shard_records.h"
#include "catalog/shard_parts.h"
#include "catalog/shards.h"
#include "engine/error_class.h"
#include "sql/access.h"
#include "sql/bounds.h"
#include "sql/cluster_job.h"
#include "strategy/resolve.h"
#include "strategy/strategy.h"
#include "target/bound.h"
#include "target/hierarchy.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/order.h"
#include "target/reads.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"

/* How long a node waits for a lock before the coordinator gets an error instead of an answer. */
#define BBM_SYNC_LOCK_TIMEOUT "5s"

PG_FUNCTION_INFO_V1(bbm_shards_sync);
PG_FUNCTION_INFO_V1(bbm_shards_ready);

/* ----------------------------------------------------------------
 * What can be defined
 * ----------------------------------------------------------------
 */

/* Raises an error where the rows are not in heaps: those of the table, or of its partitions. */
static void
check_heaps(Oid relid)
{
	ListCell   *cell;

	if (bbm_has_partitions(relid) && get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		bbm_cluster_refuse(relid, "It has child tables that are no partitions.",
						   "Name each of them, or make them partitions.");
	foreach(cell, bbm_partitions_list(relid))
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		bool		heap = rel == NULL ||
			(rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID);

		if (rel)
			table_close(rel, AccessShareLock);
		if (!heap)
			bbm_cluster_refuse(relid,
							   lfirst_oid(cell) == relid ? "It is not a heap." :
							   psprintf("Partition \"%s\" is not a heap.", bbm_table_sql_name(lfirst_oid(cell))),
							   "Make it one with alter_table_set_access_method, or define a migration for each other partition.");
	}
}

static void
check_table(Oid relid, const BbmDistribution *d)
{
	check_heaps(relid);
	if (d->method == 'n' && d->colocation == 0)
		bbm_cluster_refuse(relid, "It is a local table that Citus manages.",
						   "Distribute it, make it a reference table, or undistribute it.");
	if (d->method != 'h' && d->method != 'n')
		bbm_cluster_refuse(relid, "It is distributed by append or by range.", "Tables distributed by hash are supported.");
	if (d->replication != 's' || d->placements != d->shards)
		bbm_cluster_refuse(relid, "Its shards have several copies, which are written apart from each other.",
						   "Use streaming replication of the nodes instead of citus.shard_replication_factor.");
}

static void
check_option(Oid relid, bool given, const char *what, const char *hint)
{
	if (given)
		bbm_cluster_refuse(relid, psprintf("%s is not supported for it.", what), hint);
}

/* What needs more than a cursor in the record of a shard is not supported. */
static void
check_options(const BbmMigration *m, Oid relid)
{
	check_option(relid, m->strategy && strcmp(m->strategy, "SerialKeySetBatchingStrategy") != 0,
				 "Another batching_strategy than by the key", "Leave that out.");
	check_option(relid, m->follow, "\"follow\"",
				 "Define another migration for the rows that come later, whose filter is about those.");
	check_option(relid, m->index_name != NULL, "\"index_name\", as each shard has indexes of its own names,",
				 "Leave that out, and name the columns in column_name.");
	check_option(relid, m->allow_key_change, "\"allow_key_change\"", "Leave that out.");
	check_option(relid, m->workers != 1, "\"workers\"",
				 "Leave that out: each shard has one worker, and a node works on as many shards at once as its bbm.max_workers allows.");
}

/* What can be altered afterwards: its name, and how the batches are done, as far as that can be given at all. */
bool
bbm_cluster_may_alter(const char *column)
{
	static const char *const columns[] = {
		"batch_size", "sub_batch_size", "target_duration", "min_batch_size", "max_batch_size", "max_batch_wal",
		"max_attempts", "on_error", "max_errors", "priority", "share_table", "synchronous", "allow_full_scan", "settings", "name"
	};

	for (int i = 0; i < lengthof(columns); i++)
	{
		if (strcmp(columns[i], column) == 0)
			return true;
	}
	return false;
}

/* Bounds that are given hold for each shard; each node finds the others in the shard that it begins with. */
static void
resolve_bounds(BbmDefinition *d, BbmMigration *m, Oid relid)
{
	BbmTarget	target = {.migration = m, .relid = relid, .strategy = &bbm_strategy_serial};
	BbmBounds	bounds = bbm_bounds_given(d);

	bbm_key_resolve(&target.key, relid, m->column_name);
	bbm_bounds_check(&target, d, &bounds);
	bbm_bounds_complete(&bounds, &target.key, NULL, NULL);
	bbm_definition_set_bound(d, "min_value", "min_key", bounds.min);
	bbm_definition_set_bound(d, "max_value", "max_key", bounds.max);
}

/*
 * Resolves the definition of a migration of a distributed table, as far as that
 * is possible where no rows are; each node does the rest for each of its
 * shards.  Sets what was not given.
 */
void
bbm_cluster_resolve(BbmDefinition *d, BbmMigration *m, Oid relid)
{
	BbmDistribution distribution;
	char	   *table = bbm_table_sql_name(relid);

	/* without Citus, it is only a list of that name */
	if (!bbm_distribution(relid, &distribution))
		bbm_check_rows_are_here(relid);
	check_table(relid, &distribution);
	check_options(m, relid);
	if (bbm_citus_local_group() != 0)
		bbm_cluster_refuse(relid, "This node is not the coordinator.", "Define the migration there.");
	if (m->column_name == NULL)
		m->column_name = bbm_key_default_columns(relid, NULL);
	if (m->operation && !bbm_definition_has(d, "column_name"))
		m->column_name = bbm_order_default_key(relid, m->column_name);
	if (m->column_name == NULL)
		bbm_cluster_refuse(relid, "It has no primary key.", "Name the batching key in column_name.");
	bbm_cluster_check_job(m, relid, &distribution);
	resolve_bounds(d, m, relid);
	bbm_definition_set_text(d, "column_name", m->column_name);
	bbm_definition_set_text(d, "table_name", table);
	if (m->operation)
	{
		BbmStatementParts parts;

		bbm_job_parts(m, &parts);
		bbm_definition_set_text(d, "job_signature_name",
								bbm_statement_compose(&parts, table, quote_identifier(get_rel_name(relid)), NULL,
													  NULL));
	}
	bbm_failing_code = BBM_CODE_UNKNOWN;
}

/* The migration's row has been inserted, in this transaction: if the table is distributed, creates the record. */
void
bbm_cluster_defined(int64 id, Oid relid, bool active)
{
	BbmDefinition d = {0};
	BbmDistribution distribution;

	if (!bbm_is_distributed(relid) || !bbm_distribution(relid, &distribution))
		return;
	bbm_definition_set_text(&d, "shard_record", bbm_shard_record_create(id, relid, &distribution, GetUserId(), active));
	bbm_migration_write(id, &d, true);
}

/* What is not possible for a migration of a distributed table, or of a shard of one. */
void
bbm_check_not_of_cluster(const BbmMigration *migration, const char *what, const char *hint)
{
	if (migration->shard_record == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot %s migration \"%s\"", what, migration->name),
			 migration->shard_id == 0 ? errdetail("It is about a distributed table, whose shards are done by their nodes.") :
			 errdetail("It is the part of a migration of a distributed table that is about one shard."),
			 errhint("%s", hint)));
}

/* ----------------------------------------------------------------
 * What a node does when the coordinator asks
 * ----------------------------------------------------------------
 */

static void
check_preloaded(void)
{
	if (bbm_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library is not preloaded"),
				 errdetail("The shards of a distributed table are done by the workers of the nodes that have them."),
				 errhint("Add \"bbm\" to shared_preload_libraries, and restart the server.")));
}

/* The version of the extension, if its workers can run here. */
Datum
bbm_shards_ready(PG_FUNCTION_ARGS)
{
	char	   *version = pstrdup(bbm_catalog()->version);

	SPI_connect();
	(void) bbm_cluster_query(GetUserId(), "SELECT has_function_privilege('bbm_internal.bbm_shards_sync(text, text, text)', 'EXECUTE')");
	if (!bbm_cluster_bool(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function bbm_internal.bbm_shards_sync"),
				 errdetail("The coordinator calls it on each node, as the owner of the migration."),
				 errhint("Grant the migration's owner EXECUTE on it, on each node.")));
	SPI_finish();
	check_preloaded();
	PG_RETURN_TEXT_P(cstring_to_text(version));
}

typedef struct NewPart
{
	const char *record;
	BbmShardRecord *shard;
	int64		total;			/* an estimate of the keys to do; negative: none yet */
} NewPart;

/* Determines the range: what is given, and what there is in the shard now. */
static void
find_bounds(BbmDefinition *d, NewPart *args)
{
	BbmMigration *m = bbm_definition_migration(d, CurrentMemoryContext);
	BbmBound	min = m->min;
	BbmBound	max = m->max;
	BbmBounds	bounds = {args->shard->min_given ? &min : NULL, args->shard->max_given ? &max : NULL};
	BbmBound	low;
	BbmBound	high;
	BbmTarget  *target;

	m->owner = GetUserId();
	m->shard_record = pstrdup(args->record);
	m->shard_id = args->shard->id;
	m->shard_epoch = args->shard->epoch;
	memset(&m->min, 0, sizeof(BbmBound));
	memset(&m->max, 0, sizeof(BbmBound));
	target = bbm_target_open(m);
	bbm_bounds_fix(target, &bounds);
	target->migration->min = *bounds.min;
	target->migration->max = *bounds.max;
	target->migration->min_found = !args->shard->min_given;
	target->migration->max_found = !args->shard->max_given;
	args->total = bbm_target_estimate(target);
	low = bbm_bound_copy(bounds.min);
	high = bbm_bound_copy(bounds.max);
	bbm_target_close(target);
	bbm_definition_set_bound(d, "min_value", "min_key", &low);
	bbm_definition_set_bound(d, "max_value", "max_key", &high);
}

/*
 * Makes a migration of a shard, which goes on where the record says.  The
 * record is locked by raising its epoch; the shard stays here until the
 * commit.  The text that it runs is the record's, and so is its owner: both
 * belong to the current user.
 */
static void
make_part(void *arg)
{
	NewPart    *args = arg;
	BbmShardRecord *shard = args->shard;
	BbmDefinition d;
	BbmMigration *m;
	int64		id;

	if (bbm_shard_take_over(shard) != BBM_SHARD_OURS)
		return;
	bbm_shard_part_definition(shard, &d);
	m = bbm_definition_migration(&d, CurrentMemoryContext);
	bbm_definition_set_text(&d, "name", bbm_shard_part_name(m->name, shard->id));
	bbm_definition_set_text(&d, "table_name", shard->table);
	bbm_definition_set(&d, "status", Int16GetDatum(BBM_ACTIVE));
	bbm_definition_set(&d, "owner",
					   DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(GetUserId(), false))));
	if (shard->bounds == NULL)
		find_bounds(&d, args);
	id = bbm_migration_insert(&d);
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is another migration \"%s\" on this node", bbm_shard_part_name(m->name, shard->id)),
				 errdetail("That is the name of the part of migration \"%s\" that is about the shard.", m->name),
				 errhint("Rename it.")));
	bbm_shard_part_defined(id, args->record, shard, args->total);
}

static const char *
part_state(const BbmShardRecord *shard, const BbmShardPart *part)
{
	if (!shard->found)
		return "unrecorded";
	if (shard->finished)
		return "finished";
	/* one that has failed before and is not started yet has no news */
	if (part == NULL || (part->status == BBM_FAILED && !shard->active))
		return "waiting";
	return part->status == BBM_FAILED ? "failed" : part->status == BBM_PAUSED ? "paused" : "running";
}

static void
append_text(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(buf, ", \"%s\": ", name);
	escape_json(buf, value);
}

/* Adds what there is to say of a shard to a jsonb array. */
static void
report(StringInfo buf, const BbmShardRecord *shard, const BbmShardPart *part, const ErrorData *error)
{
	/* what is transient is tried again when the coordinator asks the next time */
	bool		fails = error && bbm_error_class(error) != BBM_ERROR_TRANSIENT;
	const char *state = fails ? "failed" : part_state(shard, part);

	appendStringInfo(buf, "%s{\"id\": " INT64_FORMAT ", \"state\": \"%s\", \"status\": %d, \"rows\": " INT64_FORMAT
					 ", \"keys\": " INT64_FORMAT ", \"errors\": " INT64_FORMAT, buf->len > 1 ? ", " : "", shard->id, state,
					 strcmp(state, "finished") == 0 ? BBM_FINISHED : strcmp(state, "failed") == 0 ? BBM_FAILED :
					 strcmp(state, "running") == 0 ? BBM_RUNNING : BBM_JOB_NEW, shard->rows, shard->keys, shard->errors);
	append_text(buf, "name", shard->table);
	if (shard->found && !shard->finished && !shard->active)
		appendStringInfoString(buf, ", \"held\": true");
	if (shard->finished || (part && part->has_total))
		appendStringInfo(buf, ", \"total\": " INT64_FORMAT, shard->finished ? shard->keys : part->total);
	append_text(buf, "error", error ? error->message : part ? part->error : NULL);
	append_text(buf, "detail", error ? error->detail : part ? part->detail : NULL);
	append_text(buf, "sqlstate", error ? unpack_sql_state(error->sqlerrcode) : part ? part->sqlstate : NULL);
	if (part && part->found > 0)
		appendStringInfo(buf, ", \"found\": " INT64_FORMAT, part->found);
	append_text(buf, "waiting", part ? part->waiting : error ? error->message : NULL);
	appendStringInfoChar(buf, '}');
}

/*
 * Brings the migration of a shard into line with the record: another node may
 * have had the shard since, it may be done, and the migration as a whole may
 * have been paused, or started again.
 */
static ErrorData *
sync_shard(const char *record, BbmShardRecord *shard, const BbmShardPart *part, bool restart)
{
	NewPart		args = {record, shard, -1};

	if (part && (!shard->found || shard->finished || part->epoch != shard->epoch))
	{
		bbm_migration_delete(part->id);
		part = NULL;
	}
	if (!shard->found || shard->finished)
		return NULL;
	if (part && shard->altered)
		bbm_shard_part_alter(part, shard);
	if (part == NULL)
		return shard->active ? bbm_txn_part(make_part, &args) : NULL;
	if (shard->active ? part->status == BBM_PAUSED || (restart && part->status == BBM_FAILED) :
		part->status == BBM_ACTIVE || part->status == BBM_RUNNING)
		(void) bbm_migration_set_status(part->id, shard->active ? BBM_ACTIVE : BBM_PAUSED);
	return NULL;
}

static BbmShardPart *
part_of(List *parts, int64 shard)
{
	ListCell   *cell;

	foreach(cell, parts)
	{
		if (((BbmShardPart *) lfirst(cell))->shard == shard)
			return lfirst(cell);
	}
	return NULL;
}

/* Only what belongs to the caller himself: it decides what runs as him.  Needs SPI. */
static void
check_record(const char *record)
{
	if (bbm_shard_record_is_foreign(record))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", record),
				 errdetail("What stands in it decides what runs with the rights of the caller."),
				 errhint("The coordinator calls this as the owner of the migration.")));
}

/* Brings this node's migrations into line with the record, and reports how far the shards are. */
static void
sync_shards(const char *record, const char *table, const char *action, StringInfo buf)
{
	List	   *shards = strcmp(action, "end") == 0 ? NIL : bbm_shards_here(record, table);
	List	   *parts = bbm_shard_parts(record);
	List	   *errors = NIL;
	ListCell   *cell;
	ListCell   *other;

	/* a node that was added, or restarted, without it would never begin */
	if (shards != NIL)
		check_preloaded();
	foreach(cell, parts)
	{
		BbmShardPart *part = lfirst(cell);
		bool		here = false;

		foreach(other, shards)
			here = here || ((BbmShardRecord *) lfirst(other))->id == part->shard;
		if (!here)
			bbm_migration_delete(part->id);
	}
	foreach(cell, shards)
	{
		BbmShardRecord *shard = lfirst(cell);

		errors = lappend(errors, sync_shard(record, shard, part_of(parts, shard->id), strcmp(action, "start") == 0));
	}
	parts = bbm_shard_parts(record);
	appendStringInfoChar(buf, '[');
	forboth(cell, shards, other, errors)
	{
		BbmShardRecord *shard = lfirst(cell);

		report(buf, shard, part_of(parts, shard->id), lfirst(other));
	}
	appendStringInfoChar(buf, ']');
}

/*
 * Pauses the migrations of shards that this node has, and counts their batches
 * in flight, or cancels them.  No claim comes between: it waits until we have
 * committed.  The caller sees to it that nobody has them go on; if it does not
 * commit, they do so when the coordinator asks the next time.
 */
static int
pause_parts(const char *record, bool cancel)
{
	int			n = 0;
	ListCell   *cell;

	foreach(cell, bbm_shard_parts(record))
	{
		const BbmShardPart *part = lfirst(cell);

		if (part->status == BBM_ACTIVE || part->status == BBM_RUNNING)
			(void) bbm_migration_set_status(part->id, BBM_PAUSED);
		n += cancel ? bbm_cancel_running(part->id) : bbm_count_running(part->id);
	}
	return n;
}

/*
 * (record text, table_name text, action text) → what the shards of the table
 * that are on this node have done, after their migrations here were brought
 * into line with the record: "start" also starts those that have failed, "end"
 * deletes them.  Or, with "pause" and "cancel", how many batches they have; and
 * with "keys" only the keys by which the record's rows can be written one by one.
 * Nothing at all where the record is gone, which bbm_cluster_ask reports.
 * Called by the coordinator on each node.
 */
Datum
bbm_shards_sync(PG_FUNCTION_ARGS)
{
	char	   *record = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(2));
	StringInfoData buf;
	text	   *result;
	bool		cancel = strcmp(action, "cancel") == 0;
	MemoryContext caller = CurrentMemoryContext;
	int			level = NewGUCNestLevel();

	initStringInfo(&buf);
	/* the coordinator waits for us, and asks again */
	bbm_guc_set("lock_timeout", BBM_SYNC_LOCK_TIMEOUT, true);
	SPI_connect();
	check_record(record);
	BBM_POINT("shards-asked");
	/* somebody has dropped the extension here; the end of what is left needs no record */
	if (strcmp(action, "end") != 0 && !bbm_shard_record_is_here(GetUserId(), record))
		;
	else if (strcmp(action, "keys") == 0)
		bbm_shard_keys(record, &buf);
	else if (cancel || strcmp(action, "pause") == 0)
		appendStringInfo(&buf, "[%d]", pause_parts(record, cancel));
	else
		sync_shards(record, table, action, &buf);
	MemoryContextSwitchTo(caller);
	result = cstring_to_text(buf.data);
	SPI_finish();
	AtEOXact_GUC(false, level);
	PG_RETURN_TEXT_P(result);
}
