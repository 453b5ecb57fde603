/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		Finding the extension in this database, and running our statements.
 *
 * NOTES
 *	  The extension may be created, dropped, created again and updated while a
 *	  worker lives.  What was found is kept until a relcache invalidation of
 *	  our table (or of all) says that it may have changed; then it is looked up
 *	  again, and the statements prepared for another one are prepared anew.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "sql.h"
#include "spi.h"
#include "txn.h"

#define MIGRATIONS_TABLE "batched_background_migrations"
#define JOBS_TABLE "batched_background_migration_jobs"

static const char *const table_names[BBM_TABLES] = {
	[BBM_MIGRATIONS] = MIGRATIONS_TABLE,
	[BBM_JOBS] = JOBS_TABLE,
	[BBM_PARTITIONS] = "bbm_partitions",
	[BBM_ROW_ERRORS] = "bbm_row_errors",
	[BBM_EVENTS] = "bbm_events"
};

const char *
bbm_table_name(BbmTable table)
{
	return table_names[table];
}

static BbmCatalog found;
static bool found_valid = false;
static bool searching = false;	/* its OIDs are not known yet: any table's message may be about it */
static uint64 forgotten = 0;	/* how often it was */
static char *found_schema = NULL;	/* of the last generation */
static uint64 generation = 0;

/*
 * What is found is as of when the search began: a message that comes in its
 * midst must not be forgotten at its end.
 */
static void
forget_found(Datum arg, Oid relid)
{
	bool		ours = !OidIsValid(relid);

	for (int i = 0; i < BBM_TABLES; i++)
		ours = ours || relid == found.tables[i];
	if (ours || searching)
		bbm_catalog_forget();
}

/* A schema was renamed or dropped, ours perhaps. */
static void
forget_schema(Datum arg, int cache, uint32 hash)
{
	bbm_catalog_forget();
}

/* Reads schema and version of our extension; false when it is not in this database. */
static bool
read_extension(Oid *extension, Oid *schema, char **version)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		exists;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("bbm"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	exists = HeapTupleIsValid(tuple);
	if (exists)
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		*extension = form->oid;
		*schema = form->extnamespace;
		*version = isnull ? pstrdup("") : text_to_cstring(DatumGetTextPP(datum));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return exists;
}

/* A table of that name that the extension really has, or InvalidOid. */
static Oid
member_table(Oid extension, Oid schema, const char *name)
{
	Oid			relid = get_relname_relid(name, schema);

	if (OidIsValid(relid) && getExtensionOfObject(RelationRelationId, relid) == extension &&
		get_rel_relkind(relid) == RELKIND_RELATION)
		return relid;
	return InvalidOid;
}

static Oid
table_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/*
 * A trigger of the table that would do with its owner's rights what another role
 * has written: who has but the privilege TRIGGER can create one, and our
 * statements would fire it.  Or a deferred one, which fires at the commit, with the
 * rights of whoever has called us: that has to be a superuser's.  NULL when there
 * is none.
 */
static char *
strange_trigger(Oid relid, Oid owner)
{
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *found_name = NULL;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (found_name == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		HeapTuple	function = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));

		if (!HeapTupleIsValid(function))
			continue;
		if (!bbm_can_set_role(((Form_pg_proc) GETSTRUCT(function))->proowner, owner))
			found_name = psprintf("It would fire trigger \"%s\" of table \"%s\", whose function belongs to a role that must not act for their owner.",
								  NameStr(trigger->tgname), get_rel_name(relid));
		else if (trigger->tgdeferrable && !superuser_arg(((Form_pg_proc) GETSTRUCT(function))->proowner))
			found_name = psprintf("It would fire the deferrable trigger \"%s\" of table \"%s\" at the commit, with the rights of the caller.",
								  NameStr(trigger->tgname), get_rel_name(relid));
		ReleaseSysCache(function);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found_name;
}

