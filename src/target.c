/*-------------------------------------------------------------------------
 *
 * target.c
 *		Resolving a migration: its strategy, table, key and job.
 *
 * What bbm_create checks at the call and a worker when it takes a migration up
 * is the same code.  Each step says in bbm_failing_code what it would mean for
 * the migration if it failed; the order is the registry's.
 *
 *-------------------------------------------------------------------------
 */
#include "target.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/plancat.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
#include "lockset.h"
#include "order.h"
#include "rights.h"
#include "spi.h"
#include "tree.h"
#include "txn.h"

/*
 * Opens a GUC nest level with the search_path the migration was defined with;
 * pg_temp comes last, so that a temporary object shadows nothing.
 */
int
bbm_job_settings(const BbmMigration *migration)
{
	char	   *path = migration->search_path[0] == '\0' ? pstrdup("pg_temp") :
		psprintf("%s, pg_temp", migration->search_path);

	return bbm_user_settings_begin(path);
}

bool
bbm_size_follows(const BbmMigration *migration)
{
	return migration->target_ms > 0 || migration->max_batch_wal > 0;
}

/*
 * Where a batch is of all leaves of a tree, a size that follows the time does not
 * go below so many keys for each, as far as these are not more than so many in
 * all: what opening the leaves takes does not get less with the keys.
 */
#define BBM_LEAST_KEYS_A_PARTITION 16
#define BBM_LEAST_KEYS 1000

/*
 * A size that only a limit of WAL moves does not grow beyond what was asked for.
 * Where CPUs are short, a batch is one of many short ones: whatever comes while
 * it runs waits for it.
 */
void
bbm_size_limits(const BbmTarget *target, BbmSizeLimits *limits)
{
	const BbmMigration *migration = target->migration;

	limits->target_ms = target->cpus_are_short ? migration->target_ms * BBM_SHORT_SHARE : migration->target_ms;
	limits->max_wal = migration->max_batch_wal;
	limits->max_size = migration->target_ms > 0 ? migration->max_batch_size :
		Min(migration->max_batch_size, migration->batch_size);
	/* each batch opens every leaf, whatever it is about: that is to be worth it */
	limits->min_size = Max(target->partitions, Min(target->partitions * BBM_LEAST_KEYS_A_PARTITION, BBM_LEAST_KEYS));
	limits->min_size = Min(Max(migration->min_batch_size, limits->min_size), limits->max_size);
}

/* How many keys the next batch is to have; a process that begins goes on from the last one's. */
int
bbm_size_now(BbmTarget *target, const BbmClaimState *state)
{
	BbmSizeLimits limits;

	if (!bbm_size_follows(target->migration))
		return state->batch_size;
	bbm_size_limits(target, &limits);
	if (target->sizing.size == 0)
		bbm_sizing_start(&target->sizing, &limits, state->last_size > 0 ? state->last_size : state->batch_size);
	return target->sizing.size;
}

/* What was asked for when a job was cut; one that was not cut by us does not say. */
int
bbm_job_size(const BbmTarget *target, const BbmJob *job)
{
	return job->batch_size > 0 ? job->batch_size : target->migration->batch_size;
}

/* To follow is to go on beyond the last key there was, so there must be one. */
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

/* ----------------------------------------------------------------
 * Leaves
 * ----------------------------------------------------------------
 */

/*
 * The owner needs to read the key, or the cut would show it what it may not see:
 * an index is walked past the executor.  So a statement that would read it is
 * executed, as far as that needs no row: the server checks it, and so does, or
 * records it, any extension that watches who reads what.
 */
