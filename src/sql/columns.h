/*-------------------------------------------------------------------------
 *
 * columns.h
 *		Which columns of our tables users may set.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_COLUMNS_H
#define BBM_SQL_COLUMNS_H

#include "base/bbm.h"

#include "access/htup.h"
#include "utils/rel.h"
extern int64 bbm_new_id(Relation rel, int64 id);
extern HeapTuple bbm_columns_insert(Relation rel, HeapTuple row);
extern HeapTuple bbm_columns_update(Relation rel, HeapTuple old, HeapTuple new);
extern HeapTuple bbm_columns_restore_job(Relation rel, HeapTuple row);
extern const char *bbm_columns_changed_but(Relation rel, HeapTuple old, HeapTuple new, int flags,
										   bool (*may) (const char *column));
extern const char *bbm_columns_changed(Relation rel, HeapTuple old, HeapTuple new, int flags);
extern void bbm_check_job_columns(Relation rel, HeapTuple old, HeapTuple new);

#endif							/* BBM_SQL_COLUMNS_H */
