/*-------------------------------------------------------------------------
 *
 * verify.c
 *		bbm_verify: how many rows of a migration are not as they should be.
 *
 * NOTES
 *	  The conditions are the owner's texts, so they run with the owner's
 *	  rights, whoever calls: a superuser who verifies must not lend them his
 *	  own.  And only a role that has the owner's rights may call, or the count
 *	  would show what that role may not see.  The owner's code cannot switch
 *	  back: the block is restricted as an index function's is.
 *
 *	  All ranges are counted with one snapshot, taken when the tables are locked,
 *	  and are allocated as the engine allocates them.  This blocks no other
 *	  session, but it keeps VACUUM from removing dead tuples.  The rows of a
 *	  distributed table are counted by Citus, on each node with a snapshot of
 *	  its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/lock_watch.h"
#include "base/locks.h"
#include "base/spi.h"
#include "base/standby.h"
#include "base/txn.h"
#include "base/user.h"
#include "engine/verify.h"
#include "sql/access.h"
#include "sql/cluster.h"
#include "sql/forward.h"
#include "strategy/resolve.h"
#include "strategy/strategy.h"
#include "target/bound.h"
#include "target/hierarchy.h"
#include "target/key.h"
#include "target/key_scan.h"
#include "target/key_sql.h"
#include "target/null_keys.h"
#include "target/partition.h"
#include "target/relation.h"
#include "target/statement.h"
#include "target/target.h"

PG_FUNCTION_INFO_V1(bbm_verify);

/* Rows per range: enough to make a range cheap, and few enough to check for interrupts often. */
#define BBM_VERIFY_SIZE 10000

static void
check_condition(const BbmMigration *migration)
{
	const BbmStrategy *strategy = bbm_strategy_find(migration->strategy);

	if (migration->row_check == NULL && migration->filter == NULL && !(strategy && strategy->one_at_a_time))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("migration \"%s\" has no condition to verify its rows by", migration->name),
				 errdetail("It has neither a \"filter\" that done rows no longer meet nor a \"row_check\"."),
				 errhint("Give a check, as in bbm_verify(name, 'total = price * quantity').")));
	if (GetUserNameFromId(migration->owner, true) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of migration \"%s\" does not exist any more", migration->name),
				 errdetail("Its conditions run with the rights of its owner."),
				 errhint("Give it another with bbm_alter.")));
}

/*
 * Counts range by range along the key, from the migration's first to its last,
 * or over all rows where the range is open.
 */
static int64
count_ranges(BbmTarget *target, BbmPartition *partition, bool by_check)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bbm_verify range", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	BbmBound	min;
	BbmBound	max = target->migration->max;
	BbmBound	last = {0};
	BbmRange	range;
	BbmAllocation		allocation = {.max = &max, .size = BBM_VERIFY_SIZE, .verifies = true,
	.open_below = target->migration->min_found};
	int64		rows = 0;

	/* not started yet, so the bounds are those of now */
	if (!target->key.is_integer && !DatumGetPointer(max.key))
		(void) bbm_target_bounds(target, &min, &max);
	else if (bbm_verifies_beyond(target) && bbm_key_end(target, partition, true, &last))
		max = bbm_key_later(&target->key, &max, &last);
	memset(&last, 0, sizeof(last));
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (!target->strategy->next_range(target, partition, &allocation, &range))
			break;
		rows += bbm_verify_range(target, partition, &range, by_check);
		MemoryContextSwitchTo(old);
		bbm_bound_replace(&last, bbm_bound_copy(&range.max));
		allocation.after = &last;
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return rows;
}

static int64
count_partition(BbmTarget *target, BbmPartition *partition, bool by_check)
{
	BbmRange	all = {0};

	if (target->strategy->has_key)
		return count_ranges(target, partition, by_check);
	if (!target->strategy->table_scans)
		return bbm_verify_range(target, partition, &all, by_check);
	return bbm_verify_blocks(target, partition, by_check);
}

/* The current user is the owner. */
static int64
count_all(const BbmMigration *migration)
{
	BbmTarget  *target = bbm_target_open_to_read(migration);
	int64		rows = 0;
	char	   *table;

	PG_TRY();
	{
		/*
		 * rows that move to another partition between two counts could be
		 * missed: so, except for blocks, count in the order of the key over all
		 */
		bool		per_partition = target->per_partition && (target->strategy->table_scans || !target->rounds);
		List	   *partitions;
		ListCell   *cell;

		/* not with the snapshot of the caller's statement, which may be older than what we have waited for */
		bbm_partitions_snapshot(target->relid, AccessShareLock);
		partitions = per_partition ? bbm_partitions_list(target->relid) : list_make1_oid(target->relid);
		foreach(cell, partitions)
		{
			BbmPartition *partition = per_partition ? bbm_partition_open(target, lfirst_oid(cell)) :
				bbm_partitions_open_as_one(target);

			if (partition)
				rows += count_partition(target, partition, migration->row_check != NULL);
		}
		/* ... and the rows that are in no range */
		if (target->strategy->has_key && !migration->skip_null_keys)
			rows += bbm_null_keys(target, migration->row_check ?
								  psprintf("(%s\n) IS NOT TRUE", migration->row_check) : migration->filter,
								  0, &table);
		PopActiveSnapshot();
	}
	PG_FINALLY();
	{
		/* the target outlives the transaction */
		bbm_target_close(target);
	}
	PG_END_TRY();
	return rows;
}