static void
check_may_read(const BbmTarget *target, const BbmPartition *partition)
{
	char	   *sql = psprintf("SELECT %s FROM %s AS k WHERE false",
							   bbm_key_list_sql(&target->key, "k", false, false), partition->source);
	int			result = bbm_spi_execute(sql, true, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_freetuptable(SPI_tuptable);
}

static void
no_index(const BbmTarget *target, const BbmPartition *partition, Relation rel)
{
	const char *name = bbm_index_name(target, partition);
	const char *order = bbm_key_order_list(&target->key);

	if (name)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" cannot be cut along index \"%s\"", RelationGetRelationName(rel), name),
				 errdetail("It must be a valid btree index that begins with (%s), in the type's own order, without a predicate.",
						   order),
				 errhint("Name another index with bbm_alter, or none.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of table \"%s\" has no usable index", bbm_key_to_string(&target->key),
					RelationGetRelationName(rel)),
			 errdetail("A usable index is a valid btree index that begins with (%s), in the type's own order, without a predicate.",
					   order),
			 errhint("Create one with CREATE UNIQUE INDEX CONCURRENTLY, name another key, or use BlockRangeBatchingStrategy.")));
}

/* The index to walk in the leaf. */
static void
find_index(BbmTarget *target, BbmPartition *partition, Relation rel)
{
	BbmKeyIndex found;

	if (!bbm_key_find_index(&target->key, rel, bbm_index_name(target, partition), false, &found))
		no_index(target, partition, rel);
	for (int i = 0; i < target->key.n; i++)
		target->key.columns[i].nulls_first = found.nulls_first[i];
	/* only a heap's is walked by hand: others may have rows, and indexes, of another nature */
	partition->index = rel->rd_rel->relam == HEAP_TABLE_AM_OID ? found.oid : InvalidOid;
	partition->backwards = found.backwards;
}

/* Has a table with rows what it takes: nulls only where they may be, and what the strategy needs? */
static void
check_table(BbmTarget *target, Relation rel)
{
	if (target->strategy->has_key)
		bbm_key_check_nulls(&target->key, rel);
	/* who only looks has to read the table anyway */
	if (target->strategy->check_table && target->form != BBM_JOB_NONE)
		target->strategy->check_table(target, rel);
}

/* The name that the leaf's index must have, if any: a partition's has another than its root's. */
const char *
bbm_index_name(const BbmTarget *target, const BbmPartition *partition)
{
	return partition->relid == target->relid ? target->migration->index_name : NULL;
}

/*
 * The order of the key: that which ranges have been cut in, or else that of the
 * table's index or the first leaf's that has one.  Where there is none, columns
 * ascend.
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
		/* who only looks lets go at once: a stronger lock may be wanted later */
		table_close(rel, AccessShareLock);
		if (has)
		{
			bbm_key_use_order(&target->key, &found);
			break;
		}
	}
}

/* Could a trigger of the table change a key that the migration relies on? */
static bool
could_change_key(const BbmTarget *target, Oid relid)
{
	const BbmMigration *migration = target->migration;
	Relation	rel;
	bool		could;

	if (target->form != BBM_JOB_COMPOSED || !target->strategy->has_key || migration->allow_key_change ||
		migration->set_clause == NULL)
		return false;
	/* whoever asks may have no lock on it; of the triggers it is only seen whether there are any */
	rel = RelationIdGetRelation(relid);
	if (!RelationIsValid(rel))
		return false;
	could = rel->rd_rules == NULL && rel->trigdesc && rel->trigdesc->trig_update_before_row;
	RelationClose(rel);
	return could;
}

/*
 * A tree that is cut as a whole is asked with a query, which merges what the
 * leaves' indexes give.  Without them it would sort the table for each range.
 * Also says whether one of them is foreign.
 */
static void
check_partitions_of_tree(BbmTarget *target, BbmPartition *whole)
{
	ListCell   *cell;

	target->partitions = 0;
	foreach(cell, bbm_partitions_list(target->relid))
	{
		BbmPartition partition = {.relid = lfirst_oid(cell)};
		Relation	rel = try_table_open(partition.relid, AccessShareLock);

		if (rel)
			bbm_check_rows_are_here(partition.relid);
		if (rel && could_change_key(target, partition.relid))
			whole->checks_key = true;
		target->partitions++;
		if (rel)
			check_table(target, rel);
		if (rel && rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			whole->is_foreign = true;
		else if (rel && target->strategy->has_key)
			find_index(target, &partition, rel);
		if (rel)
			table_close(rel, AccessShareLock);
	}
}

static void
check_kind(const BbmTarget *target, const BbmPartition *partition, Relation rel)
{
	bool		heap = rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID;

	if (!target->strategy->has_key && !heap && !(partition->as_one_table && !target->strategy->table_scans))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s does not fit table \"%s\"", target->strategy->name, RelationGetRelationName(rel)),
				 errdetail("It needs a heap, whose rows have a place in a block."),
				 errhint("Name a key and use SerialKeySetBatchingStrategy.")));
}