/* An index that is walked by hand; without one that is the flaw. */
static Oid
find_index(BbmCatalog *now, BbmTable table, const char *first, const char *second)
{
	Oid			index = bbm_shape_index(now->tables[table], first, second);

	if (!OidIsValid(index) && now->flaw == NULL)
	{
		now->flaw = psprintf("Table \"%s\" has no index on (%s%s%s).", table_names[table], first,
							 second ? ", " : "", second ? psprintf("%s DESC", second) : "");
		now->flaw_hint = psprintf("Use CREATE INDEX to make it what it was; it has no WHERE, and is not of another method than btree.");
	}
	return index;
}

/* Owners of our tables, and what the tables lack. */
static void
look_at_tables(BbmCatalog *now, Oid schema)
{
	for (int i = 0; i < BBM_TABLES; i++)
	{
		now->tables[i] = member_table(now->extension, schema, table_names[i]);
		now->owners[i] = table_owner(now->tables[i]);
		if (now->stranger == NULL)
			now->stranger = strange_trigger(now->tables[i], now->owners[i]);
	}
	now->owner = now->owners[BBM_MIGRATIONS];
	/* of another version they look otherwise, and nothing is run */
	if (!bbm_catalog_matches(now))
		return;
	now->flaw = bbm_shape_flaw(now, &now->flaw_hint);
	now->migrations_key = find_index(now, BBM_MIGRATIONS, "id", NULL);
	now->migrations_by_table = find_index(now, BBM_MIGRATIONS, "table_oid", NULL);
	now->jobs_key = find_index(now, BBM_JOBS, "id", NULL);
	now->jobs_newest = find_index(now, BBM_JOBS, "batched_background_migration_id", "id");
	if (now->flaw == NULL && now->owner != now->owners[BBM_JOBS])
	{
		now->flaw = psprintf("Table \"%s\" belongs to role \"%s\", and table \"%s\" to role \"%s\".",
							 MIGRATIONS_TABLE, GetUserNameFromId(now->owner, false), JOBS_TABLE,
							 GetUserNameFromId(now->owners[BBM_JOBS], false));
		now->flaw_hint = "Give both to the same role with ALTER TABLE … OWNER TO.";
	}
}

/* Looks the extension up; false when this database has none.  Apart from the caller's PG_TRY. */
static pg_noinline bool
search(BbmCatalog *now)
{
	Oid			schema;

	if (!read_extension(&now->extension, &schema, &now->version))
		return false;
	now->migrations = member_table(now->extension, schema, MIGRATIONS_TABLE);
	now->jobs = member_table(now->extension, schema, JOBS_TABLE);
	if (!OidIsValid(now->migrations) || !OidIsValid(now->jobs))
		return false;
	now->schema = pstrdup(quote_identifier(get_namespace_name(schema)));
	look_at_tables(now, schema);
	return true;
}

static char *
keep_text(const char *text)
{
	return text ? MemoryContextStrdup(TopMemoryContext, text) : NULL;
}

static void
forget_text(char *text)
{
	if (text)
		pfree(text);
}

/*
 * Where the extension is, or NULL when this database has none, whatever its
 * version.  Needs a transaction.
 */
const BbmCatalog *
bbm_catalog_find(void)
{
	static bool registered = false;
	BbmCatalog	now = {0};
	uint64		before;
	volatile bool is_here = false;

	if (found_valid)
		return &found;
	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_found, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, (Datum) 0);
		registered = true;
	}
	before = forgotten;
	searching = true;
	PG_TRY();
	{
		is_here = search(&now);
	}
	PG_FINALLY();
	{
		searching = false;
	}
	PG_END_TRY();
	if (!is_here)
		return NULL;
	now.schema = MemoryContextStrdup(TopMemoryContext, now.schema);
	now.version = MemoryContextStrdup(TopMemoryContext, now.version);
	now.stranger = keep_text(now.stranger);
	now.flaw = keep_text(now.flaw);
	now.flaw_hint = keep_text(now.flaw_hint);
	if (found.schema)
	{
		pfree(found.schema);
		pfree(found.version);
		forget_text(found.stranger);
		forget_text(found.flaw);
		forget_text(found.flaw_hint);
	}
	if (found.migrations != now.migrations || found.jobs != now.jobs ||
		found_schema == NULL || strcmp(found_schema, now.schema) != 0)
		generation++;
	if (found_schema)
		pfree(found_schema);
	found_schema = MemoryContextStrdup(TopMemoryContext, now.schema);
	found = now;
	found_valid = forgotten == before;
	return &found;
}

