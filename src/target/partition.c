/*-------------------------------------------------------------------------
 *
 * partition.c
 *		A table with rows of its own, opened: a partition, a child table, or the table itself.
 *
 *-------------------------------------------------------------------------
 */
#include "target/partition.h"

#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "commands/trigger.h"
#include "optimizer/plancat.h"
#include "rewrite/prs2lock.h"
#include "rewrite/rewriteDefine.h"
#include "utils/lsyscache.h"

#include "base/spi.h"
#include "base/txn.h"
#include "base/user.h"
#include "target/hierarchy.h"
#include "target/job.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/key_sql.h"
#include "target/relation.h"
#include "target/rights.h"
#include "target/target.h"

/* What the server says about the statement below. */
static void
may_read_error(void *arg)
{
	const BbmTarget *target = arg;

	if (geterrcode() != ERRCODE_INSUFFICIENT_PRIVILEGE)
		return;
	errdetail("Ranges are allocated along (%s), which the migration's owner has to read.",
			  bbm_key_order_list(&target->key));
	errhint("GRANT SELECT on it to role \"%s\".", GetUserNameFromId(GetUserId(), false));
}

/*
 * The owner needs the privilege to read the key, or the ranges would show it
 * what it may not see: an index is walked without the executor.  So a
 * statement that would read the key is executed, with a condition that
 * excludes all rows: the server checks it, and any extension that audits or
 * restricts reads does so as well.
 */
static void
check_may_read(const BbmTarget *target, const BbmPartition *partition)
{
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = may_read_error,
	.arg = (void *) target};

	error_context_stack = &callback;
	(void) bbm_spi_execute_ours(psprintf("SELECT %s FROM %s AS k WHERE false",
										 bbm_key_list_sql(&target->key, "k", false, false), partition->source), true);
	error_context_stack = callback.previous;
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
				 errmsg("table \"%s\" cannot be split into ranges along index \"%s\"", RelationGetRelationName(rel), name),
				 errdetail("It must be a valid btree index that begins with (%s), in the type's own order, without a predicate.",
						   order),
				 errhint("Name another index with bbm_alter; or none, with UPDATE batched_background_migrations SET index_name = NULL.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of table \"%s\" has no usable index", bbm_key_to_string(&target->key),
					RelationGetRelationName(rel)),
			 errdetail("A usable index is a valid btree index that begins with (%s), in the type's own order, without a predicate.",
					   order),
			 errhint("Create one with CREATE INDEX CONCURRENTLY, name another key, or use BlockRangeBatchingStrategy.")));
}

/* Does a table with rows meet the requirements: nulls only where they are allowed, and what the strategy needs? */
static void
check_table(BbmTarget *target, Relation rel)
{
	if (target->strategy->has_key)
		bbm_key_check_nulls(&target->key, rel);
	/* a migration opened to read has to read the table anyway */
	if (target->strategy->check_table && target->form != BBM_JOB_NONE)
		target->strategy->check_table(target, rel);
}

/* Finds the index to walk in the partition. */
static void
find_index(BbmTarget *target, BbmPartition *partition, Relation rel)
{
	BbmKeyIndex found;

	if (!bbm_key_find_index(&target->key, rel, bbm_index_name(target, partition), false, &found))
		no_index(target, partition, rel);
	for (int i = 0; i < target->key.n; i++)
		target->key.columns[i].nulls_first = found.nulls_first[i];
	/* only the index of a heap is scanned directly: other access methods may have other rows and indexes */
	partition->index = rel->rd_rel->relam == HEAP_TABLE_AM_OID ? found.oid : InvalidOid;
	partition->backwards = found.backwards;
}

/* Does the server apply the rule to statements of this session? */
static bool
is_applied(const RewriteRule *rule)
{
	char		others = SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ? RULE_FIRES_ON_ORIGIN :
		RULE_FIRES_ON_REPLICA;

	return rule->enabled != RULE_DISABLED && rule->enabled != others;
}

/*
 * Does a rule replace the table's UPDATE: always, or (conditional) of some
 * rows?  Other rules, those of an INSERT for one, leave it as it is.
 */
