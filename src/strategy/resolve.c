/*-------------------------------------------------------------------------
 *
 * resolve.c
 *		Resolving a migration: its strategy, table, key and job.
 *
 * bbm_create at the call and a worker when it starts a migration run the same
 * checks, in this code.  Each step sets bbm_failing_code to the code that the
 * migration gets if the step fails; the order is that of the GitLab container
 * registry.
 *
 *-------------------------------------------------------------------------
 */
#include "strategy/resolve.h"

#include <math.h>

#include "access/table.h"
#include "utils/builtins.h"

#include "base/txn.h"
#include "base/user.h"
#include "catalog/claims.h"
#include "catalog/extension.h"
#include "catalog/options.h"
#include "catalog/partitions.h"
#include "catalog/shards.h"
#include "strategy/strategy.h"
#include "target/hierarchy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/key_order.h"
#include "target/key_scan.h"
#include "target/lockset.h"
#include "target/order.h"
#include "target/partition.h"
#include "target/reads.h"
#include "target/relation.h"
#include "target/rights.h"
#include "target/sample.h"
#include "target/target.h"

/* To follow means to go on beyond what was the last key, so the strategy must have a key. */
void
bbm_check_follow(const char *strategy)
{
	const BbmStrategy *found = bbm_strategy_find(strategy);

	if (found && !found->has_key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot follow", found->name),
				 errdetail("It has no upper bound to go beyond: it goes on by itself until no row is left to do."),
				 errhint("Leave \"follow\" out.")));
}

/*
 * Determines the order of the key: that in which ranges have been allocated,
 * or else that of the index of the table or of the first partition that has
 * one.  Without an index, columns ascend.
 */
static void
find_order(BbmTarget *target)
{
	List	   *candidates = list_make1_oid(target->relid);
	ListCell   *cell;

	if (target->migration->key_order && !target->key.is_integer)
	{
		bbm_key_keep_order(&target->key, target->migration->key_order);
		return;
	}
	if (target->has_partitions)
		candidates = list_concat_unique_oid(candidates, bbm_partitions_list(target->relid));
	foreach(cell, candidates)
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		const char *name = lfirst_oid(cell) == target->relid ? target->migration->index_name : NULL;
		BbmKeyIndex found;
		bool		has;

		if (rel == NULL)
			continue;
		has = bbm_key_find_index(&target->key, rel, name, true, &found);
		/* the check releases its lock at once: a stronger one may be wanted later */
		table_close(rel, AccessShareLock);
		if (has)
		{
			bbm_key_use_order(&target->key, &found);
			break;
		}
	}
}

/* Opens each partition once, to raise errors for what does not fit now.  Needs what bbm_partition_open needs. */
void
bbm_target_check_partitions(BbmTarget *target)
{
	ListCell   *cell;

	if (!target->has_partitions)
		return;
	foreach(cell, bbm_partitions_list(target->relid))
	{
		if (target->per_partition)
			(void) bbm_partition_open(target, lfirst_oid(cell));
	}
}

/*
 * Decides whether the job runs partition by partition, or on the table as a
 * whole.  A migration that was started partition by partition continues so
 * when the last child table is gone.
 */
static void
decide_partition_order(BbmTarget *target)
{
	BbmClaimState state = {0};

	(void) bbm_claim_state(target->migration->id, &state);
	target->has_partitions = bbm_has_partitions(target->relid);
	bbm_rights_find(target);
	target->order = bbm_partition_order(target);
	target->per_partition = (target->has_partitions || OidIsValid(state.last_relation)) &&
		target->order != BBM_ORDER_AS_ONE_TABLE;
	target->rounds = target->strategy->table_scans || (target->per_partition && target->order == BBM_ORDER_BY_FILTER);
	if (target->has_partitions && !target->per_partition && target->strategy->table_scans)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot run a statement over a partitioned table or an inheritance hierarchy",
						target->strategy->name),
				 errdetail("Blocks are those of one partition, and the statement names the table as a whole."),
				 errhint("Use bbm_update or bbm_delete, or a function with the parameter table_name.")));
}

/*
 * Raises the errors of the conditions that verification counts by, which
 * nothing executes before: they would be raised when all is done.  Needs what
 * bbm_partition_open needs.
 */
void
bbm_target_check_verification(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	int			level = bbm_job_settings(migration);

	/* without partitions there is nothing that it could be prepared for */
	if (target->partition && migration->row_check)
		(void) bbm_job_check_plan(target, target->partition);
	if (target->partition && migration->filter)
		(void) bbm_job_left_plan(target, target->partition);
	bbm_user_settings_end(level);
}

/* Where this node records what is done in the shard. */
static void
find_shard(BbmTarget *target)
{
	target->shard = bbm_shard_open(target->migration, target->key.is_integer);
	/* the next step finds out what became of it */
	if (target->shard == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("shard " INT64_FORMAT " is not on this node any more", target->migration->shard_id),
				 errdetail("It was moved, split or dropped."),
				 errhint("The node that has its rows now goes on with it.")));
}