/*
 * Looks again at the next use.  ALTER EXTENSION UPDATE need not touch our
 * table, so a process that stays asks from time to time.
 */
void
bbm_catalog_forget(void)
{
	found_valid = false;
	forgotten++;
}

static void
find_extension(void *arg)
{
	bbm_catalog_forget();
	*(bool *) arg = bbm_catalog_find() != NULL;
}

/*
 * DROP EXTENSION may come between any two transactions of the engine; what
 * fails then is no fault of a migration.  Runs a transaction of its own.  Where
 * that fails (the cancel that ended a batch may come twice) nothing is known
 * against it, and the job has to be recorded.
 */
bool
bbm_extension_is_here(void)
{
	bool		here = false;

	return bbm_txn_run(find_extension, &here, false) != NULL || here;
}

/* Is the SQL of the same version as this library? */
bool
bbm_catalog_matches(const BbmCatalog *catalog)
{
	return strcmp(catalog->version, BBM_VERSION) == 0;
}

/* The same for callers that cannot go on without: raises an error. */
const BbmCatalog *
bbm_catalog(void)
{
	const BbmCatalog *catalog = bbm_catalog_find();

	if (catalog == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"bbm\" does not exist in this database"),
				 errhint("Run CREATE EXTENSION bbm.")));
	if (!bbm_catalog_matches(catalog))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"bbm\" has version %s, but the library is %s",
						catalog->version, BBM_VERSION),
				 errhint("Run ALTER EXTENSION bbm UPDATE, or install the library that belongs to it.")));
	if (catalog->flaw)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the tables of extension \"bbm\" are not as they were created"),
				 errdetail("%s", catalog->flaw),
				 errhint("%s", catalog->flaw_hint)));
	return catalog;
}

/* The space our locks are in.  Needs a transaction. */
Oid
bbm_lock_class(void)
{
	return bbm_catalog()->migrations;
}

/* What the column "home" says of a migration that was started here. */
const char *
bbm_origin(void)
{
	static char origin[64] = "";

	if (origin[0] == '\0')
		snprintf(origin, sizeof(origin), UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
	return origin;
}

/* Who owns one of our tables, and may not act for this role; InvalidOid when there is nobody. */
static Oid
untrusted(Oid role)
{
	const BbmCatalog *catalog = bbm_catalog();

	for (int i = 0; i < BBM_TABLES; i++)
	{
		if (!bbm_can_set_role(catalog->owners[i], role))
			return catalog->owners[i];
	}
	return InvalidOid;
}

/* Are the role's migrations to be run and defined here? */
bool
bbm_catalog_trusts(Oid role)
{
	return !OidIsValid(untrusted(role));
}

/*
 * Raises an error when the role's migrations are not to be run or defined here.
 * Who owns our tables can write any row of them, past the guards; so he has to
 * be one who may act for the role anyhow.  A superuser may.
 *
 * Everything asks that uses the role's rights for what stands in our tables:
 * nobody else may decide what these are used for.
 */
void
bbm_catalog_check_trust(Oid role)
{
	Oid			owner = untrusted(role);
	char	   *name = GetUserNameFromId(role, true);

	if (OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("migrations of role \"%s\" do not run in this database", name ? name : "?"),
				 errdetail("The tables of extension \"bbm\" belong to role \"%s\", which can write any row of them and must not act for it.",
						   GetUserNameFromId(owner, false)),
				 errhint("Give the tables to a superuser, or to a member of the role.")));
}