static void
measure(BbmPartition *partition, Relation rel)
{
	BlockNumber pages = 0;
	double		tuples = 0;
	double		all_visible;

	if (rel->rd_rel->relkind == RELKIND_RELATION)
		estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
	partition->rows = tuples;
}

static void
partition_close(BbmTarget *target)
{
	BbmPartition *partition = target->partition;

	if (partition == NULL)
		return;
	target->partition = NULL;
	/* kept plans do not go with the transaction */
	if (partition->plan)
		SPI_freeplan(partition->plan);
	if (partition->left_plan)
		SPI_freeplan(partition->left_plan);
	if (partition->check_plan)
		SPI_freeplan(partition->check_plan);
	if (partition->probe)
		SPI_freeplan(partition->probe);
	for (int i = 0; i < lengthof(partition->keys_plan); i++)
	{
		if (partition->keys_plan[i])
			SPI_freeplan(partition->keys_plan[i]);
	}
	/* after an error it may be the one at hand */
	if (CurrentMemoryContext == partition->context)
		MemoryContextSwitchTo(target->context);
	MemoryContextDelete(partition->context);
}

/* What there is no way to ask for as the owner would be asked about partition by partition. */
static void
check_as_owner(const BbmTarget *target)
{
	if (!target->has_partitions || !target->as_owner)
		return;
	if (target->strategy->table_scans || (target->per_partition && target->form == BBM_JOB_REGISTRY_FUNCTION))
	{
		bbm_failing_code = BBM_CODE_STRATEGY;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 target->strategy->table_scans ?
				 errmsg("%s cannot run over the partitions of \"%s\" one by one", target->strategy->name,
						target->migration->table_name) :
				 errmsg("the job cannot go on over the partitions of \"%s\" one by one",
						target->migration->table_name),
				 errdetail("Row security, rights, rules or statement triggers of the table as a whole are not those of its partitions."),
				 target->strategy->table_scans ?
				 errhint("Name a key and use SerialKeySetBatchingStrategy.") :
				 errhint("Make them the same for all, or define another migration for what is left.")));
	}
}

/* Where the leaf's rows are read and written. */
static void
find_source(const BbmTarget *target, BbmPartition *partition)
{
	if (partition->as_one_table || !target->has_partitions || !target->as_owner)
	{
		partition->source = psprintf("%s%s", partition->as_one_table ? "" : "ONLY ", partition->name);
		return;
	}
	partition->source = bbm_table_sql_name(target->relid);
	partition->own_rows = psprintf("%s.tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid", target->alias, partition->relid);
}

static void
partition_resolve(BbmTarget *target, BbmPartition *partition, Relation rel)
{
	bbm_rights_check_partition(target, partition->relid);
	check_as_owner(target);
	/* whoever reads its keys, or plans its job, locks what is below it */
	if (partition->as_one_table || (target->has_partitions && target->as_owner))
		bbm_partitions_lock(target->relid, target->lock_mode);
	partition->relkind = rel->rd_rel->relkind;
	partition->name = bbm_table_sql_name(partition->relid);
	find_source(target, partition);
	bbm_failing_code = BBM_CODE_STRATEGY;
	check_kind(target, partition, rel);
	bbm_failing_code = BBM_CODE_COLUMN;
	partition->is_foreign = partition->relkind == RELKIND_FOREIGN_TABLE;
	if (target->strategy->has_key)
		check_may_read(target, partition);
	partition->checks_key = could_change_key(target, partition->relid);
	if (partition->as_one_table)
		check_partitions_of_tree(target, partition);
	else
		check_table(target, rel);
	if (!partition->as_one_table && target->strategy->has_key && !partition->is_foreign)
		find_index(target, partition, rel);
	/* it shows keys of rows that the owner may not see */
	if (target->as_owner)
		partition->index = InvalidOid;
	measure(partition, rel);
	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_prepare(target, partition);
	bbm_failing_code = BBM_CODE_UNKNOWN;
}

