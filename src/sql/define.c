/*-------------------------------------------------------------------------
 *
 * define.c
 *		bbm_create, bbm_update, bbm_delete, bbm_alter, bbm_drop.
 *
 * They check everything at the call: what a worker would check when it starts
 * the migration, with the same code, as the role that will own it.  What the
 * row itself shows is checked by its trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/bbm.h"
#include "base/guc.h"
#include "base/locks.h"
#include "base/standby.h"
#include "base/user.h"
#include "catalog/errors.h"
#include "catalog/extension.h"
#include "catalog/merge.h"
#include "catalog/migrations.h"
#include "catalog/options.h"
#include "catalog/partitions.h"
#include "engine/event.h"
#include "sql/access.h"
#include "sql/arguments.h"
#include "sql/bounds.h"
#include "sql/cluster.h"
#include "sql/cluster_control.h"
#include "sql/doctor.h"
#include "sql/existing.h"
#include "sql/forward.h"
#include "strategy/resolve.h"
#include "strategy/strategy.h"
#include "target/cascade.h"
#include "target/job.h"
#include "target/key.h"
#include "target/key_index.h"
#include "target/key_order.h"
#include "target/lockset.h"
#include "target/null_keys.h"
#include "target/order.h"
#include "target/relation.h"
#include "target/target.h"

PG_FUNCTION_INFO_V1(bbm_create);
PG_FUNCTION_INFO_V1(bbm_update);
PG_FUNCTION_INFO_V1(bbm_delete);
PG_FUNCTION_INFO_V1(bbm_alter);
PG_FUNCTION_INFO_V1(bbm_drop);

static void
name_is_taken(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("migration \"%s\" already exists", name),
			 errdetail("Names are unique in a database."),
			 errhint("Choose another name, or bbm_drop that one.")));
}

/*
 * A batch whose size was not given begins with this many keys, and aims at
 * this much time: a batch that waits for its commit aims at more, since it
 * waits that often.
 */
#define BBM_FIRST_SIZE 100
#define BBM_TARGET_US 1000
#define BBM_SYNCHRONOUS_TARGET_US (10 * 1000)

/* Without a size the batch size is adaptive; with one it is exact. */
static void
default_size(BbmDefinition *d)
{
	Interval   *target = palloc0(sizeof(Interval));

	if (bbm_definition_has(d, "batch_size"))
		return;
	bbm_definition_set(d, "batch_size", Int32GetDatum(BBM_FIRST_SIZE));
	if (bbm_definition_has(d, "target_duration"))
		return;
	target->time = DatumGetBool(bbm_definition_get(d, "synchronous")) ? BBM_SYNCHRONOUS_TARGET_US : BBM_TARGET_US;
	bbm_definition_set(d, "target_duration", IntervalPGetDatum(target));
}

/*
 * The key, where the caller names none: the columns of the primary key, or
 * those of the index.  A composed statement needs no key; it runs block by
 * block.
 */
static void
default_key(BbmMigration *m, const BbmBounds *bounds, Oid relid)
{
	const BbmStrategy *strategy = bbm_strategy_find(m->strategy);

	if (m->column_name || strategy == NULL)
		return;
	if (strategy->has_key)
		m->column_name = bbm_key_default_columns(relid, m->index_name);
	if (m->operation && m->index_name == NULL && bounds->min == NULL && bounds->max == NULL)
		m->column_name = bbm_order_default_key(relid, m->column_name);
	if (m->column_name == NULL && m->operation && m->strategy == NULL && m->index_name == NULL)
	{
		m->strategy = pstrdup(bbm_strategy_block.name);
		strategy = &bbm_strategy_block;
	}
	if (m->column_name == NULL && strategy->table_scans)
		m->column_name = pstrdup("ctid");
	if (m->column_name == NULL && !strategy->has_key)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column_name must not be null"),
				 errdetail("%s fills a column where it is null.", strategy->name),
				 errhint("Name that column.")));
	if (m->column_name == NULL && m->index_name)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no index \"%s\" of plain columns", get_rel_name(relid), m->index_name),
				 errdetail("Without column_name, the batching key is the columns of that index."),
				 errhint("Name the index without its schema; \\d shows the table's indexes.")));
	if (m->column_name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", get_rel_name(relid)),
				 errdetail("Its primary key is the default for the batching key."),
				 errhint("Name the batching key in column_name, or use bbm_update or bbm_delete.")));
}

