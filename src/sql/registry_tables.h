/*-------------------------------------------------------------------------
 *
 * registry_tables.h
 *		The GitLab container registry's own tables, read for the import.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_REGISTRY_TABLES_H
#define BBM_SQL_REGISTRY_TABLES_H

#include "base/bbm.h"

#include "catalog/import.h"

extern BbmForeignMigration *bbm_foreign_read(Oid migrations_relid, Oid jobs_relid, int *n);
extern bool bbm_foreign_has_ranges(const BbmForeignMigration *m);

#endif							/* BBM_SQL_REGISTRY_TABLES_H */