static bool
has_instead_rule(Oid relid, bool conditional)
{
	Relation	rel = RelationIdGetRelation(relid);
	bool		has = false;

	if (!RelationIsValid(rel))
		return false;
	for (int i = 0; rel->rd_rules && i < rel->rd_rules->numLocks; i++)
	{
		const RewriteRule *rule = rel->rd_rules->rules[i];

		has |= rule->event == CMD_UPDATE && rule->isInstead && (rule->qual != NULL) == conditional && is_applied(rule);
	}
	RelationClose(rel);
	return has;
}

/* The table that the statement for a partition, or for the table itself, names: the rules of no other one apply. */
static Oid
named_table(const BbmTarget *target, Oid relid)
{
	return target->has_partitions && (target->as_owner || target->moves_rows) ? target->relid : relid;
}

/* The caller may have no lock on it; of the triggers it is only checked whether there are any. */
static bool
has_row_trigger(Oid relid)
{
	Relation	rel = RelationIdGetRelation(relid);
	bool		has;

	if (!RelationIsValid(rel))
		return false;
	has = rel->trigdesc && rel->trigdesc->trig_update_before_row;
	RelationClose(rel);
	return has;
}

/* Could a trigger of the table, or (whole) of one below the target's, change a key that the migration relies on? */
bool
bbm_could_change_key(const BbmTarget *target, Oid relid, bool whole)
{
	const BbmMigration *migration = target->migration;
	bool		could;
	ListCell   *cell;

	if (target->form != BBM_JOB_COMPOSED || !target->strategy->has_key || migration->allow_key_change ||
		migration->set_clause == NULL)
		return false;
	could = has_row_trigger(relid);
	foreach(cell, whole && !could ? bbm_partitions_list(target->relid) : NIL)
		could |= has_row_trigger(lfirst_oid(cell));
	return could && !has_instead_rule(named_table(target, relid), false);
}

/* The server returns nothing of an UPDATE that a rule replaces for some rows, so that its keys cannot be checked. */
pg_noreturn static void
key_cannot_be_checked(Oid relid)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("triggers of table \"%s\" may change the batching key, which cannot be checked",
					get_rel_name(relid)),
			 errdetail("The table has a BEFORE trigger for updates, and a rule that replaces the UPDATE for some rows."),
			 errhint("If no trigger changes the key, or that does no harm here, say allow_key_change => true.")));
}

/*
 * A table whose partitions are split into ranges as one table is read with a
 * query, which merges what the partitions' indexes return.  Without these
 * indexes the query would sort the table for each range.  Also checks whether
 * one of the partitions is a foreign table.
 */
static void
check_all_partitions(BbmTarget *target, BbmPartition *whole)
{
	ListCell   *cell;

	target->partitions = 0;
	foreach(cell, bbm_partitions_list(target->relid))
	{
		BbmPartition partition = {.relid = lfirst_oid(cell)};
		Relation	rel = try_table_open(partition.relid, AccessShareLock);

		target->partitions++;
		if (rel == NULL)
			continue;
		bbm_check_rows_are_here(partition.relid);
		check_table(target, rel);
		if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			whole->is_foreign = true;
		else if (target->strategy->has_key)
			find_index(target, &partition, rel);
		table_close(rel, AccessShareLock);
	}
}

static void
check_kind(const BbmTarget *target, const BbmPartition *partition, Relation rel)
{
	bool		heap = rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
		!target->is_reference;

	if (!target->strategy->has_key && !heap && !(partition->as_one_table && !target->strategy->table_scans))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s does not fit table \"%s\"", target->strategy->name, RelationGetRelationName(rel)),
				 errdetail("It needs a heap, whose rows have block numbers."),
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

void
bbm_partition_close(BbmTarget *target)
{
	BbmPartition *partition = target->partition;

	if (partition == NULL)
		return;
	target->partition = NULL;
	/* kept plans are not freed with the transaction */
	if (partition->plan)
		SPI_freeplan(partition->plan);
	if (partition->left_plan)
		SPI_freeplan(partition->left_plan);
	if (partition->check_plan)
		SPI_freeplan(partition->check_plan);
	if (partition->probe)
		SPI_freeplan(partition->probe);
	for (int i = 0; i < 2 * lengthof(partition->keys_plan[0]); i++)
	{
		SPIPlanPtr	keys_plan = partition->keys_plan[i / 2][i % 2];

		if (keys_plan)
			SPI_freeplan(keys_plan);
	}
	/* after an error it may be the current one */
	if (CurrentMemoryContext == partition->context)
		MemoryContextSwitchTo(target->context);
	MemoryContextDelete(partition->context);
}