/* An upper bound that is given is final; one that is determined from the table may move. */
static void
check_follow(const BbmMigration *m, const BbmBounds *bounds)
{
	if (m->follow && bounds->max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a migration with an upper bound cannot follow"),
				 errdetail("\"follow\" goes on beyond what is the last key when the migration is defined."),
				 errhint("Leave out the bound, or \"follow\".")));
}

/* The statement as it is shown to users, for the table as a whole. */
static char *
composed_job(BbmTarget *target)
{
	char	   *name = bbm_table_sql_name(target->relid);
	BbmPartition		root = {.relid = target->relid, .name = name,
		.source = psprintf("%s%s", target->has_partitions ? "" : "ONLY ", name),
	.as_one_table = target->has_partitions};

	return bbm_job_sql(target, &root);
}

/* Its condition, if it has one, is evaluated with the search_path of its job. */
static void
check_condition(const BbmMigration *m)
{
	const char *condition = bbm_setting_string(m, BBM_CONDITION);
	int			level;

	if (condition == NULL)
		return;
	level = bbm_job_settings(m);
	bbm_condition_check(condition);
	bbm_user_settings_end(level);
}

/* Checks a definition by its target, and sets what was not given. */
static void
complete(BbmDefinition *d, const BbmMigration *m, BbmBounds *bounds, BbmTarget *target)
{
	bbm_target_check_partitions(target);
	bbm_target_check_verification(target);
	bbm_bounds_check(target, d, bounds);
	bbm_bounds_fix(target, bounds);
	bbm_null_keys_warn(target);
	bbm_definition_set_bound(d, "min_value", "min_key", bounds->min);
	bbm_definition_set_bound(d, "max_value", "max_key", bounds->max);
	bbm_definition_set_text(d, "column_name", m->column_name);
	bbm_definition_set_text(d, "batching_strategy", m->strategy);
	bbm_definition_set_text(d, "key_order", bbm_key_order_to_string(&target->key));
	bbm_definition_set_text(d, "table_name", bbm_table_sql_name(target->relid));
	if (m->operation)
		bbm_definition_set_text(d, "job_signature_name", composed_job(target));
}

/*
 * Resolves a definition as a worker would, and as the caller, who will be the
 * owner; sets what was not given.  No check is left for later.  Returns the
 * table.
 */
static Oid
resolve(BbmDefinition *d)
{
	BbmMigration *m;
	BbmBounds	bounds = bbm_bounds_given(d);
	BbmTarget  *target;
	Oid			relid;
	int			level;

	m = bbm_definition_migration(d, CurrentMemoryContext);
	m->owner = GetUserId();
	/* the bounds are not checked yet */
	memset(&m->min, 0, sizeof(BbmBound));
	memset(&m->max, 0, sizeof(BbmBound));
	check_follow(m, &bounds);
	check_condition(m);
	level = bbm_job_settings(m);
	relid = bbm_target_table(m->table_name, BBM_WORK_LOCK, true);
	if (bbm_is_distributed(relid))
	{
		bbm_cluster_resolve(d, m, relid);
		bbm_user_settings_end(level);
		return relid;
	}
	default_key(m, &bounds, relid);
	bbm_user_settings_end(level);

	target = bbm_target_open(m);
	relid = target->relid;
	PG_TRY();
	{
		complete(d, m, &bounds, target);
	}
	PG_FINALLY();
	{
		/* the target outlives the transaction */
		bbm_target_close(target);
	}
	PG_END_TRY();
	return relid;
}

/*
 * The caller has asked for a migration of this name, if there is none: returns
 * the id of the one that there is, if it is defined the same.
 */
static int64
keep_existing(const BbmMigration *existing, BbmDefinition *d, bool resolved)
{
	bbm_check_owner(existing->owner, existing->name);
	if (!resolved && existing->status != BBM_FINISHED)
	{
		(void) resolve(d);
		resolved = true;
	}
	bbm_existing_compare(existing, d, resolved);
	return existing->id;
}

/*
 * Checks a definition and writes it; returns the migration's id, and its table
 * if it is new.
 *
 * Another session may define a migration of the name at any moment.  Before
 * our INSERT that is seen by our check or by the INSERT, which waits for that
 * session's transaction to end and does nothing if it commits; after it, that
 * session waits for us.
 */
