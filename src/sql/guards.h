/*-------------------------------------------------------------------------
 *
 * guards.h
 *		The triggers of our tables: who may write what, and what follows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_GUARDS_H
#define BBM_SQL_GUARDS_H

#include "sql/row.h"

extern HeapTuple bbm_restored_migration(BbmRow row);

#endif							/* BBM_SQL_GUARDS_H */
