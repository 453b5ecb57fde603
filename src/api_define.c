/*-------------------------------------------------------------------------
 *
 * api_define.c
 *		bbm_create, bbm_alter, bbm_drop.
 *
 * They check everything at the call: what a worker would check when it takes
 * the migration up, with the same code, as the role that will own it.  What
 * the row itself shows is checked by its trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "access.h"
#include "catalog.h"
#include "compat.h"
#include "target.h"
#include "txn.h"

PG_FUNCTION_INFO_V1(bbm_create);
PG_FUNCTION_INFO_V1(bbm_alter);
PG_FUNCTION_INFO_V1(bbm_drop);

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
require(bool given, const char *name)
{
	if (!given)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name),
				 errdetail("A migration needs it."),
				 errhint("Leave it out for its default, if it has one.")));
}

/* The column is a smallint, so this cannot be left to the row's trigger. */
static void
check_max_attempts(const int *max_attempts)
{
	if (max_attempts && (*max_attempts < 1 || *max_attempts > BBM_MAX_ATTEMPTS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_attempts: %d", *max_attempts),
				 errdetail("It is how often a job may be executed before the migration fails."),
				 errhint("Use a number from 1 to %d.", BBM_MAX_ATTEMPTS)));
}

static void
check_name_is_free(const char *name)
{
	if (bbm_migration_by_name(name, CurrentMemoryContext))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("migration \"%s\" already exists", name),
				 errdetail("Names are unique in a database."),
				 errhint("Choose another name, or bbm_drop that one.")));
}

static char *
required_text_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	require(!PG_ARGISNULL(n), name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static const int *
int_arg(FunctionCallInfo fcinfo, int n)
{
	int		   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(int));
	*value = PG_GETARG_INT32(n);
	return value;
}

static const int64 *
int64_arg(FunctionCallInfo fcinfo, int n)
{
	int64	   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(int64));
	*value = PG_GETARG_INT64(n);
	return value;
}

static const bool *
bool_arg(FunctionCallInfo fcinfo, int n)
{
	bool	   *value;

	if (PG_ARGISNULL(n))
		return NULL;
	value = palloc(sizeof(bool));
	*value = PG_GETARG_BOOL(n);
	return value;
}

static const ArrayType *
array_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_ARRAYTYPE_P(n);
}

/* Where a worker logs in as the owner, the owner must be allowed to. */
static void
check_may_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may_login = HeapTupleIsValid(tuple) && ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (BBM_OWNER_NEEDS_LOGIN && !may_login)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" cannot own a migration, because it is not permitted to log in",
						GetUserNameFromId(role, false)),
				 errdetail("Before PostgreSQL 17 a background worker cannot run as such a role."),
				 errhint("ALTER ROLE … LOGIN; without a password nobody can use that.")));
}

/* The names of options in the order of bbm_create's parameters. */
enum
{
	ARG_NAME, ARG_TABLE, ARG_JOB, ARG_COLUMN, ARG_BATCH_SIZE, ARG_SUB_BATCH_SIZE, ARG_MIN, ARG_MAX,
	ARG_STRATEGY, ARG_WORKERS, ARG_MAX_ATTEMPTS, ARG_SHARE_TABLE, ARG_SYNCHRONOUS, ARG_START,
	ARG_SETTINGS
};