static int64
define(BbmDefinition *d, bool start, bool if_not_exists, Oid *table)
{
	bool		min_found = !bbm_definition_has(d, "min_value") && !bbm_definition_has(d, "min_key");
	bool		max_found = !bbm_definition_has(d, "max_value") && !bbm_definition_has(d, "max_key");
	char	   *name = TextDatumGetCString(bbm_definition_get(d, "name"));
	BbmMigration *existing;
	int64		id;

	(void) bbm_catalog();
	bbm_check_may_log_in(GetUserId());
	default_size(d);
	bbm_definition_set(d, "min_found", BoolGetDatum(min_found));
	bbm_definition_set(d, "max_found", BoolGetDatum(max_found));
	existing = bbm_migration_by_name(name);
	if (existing && if_not_exists)
		return keep_existing(existing, d, false);
	if (existing)
		name_is_taken(name);
	*table = resolve(d);
	bbm_definition_set(d, "status", Int16GetDatum(start ? BBM_ACTIVE : BBM_PAUSED));
	bbm_definition_set(d, "owner",
					   DirectFunctionCall1(namein, CStringGetDatum(GetUserNameFromId(GetUserId(), false))));
	id = bbm_migration_insert(d);
	if (id == 0)
	{
		existing = if_not_exists ? bbm_migration_by_name(name) : NULL;
		if (existing)
			return keep_existing(existing, d, true);
		name_is_taken(name);
	}
	bbm_migration_defined(id, *table, min_found, max_found);
	bbm_cluster_defined(id, *table, start);
	if (bbm_definition_has(d, "operation"))
		ereport(NOTICE,
				(errmsg("migration \"%s\" runs: %s", name,
						TextDatumGetCString(bbm_definition_get(d, "job_signature_name")))));
	return id;
}

/*
 * What the three functions have in common.  "operation" is NULL when the caller
 * brings the job along, and "part" what an operation needs.
 */
static int64
define_from(FunctionCallInfo fcinfo, const char *operation, const char *part, BbmDefinition *d, Oid *table)
{
	BbmArguments arguments = bbm_arguments(fcinfo);
	int64		id;

	bbm_must_be_writable(operation ? psprintf("bbm_%s()", operation) : "bbm_create()");
	bbm_arguments_read(&arguments, true, d);
	if (operation)
		bbm_argument_require(bbm_definition_has(d, part), bbm_option_parameter(bbm_option_of_column(part)), false);
	bbm_definition_set_text(d, "operation", operation);
	bbm_definition_set_text(d, "job_search_path", namespace_search_path);
	if (bbm_forward_definition(fcinfo, TextDatumGetCString(bbm_definition_get(d, "name")),
							   TextDatumGetCString(bbm_definition_get(d, "table_name")), &id))
		return id;
	SPI_connect();
	id = define(d, bbm_argument_is_true(&arguments, "start"), bbm_argument_is_true(&arguments, "if_not_exists"), table);
	SPI_finish();
	if (bbm_argument_is_true(&arguments, "start"))
		bbm_warn_if_nothing_runs();
	return id;
}

Datum
bbm_create(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {0};
	Oid			table;

	PG_RETURN_INT64(define_from(fcinfo, NULL, NULL, &d, &table));
}

Datum
bbm_update(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {0};
	Oid			table;

	PG_RETURN_INT64(define_from(fcinfo, "update", "set_clause", &d, &table));
}

Datum
bbm_delete(PG_FUNCTION_ARGS)
{
	BbmDefinition d = {0};
	Oid			table = InvalidOid;
	int64		id = define_from(fcinfo, "delete", "filter", &d, &table);
	char	   *cascades = OidIsValid(table) ? bbm_statement_cascades(table) : NULL;

	if (cascades)
		ereport(NOTICE,
				(errmsg("rows of other tables go with those that migration \"%s\" deletes",
						TextDatumGetCString(bbm_definition_get(&d, "name"))),
				 errdetail("%s", cascades)));
	PG_RETURN_INT64(id);
}

