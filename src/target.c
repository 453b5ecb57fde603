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
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/plancat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"
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

/* "schema.table" taken literally, as the registry writes it, or InvalidOid. */
static Oid
literal_table(const char *name)
{
	const char *dot = strchr(name, '.');
	Oid			schema;

	if (dot == NULL || dot == name || dot[1] == '\0')
		return InvalidOid;
	schema = get_namespace_oid(pnstrdup(name, dot - name), true);
	return OidIsValid(schema) ? get_relname_relid(dot + 1, schema) : InvalidOid;
}

/* An SQL name, qualified or not, or InvalidOid. */
static Oid
named_table(const char *name)
{
	List	   *names = NIL;

	/* an empty part would be an error without a hint, and so would a database's name */
	if (SplitIdentifierString(pstrdup(name), '.', &names) &&
		(list_length(names) == 1 || list_length(names) == 2))
	{
		char	   *last = llast(names);

		return RangeVarGetRelid(makeRangeVar(list_length(names) == 2 ? linitial(names) : NULL, last, -1),
								NoLock, true);
	}
	return InvalidOid;
}

/*
 * The table of that name: literally, or else as an SQL name.  Raises an error
 * when there is none, or when it is something that has no rows of its own to
 * work on.  Takes the lock a reader takes.
 */
Oid
bbm_target_table(const char *name)
{
	Oid			relid = literal_table(name);
	Relation	rel;
	const char *what = NULL;

	if (!OidIsValid(relid))
		relid = named_table(name);
	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s\" does not exist", name),
				 errdetail("It was looked for with search_path \"%s\".", namespace_search_path),
				 errhint("Write it as schema.table.")));

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
			if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
				what = "a temporary table, which no other session can see";
			else if (find_inheritance_children(relid, NoLock) != NIL)
				what = "a table with inheritance children";
			break;
		case RELKIND_PARTITIONED_TABLE:
			what = "a partitioned table";
			break;
		case RELKIND_VIEW:
			what = "a view";
			break;
		case RELKIND_MATVIEW:
			what = "a materialized view";
			break;
		case RELKIND_FOREIGN_TABLE:
			what = "a foreign table";
			break;
		default:
			what = "not a table";
			break;
	}
	if (what)
		ereport(ERROR,
				(errcode(rel->rd_rel->relkind == RELKIND_RELATION ||
						 rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
						 ERRCODE_FEATURE_NOT_SUPPORTED : ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot run batches over \"%s\"", name),
				 errdetail("It is %s.", what),
				 errhint("Name an ordinary table; of a partitioned one, each partition.")));
	if (getExtensionOfObject(RelationRelationId, relid) == bbm_catalog()->extension)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot run batches over \"%s\"", name),
				 errdetail("It is a table of the extension itself."),
				 errhint("Name a table of your own.")));
	relation_close(rel, NoLock);
	return relid;
}

static AttrNumber
find_column(Oid relid, const char *column)
{
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist", column, get_rel_name(relid)),
				 errdetail("The name is taken as it is, without folding to lower case."),
				 errhint("Name a column with a unique index.")));
	if (attnum < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("system column \"%s\" cannot be a batching key", column),
				 errdetail("Rows move when they are updated."),
				 errhint("Name a column of the table.")));
	return attnum;
}

/* The column of the primary key, for callers that name none. */
char *
bbm_target_primary_key(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Bitmapset  *key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	int			attnum = 0;

	if (bms_membership(key) == BMS_SINGLETON)
		attnum = bms_singleton_member(key) + FirstLowInvalidHeapAttributeNumber;
	table_close(rel, NoLock);
	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key of one column", get_rel_name(relid)),
				 errdetail("Its primary key is the default for the batching key."),
				 errhint("Name the batching key in column_name.")));
	return get_attname(relid, attnum, false);
}

