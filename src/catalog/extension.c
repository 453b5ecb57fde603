/*-------------------------------------------------------------------------
 *
 * extension.c
 *		Finding the extension in this database, and running our statements.
 *
 * NOTES
 *	  The extension may be created, dropped, created again and updated while a
 *	  worker lives.  What was found is cached until a relcache invalidation of
 *	  our table (or of all) shows that it may have changed; then it is looked
 *	  up again, and if it is another extension, the statements are prepared
 *	  again.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/extension.h"

#include "access/table.h"
#include "catalog/pg_trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/txn.h"
#include "base/user.h"
#include "catalog/shape.h"
#include "catalog/tables.h"

#define MIGRATIONS_TABLE "batched_background_migrations"
#define JOBS_TABLE "batched_background_migration_jobs"

static BbmCatalog found;
static bool found_valid = false;
static bool searching = false;	/* the OIDs are not known yet: an invalidation of any table may be for ours */
static uint64 forgotten = 0;	/* number of invalidations */
static uint64 generation = 0;

/*
 * The result of a search is valid as of its start: an invalidation that
 * arrives during the search must not be lost at its end.
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

/* A schema was renamed or dropped, perhaps ours. */
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

/* A table of that name that is a member of the extension, or InvalidOid. */
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
 * Finds a trigger of the table that would run another role's code with its
 * owner's rights: the privilege TRIGGER is enough to create one, and our
 * statements would fire it.  Or a deferred one, which fires at the commit,
 * with the rights of our caller: its function must belong to a superuser.
 * NULL when there is none.
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
		if (!member_can_set_role(((Form_pg_proc) GETSTRUCT(function))->proowner, owner))
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

/* Finds an index that we scan directly; if there is none, that is the flaw. */
static Oid
find_index(BbmCatalog *now, BbmTable table, const char *first, const char *second)
{
	Oid			index = bbm_shape_index(now->tables[table], first, second);

	if (!OidIsValid(index) && now->flaw == NULL)
	{
		now->flaw = psprintf("Table \"%s\" has no index on (%s%s%s).", bbm_table_name(table), first,
							 second ? ", " : "", second ? psprintf("%s DESC", second) : "");
		now->flaw_hint = psprintf("Use CREATE INDEX to make it what it was; it has no WHERE, and is not of another method than btree.");
	}
	return index;
}

/* Reads the owners of our tables, and what the tables lack. */
static void
check_tables(BbmCatalog *now, Oid schema)
{
	for (int i = 0; i < BBM_TABLES; i++)
	{
		now->tables[i] = member_table(now->extension, schema, bbm_table_name(i));
		now->owners[i] = table_owner(now->tables[i]);
		if (now->strange_trigger_name == NULL)
			now->strange_trigger_name = strange_trigger(now->tables[i], now->owners[i]);
	}
	now->owner = now->owners[BBM_MIGRATIONS];
	/* in another version they have other columns, and nothing is run */
	if (!bbm_catalog_matches(now))
		return;
	now->flaw = bbm_shape_flaw(now, &now->flaw_hint);
	now->migrations_key = find_index(now, BBM_MIGRATIONS, "id", NULL);
	now->migrations_by_table = find_index(now, BBM_MIGRATIONS, "table_oid", NULL);
	now->jobs_key = find_index(now, BBM_JOBS, "id", NULL);
	now->jobs_newest = find_index(now, BBM_JOBS, "batched_background_migration_id", "id");
	now->totals_key = find_index(now, BBM_TOTALS, "migration_id", NULL);
	if (now->flaw == NULL && now->owner != now->owners[BBM_JOBS])
	{
		/* no role, where DROP EXTENSION commits in the midst of this */
		now->flaw = psprintf("Table \"%s\" belongs to role \"%s\", and table \"%s\" to role \"%s\".",
							 MIGRATIONS_TABLE, bbm_role_name(now->owner), JOBS_TABLE,
							 bbm_role_name(now->owners[BBM_JOBS]));
		now->flaw_hint = "Give both to the same role with ALTER TABLE ... OWNER TO.";
	}
}

/*
 * Looks up the extension; false when this database has none.  A separate
 * function because of the caller's PG_TRY.
 */
static pg_noinline bool
search(BbmCatalog *now)
{
	Oid			schema;
	char	   *schema_name;

	if (!read_extension(&now->extension, &schema, &now->version))
		return false;
	now->migrations = member_table(now->extension, schema, MIGRATIONS_TABLE);
	now->jobs = member_table(now->extension, schema, JOBS_TABLE);
	if (!OidIsValid(now->migrations) || !OidIsValid(now->jobs))
		return false;
	/* nothing is locked: it may be dropped between any two of these look-ups */
	schema_name = get_namespace_name(schema);
	if (schema_name == NULL)
		return false;
	now->schema = pstrdup(quote_identifier(schema_name));
	check_tables(now, schema);
	return true;
}

