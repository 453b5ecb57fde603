/*-------------------------------------------------------------------------
 *
 * cascade.h
 *		What a DELETE cascades to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_CASCADE_H
#define BBM_TARGET_CASCADE_H

#include "base/bbm.h"

extern PGDLLEXPORT char *bbm_statement_cascades(Oid relid);

#endif							/* BBM_TARGET_CASCADE_H */