/* The registry's "schema.table" of a resolved table. */
static char *
table_name_of(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/* Fixes the range at what the table has now, where the caller gave none. */
static void
fix_bounds(BbmTarget *target, BbmDefinition *d)
{
	int64	   *low = palloc(sizeof(int64));
	int64	   *high = palloc(sizeof(int64));

	if (d->min_value && d->max_value)
		return;
	if (!target->strategy->bounds(target, low, high))
	{
		/* an empty table: one key, which no row has yet */
		*low = d->min_value ? *d->min_value : d->max_value ? *d->max_value : 1;
		*high = *low;
	}
	if (d->min_value == NULL)
		d->min_value = d->max_value ? (*low = Min(*low, *d->max_value), low) : low;
	if (d->max_value == NULL)
	{
		/* all rows may lie below the lowest key asked for; then nothing is to do */
		*high = Max(*high, *d->min_value);
		d->max_value = high;
	}
}

Datum
bbm_create(PG_FUNCTION_ARGS)
{
	Oid			owner = GetUserId();
	BbmDefinition d = {
		.name = required_text_arg(fcinfo, ARG_NAME, "name"),
		.table_name = required_text_arg(fcinfo, ARG_TABLE, "table_name"),
		.job = required_text_arg(fcinfo, ARG_JOB, "job"),
		.column_name = text_arg(fcinfo, ARG_COLUMN),
		.strategy = text_arg(fcinfo, ARG_STRATEGY),
		.search_path = pstrdup(namespace_search_path),
		.min_value = int64_arg(fcinfo, ARG_MIN),
		.max_value = int64_arg(fcinfo, ARG_MAX),
		.batch_size = int_arg(fcinfo, ARG_BATCH_SIZE),
		.sub_batch_size = int_arg(fcinfo, ARG_SUB_BATCH_SIZE),
		.workers = int_arg(fcinfo, ARG_WORKERS),
		.max_attempts = int_arg(fcinfo, ARG_MAX_ATTEMPTS),
		.share_table = bool_arg(fcinfo, ARG_SHARE_TABLE),
		.synchronous = bool_arg(fcinfo, ARG_SYNCHRONOUS),
		.settings = array_arg(fcinfo, ARG_SETTINGS)
	};
	bool		start = !PG_ARGISNULL(ARG_START) && PG_GETARG_BOOL(ARG_START);
	BbmMigration migration = {.max_attempts = 1, .batch_size = 1};
	BbmTarget  *target;
	int64		id;

	require(d.batch_size != NULL, "batch_size");
	require(d.workers != NULL, "workers");
	require(d.max_attempts != NULL, "max_attempts");
	require(d.share_table != NULL, "share_table");
	require(d.synchronous != NULL, "synchronous");
	check_max_attempts(d.max_attempts);
	SPI_connect();
	(void) bbm_catalog();
	check_may_log_in(owner);
	check_name_is_free(d.name);

	migration.name = (char *) d.name;
	migration.job = (char *) d.job;
	migration.table_name = (char *) d.table_name;
	migration.strategy = (char *) d.strategy;
	migration.search_path = (char *) d.search_path;
	migration.owner = owner;
	if (d.column_name == NULL)
	{
		int			level = bbm_job_settings(&migration);

		d.column_name = bbm_target_primary_key(bbm_target_table(d.table_name));
		bbm_user_settings_end(level);
	}
	migration.column_name = (char *) d.column_name;

	/* as the caller, who will be the owner; it holds nothing back for later */
	target = bbm_target_open(&migration);
	fix_bounds(target, &d);
	d.table_name = table_name_of(target->relid);
	bbm_target_close(target);

	id = bbm_migration_insert(&d, owner, start ? BBM_ACTIVE : BBM_PAUSED);
	SPI_finish();
	PG_RETURN_INT64(id);
}

/* The order of bbm_alter's parameters. */
enum
{
	ALTER_NAME, ALTER_NEW_NAME, ALTER_JOB, ALTER_BATCH_SIZE, ALTER_SUB_BATCH_SIZE, ALTER_MAX, ALTER_WORKERS,
	ALTER_MAX_ATTEMPTS, ALTER_SHARE_TABLE, ALTER_SYNCHRONOUS, ALTER_OWNER, ALTER_SETTINGS
};

/* A new job is checked as bbm_create checks one, as the role that will run it. */
static void
check_new_job(const BbmMigration *old, const BbmDefinition *d)
{
	BbmMigration migration = *old;

	if (old->owner != GetUserId() || d->owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the job of migration \"%s\" can only be changed by its owner", old->name),
				 errdetail("It is checked with the rights of the role that will run it."),
				 errhint("SET ROLE to the owner first.")));
	migration.job = (char *) d->job;
	migration.search_path = (char *) d->search_path;
	bbm_target_close(bbm_target_open(&migration));
}

Datum
bbm_alter(PG_FUNCTION_ARGS)
{
	char	   *name = text_arg(fcinfo, ALTER_NAME);
	BbmDefinition d = {
		.name = text_arg(fcinfo, ALTER_NEW_NAME),
		.job = text_arg(fcinfo, ALTER_JOB),
		.batch_size = int_arg(fcinfo, ALTER_BATCH_SIZE),
		.sub_batch_size = int_arg(fcinfo, ALTER_SUB_BATCH_SIZE),
		.max_value = int64_arg(fcinfo, ALTER_MAX),
		.workers = int_arg(fcinfo, ALTER_WORKERS),
		.max_attempts = int_arg(fcinfo, ALTER_MAX_ATTEMPTS),
		.share_table = bool_arg(fcinfo, ALTER_SHARE_TABLE),
		.synchronous = bool_arg(fcinfo, ALTER_SYNCHRONOUS),
		.owner = PG_ARGISNULL(ALTER_OWNER) ? NULL : NameStr(*PG_GETARG_NAME(ALTER_OWNER)),
		.settings = array_arg(fcinfo, ALTER_SETTINGS)
	};
	BbmMigration *migration;
	BbmStatus	status;

	if (name == NULL)
		bbm_must_not_be_null("name");
	SPI_connect();
	migration = bbm_get_migration(name);
	check_max_attempts(d.max_attempts);
	if (d.name && strcmp(d.name, name) != 0)
		check_name_is_free(d.name);
	/* from here on it does not change under us */
	if (bbm_migration_lock(migration->id, &status) && status == BBM_FINISHED &&
		(d.job || d.batch_size || d.sub_batch_size || d.max_value || d.workers || d.max_attempts ||
		 d.share_table || d.synchronous || d.settings))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration \"%s\" is finished and stays so", name),
				 errdetail("A change would have no effect."),
				 errhint("Define another one for what is still to be done.")));
	if (d.owner)
		check_may_log_in(get_role_oid(d.owner, false));
	if (d.job)
	{
		d.search_path = pstrdup(namespace_search_path);
		check_new_job(migration, &d);
	}
	bbm_migration_alter(migration->id, &d);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
bbm_drop(PG_FUNCTION_ARGS)
{
	char	   *name = text_arg(fcinfo, 0);
	bool		if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		exists;

	if (name == NULL)
		bbm_must_not_be_null("name");
	SPI_connect();
	exists = bbm_migration_by_name(name, CurrentMemoryContext) != NULL;
	if (!exists && if_exists)
		ereport(NOTICE, (errmsg("migration \"%s\" does not exist, skipping", name)));
	else
		/* its trigger cancels the batches in flight, which the DELETE then waits for */
		bbm_migration_delete(bbm_get_migration(name)->id);
	SPI_finish();
	PG_RETURN_BOOL(exists);
}
