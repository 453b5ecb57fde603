/*-------------------------------------------------------------------------
 *
 * nulls.h
 *		Columns that may be null, and the rows in which they are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_NULLS_H
#define BBM_NULLS_H

#include "postgres.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

struct BbmTarget;

extern bool bbm_column_may_be_null(Relation rel, AttrNumber attnum);
extern bool bbm_nulls_have_index(Relation rel, AttrNumber attnum, List *known);

/* Rows of a migration's table whose batching key is null: in no range. */
extern int64 bbm_null_keys(struct BbmTarget *target, const char *condition, int64 most, char **table);
extern void bbm_null_keys_check(struct BbmTarget *target);
extern void bbm_null_keys_warn(struct BbmTarget *target);

#endif							/* BBM_NULLS_H */
