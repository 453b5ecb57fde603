/*-------------------------------------------------------------------------
 *
 * spi.h
 *		Running statements through SPI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SPI_H
#define BBM_BASE_SPI_H

#include "base/bbm.h"

#include "executor/spi.h"
#include "utils/plancache.h"

#include "base/compat.h"

extern SPIPlanPtr bbm_spi_prepare(const char *sql, int nargs, Oid *types, int cursor_options);
extern void bbm_spi_keep(SPIPlanPtr plan);
extern CachedPlan *bbm_spi_cached_plan(SPIPlanPtr plan);
extern PGDLLEXPORT int bbm_spi_execute(const char *sql, bool read_only, int64 most);
extern int	bbm_spi_execute_ours(const char *sql, bool read_only);
extern int	bbm_spi_execute_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only, int64 most);
extern void bbm_spi_execute_snapshot(SPIPlanPtr plan, Datum *values, Snapshot snapshot);
extern int64 bbm_spi_count(void);
extern Portal bbm_spi_cursor_open(SPIPlanPtr plan, Datum *values);
extern uint64 bbm_spi_cursor_fetch(Portal portal, int64 n);
extern void bbm_spi_cursor_close(Portal portal);
extern ErrorContextCallback *bbm_spi_hide_statement(void);
pg_noreturn extern void bbm_spi_rethrow_without(const char *sql, MemoryContext context);

#endif							/* BBM_BASE_SPI_H */