/* Could a trigger of the table, or of the partitions that are worked on as one table, change the key? */
static bool
has_triggers(const BbmTarget *target)
{
	return bbm_could_change_key(target, target->relid, target->has_partitions && !target->per_partition);
}

static void
resolve(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	int			level = bbm_job_settings(migration);

	bbm_failing_code = BBM_CODE_SIGNATURE;
	if (migration->operation == NULL && target->form != BBM_JOB_NONE)
		bbm_job_check_text(migration->job);

	bbm_failing_code = BBM_CODE_STRATEGY;
	target->strategy = bbm_strategy_find(migration->strategy);
	if (target->strategy == NULL)
		bbm_unknown_strategy(migration->strategy);
	if (migration->follow)
		bbm_check_follow(migration->strategy);

	bbm_failing_code = BBM_CODE_TABLE;
	target->lock_mode = target->form == BBM_JOB_NONE ? BBM_READ_LOCK : BBM_WORK_LOCK;
	target->relid = bbm_migration_table(migration, target->lock_mode);
	target->is_reference = bbm_where_rows_are(target->relid) == BBM_ROWS_ON_ALL_NODES;
	if (migration->shard_id == 0)
		bbm_check_is_no_shard(target->relid);
	target->alias = pstrdup(quote_identifier(bbm_table_alias(target->relid)));

	bbm_failing_code = BBM_CODE_COLUMN;
	if (target->strategy->has_key)
		bbm_key_resolve(&target->key, target->relid, migration->column_name);
	if (target->strategy->resolve)
		target->strategy->resolve(target);

	if (migration->shard_id != 0)
		find_shard(target);

	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_resolve(target);
	bbm_reads_resolve(target);
	bbm_failing_code = BBM_CODE_STRATEGY;
	decide_partition_order(target);
	target->has_triggers = has_triggers(target);
	bbm_failing_code = BBM_CODE_COLUMN;
	if (target->strategy->has_key)
		find_order(target);
	bbm_user_settings_end(level);

	/* partitions are opened when their turn comes */
	if (!target->per_partition && bbm_partition_open(target, target->relid) == NULL)
		elog(ERROR, "table \"%s\" is gone", migration->table_name);
	if (!target->per_partition)
		bbm_reads_check_plan(target);
	bbm_failing_code = BBM_CODE_UNKNOWN;
}

/*
 * Resolves a migration as the current user, who must be its owner; raises an
 * error when anything does not fit.  Needs a transaction and SPI.  The result
 * lives until bbm_target_close, across transactions.
 */
static BbmTarget *
open_target(const BbmMigration *migration, BbmJobForm form)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bbm target",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	BbmTarget  *target = palloc0(sizeof(BbmTarget));

	/* before anything that the row contains is parsed, planned or run */
	bbm_catalog_check_trust(migration->owner);
	target->context = context;
	target->migration = bbm_migration_copy(migration);
	target->form = form;
	PG_TRY();
	{
		resolve(target);
	}
	PG_CATCH();
	{
		bbm_partition_close(target);
		bbm_rights_forget(target);
		bbm_shard_close(target->shard);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	/* only now, so that an error frees it */
	MemoryContextSetParent(context, TopMemoryContext);
	return target;
}

BbmTarget *
bbm_target_open(const BbmMigration *migration)
{
	return open_target(migration, BBM_JOB_STATEMENT);
}

/* Does the same only to read its rows: its job need not exist any more. */
BbmTarget *
bbm_target_open_to_read(const BbmMigration *migration)
{
	return open_target(migration, BBM_JOB_NONE);
}

void
bbm_target_close(BbmTarget *target)
{
	bbm_lockset_forget(target);
	bbm_partition_close(target);
	bbm_rights_forget(target);
	bbm_shard_close(target->shard);
	MemoryContextDelete(target->context);
}

/*
 * Is the table still the same as when the target was resolved?  It need not be
 * locked.  And does the owner of our tables still have the right to act for
 * the migration's owner?  A batch that began before our tables got another
 * owner ends as if it were before that.
 */
bool
bbm_target_is_current(BbmTarget *target)
{
	return bbm_catalog_trusts(target->migration->owner) &&
		bbm_target_is_named(target) &&
		bbm_where_rows_are(target->relid) == (target->is_reference ? BBM_ROWS_ON_ALL_NODES : BBM_ROWS_HERE) &&
		bbm_key_is_current(&target->key, target->relid) &&
		(!bbm_rights_are_stale(target) || target->has_triggers == has_triggers(target)) &&
		target->has_partitions == bbm_has_partitions(target->relid) && bbm_rights_are_current(target);
}

/* A sample with fewer rows of the range than this says little about their number. */
#define BBM_FEW_ROWS 30

/* A sample of rows that may be off by more than this share of the whole says too little about how many are to come. */
#define BBM_SAMPLE_ERROR 0.05

static const BbmPartitionState *
find_partition(List *partitions, Oid relation)
{
	ListCell   *cell;

	foreach(cell, partitions)
	{
		const BbmPartitionState *partition = lfirst(cell);

		if (partition->relation == relation)
			return partition;
	}
	return NULL;
}

