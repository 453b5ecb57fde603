/*-------------------------------------------------------------------------
 *
 * foreign.h
 *		The container registry's own tables, read to be taken over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_FOREIGN_H
#define BBM_FOREIGN_H

#include "catalog_import.h"

extern BbmForeignMigration *bbm_foreign_read(Oid migrations_relid, Oid jobs_relid, int *n);
extern bool bbm_foreign_has_ranges(const BbmForeignMigration *m);

#endif							/* BBM_FOREIGN_H */
