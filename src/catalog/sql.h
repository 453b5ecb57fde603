/*-------------------------------------------------------------------------
 *
 * sql.h
 *		The prepared statements over our own tables; for src/catalog only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SQL_H
#define BBM_CATALOG_SQL_H

#include "base/bbm.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"

#define BBM_SQL_MAX_ARGS 80

/*
 * A statement, prepared at its first use and kept.  Each @ in the text stands
 * for the extension's schema, each # for the columns of a migration.  Define
 * them static; never free them.
 */
typedef struct BbmSql
{
	const char *text;
	int			nargs;
	Oid			types[BBM_SQL_MAX_ARGS];
	bool		once;			/* its text is made for one run: it is neither static nor kept */
	SPIPlanPtr	plan;			/* NULL until prepared, or when prepared for an older extension */
	uint64		generation;		/* of the catalog it was prepared for */
	bool		names[BBM_TABLES];	/* the tables that it uses; set with the plan */
	bool		by_reference[BBM_SQL_MAX_ARGS];	/* values of these types are NULL when they are 0; set with the plan */
	BbmTable	runs_as;		/* the table with whose owner's rights it runs; set with the plan */
} BbmSql;

/* In SQL: adds to a count that is never negative, up to the largest bigint. */
#define BBM_UP_TO(amount, count) "least(" amount ", 9223372036854775807 - " count ")"

/*
 * Runs it with these values; the result is in SPI_tuptable and SPI_processed.
 * A text, an array and whatever else is passed by reference is NULL when it is 0.
 */
#define bbm_sql_run(sql, engine, ...) bbm_sql_run_values(sql, (Datum[]) {__VA_ARGS__}, NULL, engine)

extern void bbm_sql_run_values(BbmSql *sql, Datum *values, const char *nulls, bool engine);
extern Datum bbm_sql_text_value(const char *text);

/* Read the first rows of SPI_tuptable. */
extern Datum bbm_sql_get(uint64 row, int column, bool *isnull);
extern bool bbm_sql_is_null(uint64 row, int column);
extern int64 bbm_sql_int64(uint64 row, int column);
extern Oid	bbm_sql_oid(uint64 row, int column);
extern bool bbm_sql_bool(uint64 row, int column);
extern Datum bbm_sql_array(uint64 row, int column, MemoryContext context);
extern char *bbm_sql_text(uint64 row, int column, MemoryContext context);

#endif							/* BBM_CATALOG_SQL_H */