/* Opens a table and locks it; NULL when it is gone, or not in the tree of the target any more. */
static Relation
open_in_hierarchy(const BbmTarget *target, Oid relid, LOCKMODE lock)
{
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, lock) : NULL;

	if (rel && !bbm_partitions_include(target->relid, relid))
	{
		table_close(rel, lock);
		rel = NULL;
	}
	if (rel)
		bbm_check_rows_are_here(relid);
	return rel;
}

/* The leaf with this OID, or (whole) the table with all that is below it. */
static BbmPartition *
open_partition(BbmTarget *target, Oid relid, bool whole)
{
	Relation	rel;
	MemoryContext old;
	BbmPartition *partition;
	int			level;

	/* of one table, what needs it finds out that it is gone */
	if (target->partition && (target->partition->as_one_table != whole ||
							  target->partition->repairs != target->repairs))
		partition_close(target);
	if (!target->per_partition && target->partition && target->partition->relid == relid)
		return target->partition;
	if (target->partition && target->partition->relid == relid)
	{
		rel = open_in_hierarchy(target, relid, AccessShareLock);
		if (rel == NULL)
			return NULL;
		/* its plan has the name that it had then, and tells of the key if there were triggers */
		if (target->partition->checks_key == could_change_key(target, relid) &&
			bbm_partition_is_named(target->partition))
		{
			table_close(rel, NoLock);
			return target->partition;
		}
		table_close(rel, AccessShareLock);
	}
	rel = open_in_hierarchy(target, relid, target->lock_mode);
	if (rel == NULL)
		return NULL;

	partition_close(target);
	partition = MemoryContextAllocZero(target->context, sizeof(BbmPartition));
	partition->context = AllocSetContextCreate(target->context, "bbm leaf", ALLOCSET_SMALL_SIZES);
	partition->relid = relid;
	partition->as_one_table = whole;
	partition->repairs = target->repairs;
	target->partition = partition;
	level = bbm_job_settings(target->migration);
	old = MemoryContextSwitchTo(partition->context);
	PG_TRY();
	{
		partition_resolve(target, partition, rel);
	}
	PG_CATCH();
	{
		partition_close(target);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	bbm_user_settings_end(level);
	table_close(rel, NoLock);
	return partition;
}

/*
 * The leaf with this OID, resolved; NULL when there is none any more, or it is
 * not in the tree.  Until the transaction ends it stays there: it is locked.
 * Needs SPI; the current user is the owner.
 */
BbmPartition *
bbm_partition_open(BbmTarget *target, Oid relid)
{
	return open_partition(target, relid, target->has_partitions && !target->per_partition);
}

/* The table with all that is below it, in the same way, even if it is cut leaf by leaf. */
BbmPartition *
bbm_partitions_open_as_one(BbmTarget *target)
{
	return open_partition(target, target->relid, target->has_partitions);
}

/* Opens each leaf once, so that what does not fit is an error now.  Needs what bbm_partition_open does. */
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

/* ----------------------------------------------------------------
 * The target
 * ----------------------------------------------------------------
 */

/*
 * Is the job given one leaf after the other, or is it about the table as a
 * whole?  What was begun leaf by leaf goes on so when the last child is gone.
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
				 errmsg("%s cannot run a statement over a partitioned table or an inheritance tree",
						target->strategy->name),
				 errdetail("Blocks are those of one partition, and the statement names the table as a whole."),
				 errhint("Use bbm_update or bbm_delete, or a function with the parameter table_name.")));
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
	target->alias = pstrdup(quote_identifier(get_rel_name(target->relid)));

	bbm_failing_code = BBM_CODE_COLUMN;
	if (target->strategy->has_key)
		bbm_key_resolve(&target->key, target->relid, migration->column_name, migration->index_name);
	if (target->strategy->resolve)
		target->strategy->resolve(target);

	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_resolve(target);
	target->has_triggers = could_change_key(target, target->relid);
	bbm_failing_code = BBM_CODE_STRATEGY;
	decide_partition_order(target);
	bbm_failing_code = BBM_CODE_COLUMN;
	if (target->strategy->has_key)
		find_order(target);
	bbm_user_settings_end(level);

	/* of a tree the leaves are opened when their turn comes */
	if (!target->per_partition && bbm_partition_open(target, target->relid) == NULL)
		elog(ERROR, "table \"%s\" is gone", migration->table_name);
	bbm_failing_code = BBM_CODE_UNKNOWN;
}

