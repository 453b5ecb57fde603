/*-------------------------------------------------------------------------
 *
 * row.c
 *		A row of our tables under a trigger, by the names of its columns.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/row.h"

#include "executor/spi.h"
#include "utils/datum.h"

#include "catalog/migrations.h"

Datum
bbm_row_get(BbmRow row, const char *column, bool *isnull)
{
	int			attnum = SPI_fnumber(row.desc, column);

	if (attnum <= 0)
		elog(ERROR, "column \"%s\" is missing", column);
	return SPI_getbinval(row.tuple, row.desc, attnum, isnull);
}

int64
bbm_row_int(BbmRow row, const char *column)
{
	bool		isnull;
	Datum		datum = bbm_row_get(row, column, &isnull);

	if (isnull)
		return 0;
	switch (TupleDescAttr(row.desc, SPI_fnumber(row.desc, column) - 1)->atttypid)
	{
		case INT2OID:
			return DatumGetInt16(datum);
		case INT4OID:
			return DatumGetInt32(datum);
		case OIDOID:
			return DatumGetObjectId(datum);
		default:
			return DatumGetInt64(datum);
	}
}

bool
bbm_row_is_null(BbmRow row, const char *column)
{
	bool		isnull;

	(void) bbm_row_get(row, column, &isnull);
	return isnull;
}

/* NULL when NULL. */
char *
bbm_row_text(BbmRow row, const char *column)
{
	return SPI_getvalue(row.tuple, row.desc, SPI_fnumber(row.desc, column));
}

/* Has the column the same value in both rows, as text? */
bool
bbm_row_same(BbmRow a, BbmRow b, const char *column)
{
	const char *x = bbm_row_text(a, column);
	const char *y = bbm_row_text(b, column);

	return x && y ? strcmp(x, y) == 0 : x == y;
}

/* Have two rows of a table different values in this column? */
bool
bbm_tuples_differ(TupleDesc desc, HeapTuple a, HeapTuple b, int attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
	bool		a_null;
	bool		b_null;
	Datum		x = heap_getattr(a, attnum, desc, &a_null);
	Datum		y = heap_getattr(b, attnum, desc, &b_null);

	return a_null != b_null || (!a_null && !datum_image_eq(x, y, attribute->attbyval, attribute->attlen));
}

/*
 * Did the migration's row come with a dump?  A copy that did not is in a clone
 * of the database's files, where OIDs are those of the original.
 */
bool
bbm_row_is_restored(BbmRow row)
{
	bool		isnull;

	return DatumGetBool(bbm_row_get(row, "restored", &isnull));
}

/* Is it a migration of this database, and not of the one that this is a copy of? */
bool
bbm_row_at_origin(BbmRow row)
{
	return !bbm_migration_is_copy(bbm_row_text(row, "origin"), bbm_row_is_restored(row));
}

void
bbm_row_set(BbmRow *row, const char *column, Datum value, bool isnull)
{
	int			attnum = SPI_fnumber(row->desc, column);

	row->tuple = heap_modify_tuple_by_cols(row->tuple, row->desc, 1, &attnum, &value, &isnull);
}

void
bbm_row_out_of_range(BbmRow row, const char *column, const char *detail, const char *hint)
{
	char	   *value = bbm_row_text(row, column);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s: %s", column, value ? value : "null"),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}
