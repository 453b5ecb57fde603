/*-------------------------------------------------------------------------
 *
 * shape.h
 *		The columns and indexes that our tables must have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_SHAPE_H
#define BBM_CATALOG_SHAPE_H

#include "base/bbm.h"

#include "catalog/tables.h"

extern bool bbm_shape_job_has(const char *name);
extern char *bbm_shape_flaw(const BbmCatalog *catalog, char **hint);
extern Oid	bbm_shape_index(Oid relid, const char *first, const char *second);

#endif							/* BBM_CATALOG_SHAPE_H */
