/*-------------------------------------------------------------------------
 *
 * tables.c
 *		Our tables, by their names.
 *
 *-------------------------------------------------------------------------
 */
#include "catalog/tables.h"

static const char *const table_names[BBM_TABLES] = {
	[BBM_MIGRATIONS] = "batched_background_migrations",
	[BBM_JOBS] = "batched_background_migration_jobs",
	[BBM_PARTITIONS] = "bbm_partitions",
	[BBM_ROW_ERRORS] = "bbm_row_errors",
	[BBM_EVENTS] = "bbm_events",
	[BBM_TOTALS] = "bbm_totals"
};

const char *
bbm_table_name(BbmTable table)
{
	return table_names[table];
}
