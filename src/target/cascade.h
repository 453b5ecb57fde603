/*-------------------------------------------------------------------------
 *
 * cascade.h
 *		What the server makes of a statement: foreign keys and generated columns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_CASCADE_H
#define BBM_TARGET_CASCADE_H

#include "base/bbm.h"

#include "nodes/bitmapset.h"

extern PGDLLEXPORT char *bbm_statement_cascades(Oid relid);
extern Bitmapset *bbm_cascaded_columns(Oid relid, bool deletes, Bitmapset *assigned);

#endif							/* BBM_TARGET_CASCADE_H */
