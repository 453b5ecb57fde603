/*-------------------------------------------------------------------------
 *
 * sql.c
 *		The prepared statements over our own tables.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/sql.h"

#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "base/spi.h"
#include "base/user.h"
#include "catalog/extension.h"
#include "catalog/options.h"
#include "catalog/tables.h"

/* A trigger that belongs neither to the extension nor to its owner must not get its rights. */
static void
check_triggers(const BbmCatalog *catalog, const char *text)
{
	if (catalog->strange_trigger_name && strncmp(text, "SELECT", 6) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot write the tables of extension \"bbm\""),
				 errdetail("%s", catalog->strange_trigger_name),
				 errhint("Drop the trigger, and revoke the privilege TRIGGER on the tables.")));
}

/* The statement's text with the schema and the columns filled in. */
static char *
sql_text(const BbmSql *sql, const char *schema)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (const char *c = sql->text; *c; c++)
	{
		if (*c == '@')
			appendStringInfoString(&buf, schema);
		else if (*c == '#')
			appendStringInfoString(&buf, bbm_option_names());
		else
			appendStringInfoChar(&buf, *c);
	}
	return buf.data;
}

/*
 * Finds the tables that a statement uses: those it names, and the two that our
 * views read.
 *
 * The statement runs as their owner.  The two tables that the GitLab container
 * registry has as well may belong to its role, and what bbm records to another
 * role, so no statement names tables of both kinds.
 */
static void
find_tables(BbmSql *sql)
{
	bool		registrys PG_USED_FOR_ASSERTS_ONLY = strstr(sql->text, "batched_background_migration") || strstr(sql->text, "bbm_migration_status");

	sql->runs_as = BBM_MIGRATIONS;
	for (int i = 0; i < BBM_TABLES; i++)
	{
		bool		named = strstr(sql->text, bbm_table_name(i)) != NULL;

		sql->names[i] = i == BBM_MIGRATIONS || i == BBM_JOBS || named;
		if (named && i >= BBM_PARTITIONS)
		{
			Assert(!registrys);
			sql->runs_as = i;
		}
	}
}

/* Which of the values are NULL, where the caller does not say so. */
static const char *
find_nulls(const BbmSql *sql, const Datum *values, char *nulls)
{
	for (int i = 0; i < sql->nargs; i++)
		nulls[i] = sql->by_reference[i] && DatumGetPointer(values[i]) == NULL ? 'n' : ' ';
	return nulls;
}

/*
 * Locks the tables, for a reader as for a writer: a transaction that reads
 * first may write later, and must not take a strong lock after a weak one (see
 * target/lockset.c).  Others who read or write our tables do not wait for
 * that.
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

/* Prepares the statement: one plan is good for all values, and planning the first five executions costs more. */
static void
prepare(BbmSql *sql, const char *text)
{
	SPIPlanPtr	plan = bbm_spi_prepare(text, sql->nargs, sql->types, CURSOR_OPT_GENERIC_PLAN);

	if (!sql->once)
		bbm_spi_keep(plan);
	sql->plan = plan;
	for (int i = 0; i < sql->nargs; i++)
		sql->by_reference[i] = !get_typbyval(sql->types[i]);
	sql->generation = bbm_catalog_generation();
}

/* Prepares the statement, if it is not, and executes it; an error does not show it. */
static void
execute(BbmSql *sql, const char *schema, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	char		found[BBM_SQL_MAX_ARGS];

	PG_TRY();
	{
		if (sql->plan == NULL)
			prepare(sql, sql_text(sql, schema));
		(void) bbm_spi_execute_plan(sql->plan, values, nulls ? nulls : find_nulls(sql, values, found), false, 0);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		bbm_spi_rethrow_without(sql_text(sql, schema), context);
	}
	PG_END_TRY();
}

/* Leaves the caller's memory context current.  Without "nulls", values are NULL as for bbm_sql_run. */
void
bbm_sql_run_values(BbmSql *sql, Datum *values, const char *nulls, bool engine)
{
	const BbmCatalog *catalog = bbm_catalog();
	BbmUserSwitch user_switch;

	check_triggers(catalog, sql->text);
	if (sql->plan == NULL)
		find_tables(sql);
	bbm_switch_to_extension_owner(&user_switch, catalog->owners[sql->runs_as], engine);
	lock_tables(catalog, sql);
	if (sql->plan && sql->generation != bbm_catalog_generation())
	{
		SPI_freeplan(sql->plan);
		sql->plan = NULL;
	}
	execute(sql, catalog->schema, values, nulls);
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

/* InvalidOid when NULL. */
Oid
bbm_sql_oid(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(datum);
}

/* false when NULL. */
bool
bbm_sql_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		datum = bbm_sql_get(row, column, &isnull);

	return !isnull && DatumGetBool(datum);
}

bool
bbm_sql_is_null(uint64 row, int column)
{
	bool		isnull;

	(void) bbm_sql_get(row, column, &isnull);
	return isnull;
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

/* A text, or NULL, as a value of a statement. */
Datum
bbm_sql_text_value(const char *text)
{
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}
