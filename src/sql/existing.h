/*-------------------------------------------------------------------------
 *
 * existing.h
 *		Is a migration defined as somebody wants to define it again?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_EXISTING_H
#define BBM_SQL_EXISTING_H

#include "base/bbm.h"

#include "catalog/options.h"

extern void bbm_existing_compare(const BbmMigration *existing, const BbmDefinition *d, bool resolved);

#endif							/* BBM_SQL_EXISTING_H */