/*
 * The relations that have the target's rows, as BbmSampled: with how far ranges
 * were allocated, or (state NULL) without.  A partition that was detached in the
 * midst of it, and is back, counts as if none of its ranges had been allocated.
 */
static List *
relations_of(const BbmTarget *target, const BbmClaimState *state)
{
	List	   *oids = target->has_partitions ? bbm_partitions_list(target->relid) : list_make1_oid(target->relid);
	bool		by_partition = state && target->per_partition;
	List	   *partitions = by_partition ? bbm_partitions(target->migration->id) : NIL;
	List	   *relations = NIL;
	ListCell   *cell;

	foreach(cell, oids)
	{
		BbmSampled *sampled = palloc0(sizeof(BbmSampled));
		const BbmPartitionState *partition = find_partition(partitions, lfirst_oid(cell));

		sampled->relation = lfirst_oid(cell);
		sampled->allocated = partition && partition->phase.round > 0;
		if (state && state->has_last && (!by_partition || state->last_relation == sampled->relation))
			sampled->after = &state->last;
		relations = lappend(relations, sampled);
	}
	return relations;
}

/*
 * An estimate of the keys that are in no range yet, while the first phase
 * allocates ranges, of which there are so many keys so far; negative where the
 * table's pages do not tell.  Needs a transaction and SPI.
 *
 * What was allocated is known, and so what has become of its rows makes no
 * difference: they may be deleted, or others may be where they were.
 */
double
bbm_target_to_come(BbmTarget *target, const BbmClaimState *state, double allocated)
{
	const BbmMigration *migration = target->migration;
	BbmSampleOfRows sample;
	double		keys;

	if (target->as_owner || target->is_reference || target->shard || target->strategy->table_scans)
		return -1;
	bbm_sample_rows(target, relations_of(target, state), &sample);
	if (!sample.by_pages)
		return -1;
	keys = sample.to_come;
	if (!target->strategy->one_at_a_time && target->strategy->share && keys > 0)
		keys *= target->strategy->share(target, sample.in_range) / sample.in_range;
	if (target->key.is_integer && target->strategy->has_key && !migration->follow && !target->per_partition)
		keys = Min(keys, Max(state->has_last ? bbm_distance(state->last.number, state->max.number) :
							 bbm_distance(state->min.number, state->max.number) + 1, 0));
	/* as many rows as were read of these, plus or minus its root */
	if (!sample.complete && sample.read > 0 &&
		sqrt(sample.seen_to_come + 1.0) * sample.rows / sample.read > BBM_SAMPLE_ERROR * (allocated + keys))
		return -1;
	return keys;
}

/*
 * An estimate of the keys to do, by some of the table's pages.  Needs a
 * transaction and SPI.
 */
int64
bbm_target_estimate(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	BbmSampleOfRows sample;
	double		rows;

	bbm_sample_rows(target, relations_of(target, NULL), &sample);
	rows = sample.in_range;
	/* what the null strategy is about is the share of rows with a null, which ANALYZE knows better than few rows */
	if (target->strategy->one_at_a_time && (target->as_owner || (!sample.complete && sample.seen < BBM_FEW_ROWS)))
		rows = target->strategy->share(target, sample.rows);
	else if (!target->strategy->one_at_a_time && target->strategy->share)
		rows = target->strategy->share(target, rows);
	/* an integer key is there at most once; a range of which few rows were seen may well be dense */
	if (target->key.is_integer && target->strategy->has_key)
	{
		double		width = bbm_distance(migration->min.number, migration->max.number) + 1;

		if (!sample.complete && sample.seen < BBM_FEW_ROWS)
			rows = sample.rows;
		if (!migration->follow)
			rows = Min(rows, Max(width, 0));
	}
	return bbm_count_of(rows);
}

/*
 * Has ANALYZE, or VACUUM, read each table with rows?  What the server knows of
 * one that was never read is the number of its pages.
 */
bool
bbm_target_is_analyzed(const BbmTarget *target)
{
	ListCell   *cell;

	foreach(cell, target->has_partitions ? bbm_partitions_list(target->relid) : list_make1_oid(target->relid))
	{
		Relation	rel = try_table_open(lfirst_oid(cell), AccessShareLock);
		bool		analyzed;

		if (rel == NULL)
			continue;
		analyzed = rel->rd_rel->reltuples >= 0;
		table_close(rel, AccessShareLock);
		if (!analyzed)
			return false;
	}
	return true;
}

/* Finds the first and the last existing key; false when there is no row.  Needs a transaction and SPI. */
bool
bbm_target_bounds(BbmTarget *target, BbmBound *min, BbmBound *max)
{
	char	   *name = bbm_table_sql_name(target->relid);
	BbmPartition		root = {.relid = target->relid, .name = name, .source = name, .as_one_table = true};
	BbmPartition *partition = target->per_partition ? &root : bbm_partition_open(target, target->relid);

	memset(min, 0, sizeof(BbmBound));
	memset(max, 0, sizeof(BbmBound));
	if (!target->strategy->has_key)
		return true;
	return partition && bbm_key_end(target, partition, false, min) && bbm_key_end(target, partition, true, max);
}
