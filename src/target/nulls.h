/*-------------------------------------------------------------------------
 *
 * nulls.h
 *		Columns that may be null, and the rows in which they are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_NULLS_H
#define BBM_TARGET_NULLS_H

#include "postgres.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

extern bool bbm_column_may_be_null(Relation rel, AttrNumber attnum);
extern bool bbm_nulls_have_index(Relation rel, AttrNumber attnum, List *known);

#endif							/* BBM_TARGET_NULLS_H */