/* A trigger that is not the extension's or its owner's must not get its rights. */
static void
check_triggers(const BbmCatalog *catalog, const char *text)
{
	if (catalog->stranger && strncmp(text, "SELECT", 6) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot write the tables of extension \"bbm\""),
				 errdetail("%s", catalog->stranger),
				 errhint("Drop the trigger, and revoke the privilege TRIGGER on the tables.")));
}

/* The statement's text with the schema put in. */
static char *
sql_text(const BbmSql *sql, const char *schema)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = sql->text; *c; c++)
	{
		if (*c == '@')
			appendStringInfoString(&buf, schema);
		else
			appendStringInfoChar(&buf, *c);
	}
	return buf.data;
}

/*
 * Which of our tables a statement is about: those it names, and the two that our views are made of.
 *
 * It runs as who owns them.  The two that are the registry's may belong to its
 * role, and what bbm records to somebody else, so no statement names tables of
 * both kinds.
 */
static void
find_tables(BbmSql *sql)
{
	bool		registrys PG_USED_FOR_ASSERTS_ONLY = strstr(sql->text, "batched_background_migration") || strstr(sql->text, "bbm_migration_status");

	sql->runs_as = BBM_MIGRATIONS;
	for (int i = 0; i < BBM_TABLES; i++)
	{
		bool		named = strstr(sql->text, table_names[i]) != NULL;

		sql->names[i] = i == BBM_MIGRATIONS || i == BBM_JOBS || named;
		if (named && i >= BBM_PARTITIONS)
		{
			Assert(!registrys);
			sql->runs_as = i;
		}
	}
}

/*
 * Locks the tables, for a reader as for a writer: what reads first may write in
 * the same transaction, and a weak lock must not be followed by a strong one (see
 * lockset.c).  Others who read or write our tables do not wait for that.
 */
static void
lock_tables(const BbmCatalog *catalog, const BbmSql *sql)
{
	for (int i = 0; i < BBM_TABLES; i++)
	{
		if (sql->names[i] && OidIsValid(catalog->tables[i]))
			LockRelationOid(catalog->tables[i], RowExclusiveLock);
	}
}

/* The caller's memory context stays the current one. */
void
bbm_sql_run(BbmSql *sql, Datum *values, const char *nulls, bool engine)
{
	const BbmCatalog *catalog = bbm_catalog();
	BbmUserSwitch user_switch;
	int			result;

	check_triggers(catalog, sql->text);
	if (sql->plan == NULL)
		find_tables(sql);
	bbm_switch_to_extension_owner(&user_switch, catalog->owners[sql->runs_as], engine);
	lock_tables(catalog, sql);
	if (sql->plan && sql->generation != generation)
	{
		SPI_freeplan(sql->plan);
		sql->plan = NULL;
	}
	if (sql->plan == NULL)
	{
		/* one plan is right for all values; a plan for each of the first five costs more than they do */
		SPIPlanPtr	plan = bbm_spi_prepare(sql_text(sql, catalog->schema), sql->nargs, sql->types,
										   CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", sql->text, SPI_result_code_string(SPI_result));
		sql->plan = plan;
		sql->generation = generation;
	}
	result = bbm_spi_execute_plan(sql->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql->text, SPI_result_code_string(result));
	bbm_restore_user(&user_switch);
}

Datum
bbm_sql_get(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* 0 when NULL; int2 and int4 columns are cast in the statement. */
int64
bbm_sql_int64(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(datum);
}

/* NULL when NULL. */
char *
bbm_sql_text(uint64 row, int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

/* (Datum) 0 when NULL. */
Datum
bbm_sql_array(uint64 row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);
	MemoryContext old;

	if (isnull)
		return (Datum) 0;
	old = MemoryContextSwitchTo(context);
	datum = PointerGetDatum(PG_DETOAST_DATUM_COPY(datum));
	MemoryContextSwitchTo(old);
	return datum;
}