/* What the bounds of the key that were given leave of a distributed table; empty: all. */
static char *
range_condition(const BbmMigration *migration, BbmKey *key, const char *alias)
{
	const char *low = migration->min_found ? NULL : bbm_key_compare_sql(key, alias, ">=", 1);
	const char *high = migration->max_found ? NULL : bbm_key_compare_sql(key, alias, "<=", key->n + 1);

	if (low == NULL && high == NULL)
		return "";
	/* as elsewhere, rows without a key are outside of no range, and count unless they are to be skipped */
	return psprintf(" AND (%s%s%s) IS %s", low ? low : "", low && high ? " AND " : "", high ? high : "",
					migration->skip_null_keys ? "TRUE" : "NOT FALSE");
}

/*
 * Counts all rows of a distributed table with one query, which Citus runs on
 * all shards.  It is the table that the migration was defined for, by its
 * OID.  The current user is the owner.
 */
static int64
count_distributed(const BbmMigration *migration)
{
	const char *condition = migration->row_check ? migration->row_check : migration->filter;
	BbmKey		key;
	Datum		values[2 * BBM_MAX_KEY_COLUMNS] = {0};
	Oid			types[2 * BBM_MAX_KEY_COLUMNS];
	SPIPlanPtr	plan;
	char	   *alias;
	int			level;
	int64		rows;

	if (get_rel_name(migration->table_oid) == NULL || !bbm_is_distributed(migration->table_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" is not distributed as it was when migration \"%s\" was defined",
						migration->table_name, migration->name),
				 errdetail("It was undistributed, dropped, or replaced by another one."),
				 errhint("Count the rows of the table that has its name now with a query.")));
	level = bbm_job_settings(migration);
	/* it is a condition, and nothing else */
	bbm_statement_check_condition(migration->table_oid, condition, migration->row_check ? "row_check" : "filter");
	LockRelationOid(migration->table_oid, AccessShareLock);
	alias = pstrdup(quote_identifier(get_rel_name(migration->table_oid)));
	bbm_key_resolve(&key, migration->table_oid, migration->column_name);
	for (int i = 0; i < key.n; i++)
		types[i] = types[key.n + i] = key.columns[i].type;
	if (!migration->min_found)
		bbm_key_values(&key, &migration->min, values);
	if (!migration->max_found)
		bbm_key_values(&key, &migration->max, values + key.n);
	plan = bbm_spi_prepare(psprintf("SELECT pg_catalog.count(*) FROM %s AS %s WHERE (%s\n) %s%s",
									bbm_table_sql_name(migration->table_oid), alias, condition,
									migration->row_check ? "IS NOT TRUE" : "IS TRUE",
									range_condition(migration, &key, alias)),
						   2 * key.n, types, 0);
	(void) bbm_spi_execute_plan(plan, values, NULL, true, 0);
	rows = bbm_spi_count();
	bbm_user_settings_end(level);
	return rows;
}

/* bbm_verify(name, "row_check") */
Datum
bbm_verify(PG_FUNCTION_ARGS)
{
	char	   *name = bbm_name_argument(fcinfo);
	BbmMigration *migration;
	Oid			user;
	int			context;
	int			level;
	volatile int64 rows = 0;
	Datum		result;

	bbm_notice_standby();
	if (bbm_forward(fcinfo, name, &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	migration = bbm_get_migration(name);
	if (migration->shard_id != 0)
		bbm_check_not_of_cluster(migration, "verify", BBM_OF_THE_WHOLE);
	if (!PG_ARGISNULL(1))
	{
		/* the caller says what runs as the owner */
		bbm_check_definer(migration->owner, name);
		migration->row_check = text_to_cstring(PG_GETARG_TEXT_PP(1));
	}
	check_condition(migration);

	/* an error ends both with the (sub)transaction */
	GetUserIdAndSecContext(&user, &context);
	level = NewGUCNestLevel();
	bbm_txn_lock_limits(bbm_lock_timeout, true);
	bbm_ours_begin();
	SetUserIdAndSecContext(migration->owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	PG_TRY();
	{
		bbm_yield_begin();
		rows = bbm_is_of_cluster(migration) ? count_distributed(migration) : count_all(migration);
	}
	PG_FINALLY();
	{
		bbm_yield_end();
	}
	PG_END_TRY();
	SetUserIdAndSecContext(user, context);
	bbm_ours_end();
	AtEOXact_GUC(false, level);
	SPI_finish();
	PG_RETURN_INT64(rows);
}