/* A new job is checked as bbm_create checks one, as the role that will run it. */
static void
check_new_job(const BbmMigration *old, BbmDefinition *d)
{
	BbmMigration migration = *old;

	if (old->owner != GetUserId() || bbm_definition_has(d, "owner"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the job of migration \"%s\" can only be changed by its owner", old->name),
				 errdetail("It is checked with the rights of the role that will run it."),
				 errhint("SET ROLE to the owner first.")));
	if (old->operation)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the job of migration \"%s\" cannot be changed", old->name),
				 errdetail("bbm_%s composed it from its arguments.", old->operation),
				 errhint("Define another migration.")));
	migration.job = TextDatumGetCString(bbm_definition_get(d, "job_signature_name"));
	migration.search_path = pstrdup(namespace_search_path);
	bbm_definition_set_text(d, "job_search_path", migration.search_path);
	migration.job_settings = bbm_session_settings_now();
	bbm_definition_set(d, "job_settings", migration.job_settings);
	bbm_target_close(bbm_target_open(&migration));
}

/* For a role other than the owner a worker makes this check. */
static void
check_new_index(const BbmMigration *old, char *index_name)
{
	BbmMigration migration = *old;

	migration.index_name = index_name;
	bbm_target_close(bbm_target_open(&migration));
}

/* Does the same for a condition. */
static void
check_new_settings(const BbmMigration *old, const BbmDefinition *d)
{
	BbmMigration migration = *old;

	/* the search_path is one of the row's */
	bbm_catalog_check_trust(old->owner);
	migration.overrides = bbm_overrides_read(DatumGetArrayTypeP(bbm_definition_get(d, "settings")));
	if (bbm_definition_has(d, "job_search_path"))
		migration.search_path = TextDatumGetCString(bbm_definition_get(d, "job_search_path"));
	check_condition(&migration);
}

/*
 * Restarts the migration from the first key, with the table that has the
 * migration's table name now: the record of what was done is deleted.  Caller
 * has bbm_migration_lock, so no job is claimed until we commit; a job in
 * flight is cancelled, and the DELETE of its row waits for it.  If somebody
 * changes the table meanwhile, the first claim detects it, as after
 * bbm_create.
 */
static void
restart(const BbmMigration *old, BbmStatus status)
{
	BbmMigration migration = *old;
	BbmBounds	bounds = {old->min_found ? NULL : &migration.min, old->max_found ? NULL : &migration.max};
	BbmTarget  *target;

	if (old->owner != GetUserId())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("migration \"%s\" can be restarted only by its owner", old->name),
				 errdetail("The table is checked with the rights of the role that will run it."),
				 errhint("SET ROLE to the owner first.")));
	(void) bbm_cancel_running(old->id);
	bbm_jobs_forget(old->id);
	bbm_partitions_forget(old->id);
	bbm_errors_forget(old->id);
	migration.table_oid = InvalidOid;
	migration.key_order = NULL;
	migration.partition_order = BBM_ORDER_UNDECIDED;
	migration.phase = BBM_WORK(1);
	target = bbm_target_open(&migration);
	PG_TRY();
	{
		bbm_target_check_partitions(target);
		bbm_target_check_verification(target);
		/* a bound of another kind of key is void */
		if (target->key.is_integer == (DatumGetPointer(old->max.key) != (Datum) 0))
			bounds.min = bounds.max = NULL;
		bbm_bounds_fix(target, &bounds);
		bbm_migration_restart(old->id, target->relid, old->operation ? composed_job(target) : NULL, bounds.min,
							  bounds.max, bbm_key_order_to_string(&target->key));
		bbm_report_act(old->id, old->name, "restarted", status == BBM_RUNNING ? BBM_ACTIVE : status, old->owner,
					   psprintf("with table %s, OID %u", bbm_table_sql_name(target->relid), target->relid));
	}
	PG_FINALLY();
	{
		bbm_target_close(target);
	}
	PG_END_TRY();
}

/* Others rely on exactly this definition having been executed. */
static void
check_not_finished(const BbmMigration *migration, const BbmDefinition *d, bool again)
{
	bbm_each_option(option)
	{
		if (!again && !((option->flags & (BBM_WHAT | BBM_HOW)) && bbm_definition_has(d, option->column)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is finished and stays so", migration->name),
				 errdetail("A change would have no effect."),
				 errhint("Define another one for what is still to be done.")));
	}
}

