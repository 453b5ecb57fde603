/*-------------------------------------------------------------------------
 *
 * row.h
 *		A row of our tables under a trigger.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_ROW_H
#define BBM_SQL_ROW_H

#include "base/bbm.h"

#include "access/htup.h"
#include "access/tupdesc.h"

/* A tuple that is being changed. */
typedef struct BbmRow
{
	HeapTuple	tuple;
	TupleDesc	desc;
} BbmRow;

extern Datum bbm_row_get(BbmRow row, const char *column, bool *isnull);
extern int64 bbm_row_int(BbmRow row, const char *column);
extern bool bbm_row_is_null(BbmRow row, const char *column);
extern bool bbm_row_same(BbmRow a, BbmRow b, const char *column);
extern bool bbm_tuples_differ(TupleDesc desc, HeapTuple a, HeapTuple b, int attnum);
extern char *bbm_row_text(BbmRow row, const char *column);
extern bool bbm_row_is_restored(BbmRow row);
extern bool bbm_row_at_origin(BbmRow row);
extern void bbm_row_set(BbmRow *row, const char *column, Datum value, bool isnull);
extern void bbm_row_out_of_range(BbmRow row, const char *column, const char *detail, const char *hint);

#endif							/* BBM_SQL_ROW_H */