/*
 * A text that outlives the transaction: the known one, if it is the same.  A
 * search may come inside of any statement of ours, so callers that hold what was
 * found before may read its texts afterwards; the few that differ, as after a
 * schema was renamed, are never freed.
 */
static char *
keep_text(char *known, const char *text)
{
	if (known && text && strcmp(known, text) == 0)
		return known;
	return text ? MemoryContextStrdup(TopMemoryContext, text) : NULL;
}

/*
 * Returns where the extension is, whatever its version, or NULL when this
 * database has none.  Needs a transaction.
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
	now.schema = keep_text(found.schema, now.schema);
	now.version = keep_text(found.version, now.version);
	now.strange_trigger_name = keep_text(found.strange_trigger_name, now.strange_trigger_name);
	now.flaw = keep_text(found.flaw, now.flaw);
	now.flaw_hint = keep_text(found.flaw_hint, now.flaw_hint);
	if (found.migrations != now.migrations || found.jobs != now.jobs || found.schema != now.schema)
		generation++;
	found = now;
	found_valid = forgotten == before;
	return &found;
}

/*
 * Makes the next use look up the extension again.  ALTER EXTENSION UPDATE need
 * not touch our table, so a long-lived process calls this from time to time.
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
 * DROP EXTENSION may happen between any two transactions of the engine; what
 * fails then is not the fault of a migration.  Runs a transaction of its own.
 * If that fails (the cancel that ended a batch may come twice) we assume that
 * the extension exists, since the job has to be recorded.
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

/* The same for callers that need the extension: raises an error. */
const BbmCatalog *
bbm_catalog(void)
{
	const BbmCatalog *catalog = bbm_catalog_find();

	if (catalog == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"bbm\" does not exist in this database"),
				 errdetail("Each database that has migrations has the extension."),
				 errhint("Run CREATE EXTENSION bbm.")));
	if (!bbm_catalog_matches(catalog))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"bbm\" has version %s, but the library is %s",
						catalog->version, BBM_VERSION),
				 errdetail("Nothing runs before both are of the same version."),
				 errhint("Run ALTER EXTENSION bbm UPDATE, or install the library that belongs to it.")));
	if (catalog->flaw)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the tables of extension \"bbm\" are not as they were created"),
				 errdetail("%s", catalog->flaw),
				 errhint("%s", catalog->flaw_hint)));
	return catalog;
}

/*
 * The same for what we add to statements of others, which must not fail
 * because ours would: NULL instead of an error.
 */
const BbmCatalog *
bbm_catalog_usable(void)
{
	const BbmCatalog *catalog = bbm_catalog_find();

	return catalog && bbm_catalog_matches(catalog) && catalog->flaw == NULL ? catalog : NULL;
}

/* The lock class of our locks.  Needs a transaction. */
Oid
bbm_lock_class(void)
{
	return bbm_catalog()->migrations;
}

/* The value of the column "origin" of a migration that was started here. */
const char *
bbm_origin(void)
{
	static char origin[64] = "";

	if (origin[0] == '\0')
		snprintf(origin, sizeof(origin), UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
	return origin;
}

/* Was a migration with this "origin" started on this server, be it in another database? */
bool
bbm_is_of_this_server(const char *origin)
{
	const char *here = bbm_origin();

	return strncmp(origin, here, strchr(here, '/') + 1 - here) == 0;
}

/* Returns an owner of one of our tables that must not act for this role; InvalidOid when there is none. */
static Oid
untrusted(Oid role)
{
	const BbmCatalog *catalog = bbm_catalog();

	for (int i = 0; i < BBM_TABLES; i++)
	{
		if (!member_can_set_role(catalog->owners[i], role))
			return catalog->owners[i];
	}
	return InvalidOid;
}

/* May the role's migrations be run and defined here? */
bool
bbm_catalog_trusts(Oid role)
{
	return !OidIsValid(untrusted(role));
}

/*
 * Raises an error when the role's migrations must not be run or defined here.
 * The owner of our tables can write any row of them, bypassing the guards; so
 * it has to be a role that may act for this role anyway.  A superuser may.
 *
 * Everything that uses the role's rights for what our tables contain calls
 * this: nobody else may decide what these rights are used for.
 */
void
bbm_catalog_check_trust(Oid role)
{
	Oid			owner = untrusted(role);

	if (OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("migrations of role \"%s\" do not run in this database", bbm_role_name(role)),
				 errdetail("The tables of extension \"bbm\" belong to role \"%s\", which can write any row of them and must not act for it.",
						   bbm_role_name(owner)),
				 errhint("Give the tables to a superuser, or to a member of the role.")));
}

/*
 * Incremented whenever the extension may be another one than before:
 * statements prepared for it are outdated.
 */
uint64
bbm_catalog_generation(void)
{
	return generation;
}