/* Raises an error where the owner's rights require access through the root, but the job goes by partition. */
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

/* Determines where the partition's rows are read and written. */
static void
find_source(const BbmTarget *target, BbmPartition *partition)
{
	if (partition->as_one_table || !target->has_partitions || !target->as_owner)
	{
		partition->source = psprintf("%s%s", partition->as_one_table || target->is_reference ? "" : "ONLY ",
									 partition->name);
		return;
	}
	partition->source = bbm_table_sql_name(target->relid);
	partition->own_rows = psprintf("%s.tableoid OPERATOR(pg_catalog.=) %u::pg_catalog.oid", target->alias, partition->relid);
}

static void
partition_resolve(BbmTarget *target, BbmPartition *partition, Relation rel)
{
	Oid			named;

	bbm_rights_check_partition(target, partition->relid);
	check_as_owner(target);
	/* reading its keys, and planning its job, locks everything below the table */
	if (partition->as_one_table || (target->has_partitions && target->as_owner))
		bbm_partitions_lock(target->relid, target->lock_mode);
	partition->relkind = rel->rd_rel->relkind;
	partition->name = bbm_table_sql_name(partition->relid);
	find_source(target, partition);
	bbm_failing_code = BBM_CODE_STRATEGY;
	check_kind(target, partition, rel);
	bbm_failing_code = BBM_CODE_COLUMN;
	partition->is_foreign = partition->relkind == RELKIND_FOREIGN_TABLE || target->is_reference;
	if (target->strategy->has_key)
		check_may_read(target, partition);
	partition->checks_key = bbm_could_change_key(target, partition->relid, partition->as_one_table);
	named = named_table(target, partition->relid);
	if (partition->checks_key && has_instead_rule(named, true))
		key_cannot_be_checked(named);
	if (partition->as_one_table)
		check_all_partitions(target, partition);
	else
		check_table(target, rel);
	if (!partition->as_one_table && target->strategy->has_key && !partition->is_foreign)
		find_index(target, partition, rel);
	/* the index shows keys of rows that the owner may not see */
	if (target->as_owner)
		partition->index = InvalidOid;
	measure(partition, rel);
	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_prepare(target, partition);
	bbm_failing_code = BBM_CODE_UNKNOWN;
}

/* Opens a table and locks it; NULL when it is gone, or not below the target's table any more. */
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

/* Opens the partition with this OID, or (whole) the table with everything below it. */
static BbmPartition *
open_partition(BbmTarget *target, Oid relid, bool whole)
{
	Relation	rel;
	MemoryContext context;
	MemoryContext old;
	BbmPartition *partition;
	int			level;

	/* with a single table, whatever uses it finds out when it is gone */
	if (target->partition && (target->partition->as_one_table != whole ||
							  target->partition->repairs != target->repairs))
		bbm_partition_close(target);
	if (!target->per_partition && target->partition && target->partition->relid == relid)
		return target->partition;
	if (target->partition && target->partition->relid == relid)
	{
		rel = open_in_hierarchy(target, relid, AccessShareLock);
		if (rel == NULL)
			return NULL;
		/* its plan contains the name of that time, and checks the key if there were triggers */
		if (target->partition->checks_key == bbm_could_change_key(target, relid, whole) &&
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

	bbm_partition_close(target);
	context = AllocSetContextCreate(target->context, "bbm partition", ALLOCSET_SMALL_SIZES);
	partition = MemoryContextAllocZero(context, sizeof(BbmPartition));
	partition->context = context;
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
		bbm_partition_close(target);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	bbm_user_settings_end(level);
	table_close(rel, NoLock);
	return partition;
}

/*
 * Opens and resolves the partition with this OID; NULL when it does not exist
 * any more, or is not below the table.  Until the transaction ends it stays
 * there, as it is locked.  Needs SPI; the current user is the owner.
 */
BbmPartition *
bbm_partition_open(BbmTarget *target, Oid relid)
{
	return open_partition(target, relid, target->has_partitions && !target->per_partition);
}

/* Does the same for the table with everything below it, even if it is processed partition by partition. */
BbmPartition *
bbm_partitions_open_as_one(BbmTarget *target)
{
	return open_partition(target, target->relid, target->has_partitions);
}