static BbmMigration *
copy_migration(const BbmMigration *migration)
{
	BbmMigration *copy = palloc(sizeof(BbmMigration));
	char	  **texts[] = {
		&copy->name, &copy->job, &copy->operation, &copy->set_clause, &copy->filter, &copy->row_check,
		&copy->table_name, &copy->column_name, &copy->index_name, &copy->key_order, &copy->strategy,
		&copy->search_path
	};
	BbmBound   *bounds[] = {&copy->min, &copy->max};

	*copy = *migration;
	for (int i = 0; i < lengthof(texts); i++)
		*texts[i] = *texts[i] ? pstrdup(*texts[i]) : NULL;
	for (int i = 0; i < lengthof(bounds); i++)
	{
		if (DatumGetPointer(bounds[i]->key))
			bounds[i]->key = PointerGetDatum(PG_DETOAST_DATUM_COPY(bounds[i]->key));
	}
	copy->origin = NULL;
	copy->overrides = bbm_overrides_copy(migration->overrides);
	return copy;
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

	/* before anything of what the row says is parsed, planned or run */
	bbm_catalog_check_trust(migration->owner);
	target->context = context;
	target->migration = copy_migration(migration);
	target->form = form;
	PG_TRY();
	{
		resolve(target);
	}
	PG_CATCH();
	{
		partition_close(target);
		bbm_rights_forget(target);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	/* only now, so that an error takes it along */
	MemoryContextSetParent(context, TopMemoryContext);
	return target;
}

BbmTarget *
bbm_target_open(const BbmMigration *migration)
{
	return open_target(migration, BBM_JOB_STATEMENT);
}

/* The same to look at its rows alone: its job need not be there any more. */
BbmTarget *
bbm_target_open_to_read(const BbmMigration *migration)
{
	return open_target(migration, BBM_JOB_NONE);
}

void
bbm_target_close(BbmTarget *target)
{
	bbm_lockset_forget(target);
	partition_close(target);
	bbm_rights_forget(target);
	MemoryContextDelete(target->context);
}

/*
 * Is the table still what it was when the target was resolved?  It need not be locked.
 * And do our tables still belong to somebody who may act for the owner: a batch that
 * has begun before they were given away ends as one before that.
 */
bool
bbm_target_is_current(BbmTarget *target)
{
	return bbm_catalog_trusts(target->migration->owner) &&
		bbm_target_is_named(target) && !bbm_is_distributed(target->relid) &&
		bbm_key_is_current(&target->key, target->relid) &&
		target->has_triggers == could_change_key(target, target->relid) &&
		target->has_partitions == bbm_has_partitions(target->relid) && bbm_rights_are_current(target);
}

static double
estimated_rows(Oid relid)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	BlockNumber pages;
	double		tuples = 0;
	double		all_visible;

	if (rel == NULL)
		return 0;
	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		tuples = Max(rel->rd_rel->reltuples, 0);
	else
		estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
	table_close(rel, AccessShareLock);
	return tuples;
}

/* The planner's estimate of the keys to do.  Needs a transaction. */
int64
bbm_target_estimate(BbmTarget *target)
{
	double		rows = 0;
	ListCell   *cell;

	if (!target->has_partitions)
		rows = estimated_rows(target->relid);
	else
	{
		foreach(cell, bbm_partitions_list(target->relid))
			rows += estimated_rows(lfirst_oid(cell));
	}
	return bbm_count_of(target->strategy->share(target, rows));
}

/* The first and the last key there are now; false when there is no row.  Needs a transaction and SPI. */
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
