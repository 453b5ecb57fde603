/*-------------------------------------------------------------------------
 *
 * extension.h
 *		Finding the extension and our tables in this database.
 *
 * Every function that reads or writes needs a transaction and SPI connected,
 * runs its statement as the extension's owner, and allocates what it returns
 * in the memory context it is given.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_EXTENSION_H
#define BBM_CATALOG_EXTENSION_H

#include "base/bbm.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

#include "catalog/tables.h"

extern const BbmCatalog *bbm_catalog_find(void);
extern PGDLLEXPORT const BbmCatalog *bbm_catalog(void);
extern const BbmCatalog *bbm_catalog_usable(void);
extern void bbm_catalog_forget(void);
extern bool bbm_extension_is_here(void);
extern bool bbm_catalog_matches(const BbmCatalog *catalog);
extern const char *bbm_origin(void);
extern bool bbm_is_of_this_server(const char *origin);
extern PGDLLEXPORT Oid bbm_lock_class(void);
extern bool bbm_catalog_trusts(Oid role);
extern void bbm_catalog_check_trust(Oid role);

extern uint64 bbm_catalog_generation(void);

#endif							/* BBM_CATALOG_EXTENSION_H */