/* Checks and makes a change of what is given.  Caller has bbm_migration_lock. */
static void
alter(const BbmMigration *migration, BbmDefinition *d)
{
	if (DatumGetBool(bbm_definition_get(d, "follow")))
		bbm_check_follow(migration->strategy);
	if (bbm_definition_has(d, "owner"))
	{
		const char *name = NameStr(*DatumGetName(bbm_definition_get(d, "owner")));
		Oid			owner = get_role_oid(name, true);

		if (!OidIsValid(owner))
			bbm_no_such_owner(name);
		bbm_check_may_log_in(owner);
	}
	if (bbm_definition_has(d, "job_signature_name"))
		check_new_job(migration, d);
	if (bbm_definition_has(d, "index_name") && migration->owner == GetUserId())
		check_new_index(migration, TextDatumGetCString(bbm_definition_get(d, "index_name")));
	if (bbm_definition_has(d, "settings") && migration->owner == GetUserId())
		check_new_settings(migration, d);
	/* a size without a target duration is exact, as in bbm_create */
	if (bbm_definition_has(d, "batch_size") && !bbm_definition_has(d, "target_duration"))
		bbm_definition_set_null(d, "target_duration");
	bbm_migration_write(migration->id, d, false);
}

/*
 * The nodes adopt how the migration of a distributed table is done, and nothing
 * else; the part of it that is about a shard is as its record says.
 */
static void
check_alters_on_nodes(const BbmMigration *migration, const BbmDefinition *d, bool again)
{
	bool		possible = bbm_is_of_cluster(migration) && !again;

	if (migration->shard_record == NULL)
		return;
	bbm_each_option(option)
		possible = possible && (!bbm_definition_has(d, option->column) || bbm_cluster_may_alter(option->column));
	if (!possible)
		bbm_check_not_of_cluster(migration, "alter",
								 bbm_is_of_cluster(migration) ?
								 "Alter how its batches are done; or drop it, and define another one for what is left." :
								 BBM_OF_THE_WHOLE);
}

Datum
bbm_alter(PG_FUNCTION_ARGS)
{
	BbmArguments arguments = bbm_arguments(fcinfo);
	char	   *name = bbm_argument_text(&arguments, "name");
	char	   *new_name = bbm_argument_text(&arguments, "new_name");
	bool		again = bbm_argument_is_true(&arguments, "restart");
	BbmDefinition d = {0};
	BbmMigration *migration;
	BbmStatus	status;
	Datum		result;

	bbm_must_be_writable("bbm_alter()");
	if (name == NULL)
		bbm_must_not_be_null("name");
	if (bbm_forward(fcinfo, name, &result))
		PG_RETURN_VOID();
	bbm_arguments_read(&arguments, false, &d);
	bbm_definition_unset(&d, "name");
	bbm_definition_set_text(&d, "name", new_name);
	SPI_connect();
	migration = bbm_get_migration(name);
	check_alters_on_nodes(migration, &d, again);
	/* whichever table has the name now */
	if (again)
		migration->table_oid = InvalidOid;
	if (new_name && strcmp(new_name, name) != 0 && bbm_migration_by_name(new_name))
		name_is_taken(new_name);
	/* after a split, rows of the record are copied; those that we do not see would keep what is altered */
	bbm_cluster_hold(list_make1(migration));
	/* from here on nobody else can change it */
	if (!bbm_migration_lock(migration->id, &status))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("migration \"%s\" does not exist any more", name),
				 errdetail("Another session has dropped or replaced it meanwhile."),
				 errhint("bbm_status() lists those you may see.")));
	if (status == BBM_FINISHED)
		check_not_finished(migration, &d, again);
	alter(migration, &d);
	if (again)
		restart(bbm_migration_by_id(migration->id, CurrentMemoryContext), status);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
bbm_drop(PG_FUNCTION_ARGS)
{
	char	   *name;
	bool		if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		exists;
	Datum		result;

	bbm_must_be_writable("bbm_drop()");
	name = bbm_name_argument(fcinfo);
	if (bbm_forward(fcinfo, name, &result))
		PG_RETURN_DATUM(result);
	SPI_connect();
	exists = bbm_migration_by_name(name) != NULL;
	if (!exists && if_exists)
		bbm_notice_no_such_migration(name, ", skipping");
	else
	{
		BbmMigration *migration = bbm_get_migration(name);

		if (migration->shard_id != 0)
			bbm_check_not_of_cluster(migration, "drop", BBM_OF_THE_WHOLE);
		/* its trigger cancels the batches in flight, which the DELETE then waits for */
		bbm_ours_begin();
		bbm_migration_delete(migration->id);
		bbm_ours_end();
	}
	SPI_finish();
	PG_RETURN_BOOL(exists);
}