/* The owner needs to read the key, or the cut would show it what it may not see. */
static void
check_may_read(BbmTarget *target)
{
	char	   *sql = psprintf("SELECT %s FROM %s",
							   quote_identifier(get_attname(target->relid, target->attnum, false)),
							   quote_qualified_identifier(get_namespace_name(get_rel_namespace(target->relid)),
														  get_rel_name(target->relid)));
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	CachedPlan *cached = plan ? SPI_plan_get_cached_plan(plan) : NULL;

	if (cached == NULL)
		elog(ERROR, "could not plan \"%s\"", sql);
	bbm_check_permissions(linitial_node(PlannedStmt, cached->stmt_list));
	ReleaseCachedPlan(cached, NULL);
	SPI_freeplan(plan);
}

static void
resolve(BbmTarget *target)
{
	const BbmMigration *migration = target->migration;
	int			level = bbm_job_settings(migration);

	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_check_text(migration->job);

	bbm_failing_code = BBM_CODE_STRATEGY;
	target->strategy = bbm_strategy_find(migration->strategy);
	if (target->strategy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batching strategy \"%s\" does not exist", migration->strategy),
				 errdetail("The strategies are SerialKeySetBatchingStrategy and NullKeySetBatchingStrategy."),
				 errhint("Leave it NULL for SerialKeySetBatchingStrategy.")));

	bbm_failing_code = BBM_CODE_TABLE;
	target->relid = bbm_target_table(migration->table_name);

	bbm_failing_code = BBM_CODE_COLUMN;
	target->attnum = find_column(target->relid, migration->column_name);
	check_may_read(target);
	target->strategy->resolve(target);

	bbm_failing_code = BBM_CODE_SIGNATURE;
	bbm_job_prepare(target);
	bbm_failing_code = BBM_CODE_UNKNOWN;

	bbm_user_settings_end(level);
}

/*
 * Resolves a migration as the current user, who must be its owner; raises an
 * error when anything does not fit.  Needs a transaction and SPI.  The result
 * lives until bbm_target_close, across transactions.
 */
BbmTarget *
bbm_target_open(const BbmMigration *migration)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bbm target",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	BbmTarget  *target = palloc0(sizeof(BbmTarget));
	BbmMigration *copy = palloc(sizeof(BbmMigration));

	*copy = *migration;
	copy->name = pstrdup(migration->name);
	copy->job = pstrdup(migration->job);
	copy->table_name = pstrdup(migration->table_name);
	copy->column_name = pstrdup(migration->column_name);
	copy->strategy = migration->strategy ? pstrdup(migration->strategy) : NULL;
	copy->search_path = pstrdup(migration->search_path);
	copy->home = NULL;
	copy->overrides = bbm_overrides_copy(migration->overrides);
	target->context = context;
	target->migration = copy;
	MemoryContextSwitchTo(old);
	PG_TRY();
	{
		resolve(target);
	}
	PG_CATCH();
	{
		/* kept plans do not go with the transaction */
		if (target->plan)
			SPI_freeplan(target->plan);
		if (target->probe)
			SPI_freeplan(target->probe);
		PG_RE_THROW();
	}
	PG_END_TRY();
	/* only now, so that an error takes it along */
	MemoryContextSetParent(context, TopMemoryContext);
	return target;
}

void
bbm_target_close(BbmTarget *target)
{
	if (target->plan)
		SPI_freeplan(target->plan);
	if (target->probe)
		SPI_freeplan(target->probe);
	MemoryContextDelete(target->context);
}

/* The planner's estimate of the rows to do.  Needs a transaction. */
int64
bbm_target_estimate(BbmTarget *target)
{
	Relation	rel = table_open(target->relid, AccessShareLock);
	BlockNumber pages;
	double		tuples;
	double		all_visible;

	estimate_rel_size(rel, NULL, &pages, &tuples, &all_visible);
	table_close(rel, AccessShareLock);
	return (int64) (tuples * target->strategy->share(target));
}
