/*-------------------------------------------------------------------------
 *
 * points.c
 *		Control of the points at which a test stops processes.
 *
 * Only in a build with BBM_POINTS, as only such a library has points.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/point.h"

PG_FUNCTION_INFO_V1(bbm_test_arm);
PG_FUNCTION_INFO_V1(bbm_test_release);
PG_FUNCTION_INFO_V1(bbm_test_standing);

/* (point text, migration bigint, passes integer, stops integer): of 0 migrations means of any. */
Datum
bbm_test_arm(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (strlen(name) >= BBM_POINT_LENGTH)
		elog(ERROR, "the name of a point is shorter than %d characters", BBM_POINT_LENGTH);
	if (!bbm_point_arm(name, PG_GETARG_INT64(1), PG_GETARG_INT32(2), PG_GETARG_INT32(3)))
		elog(ERROR, "at most %d points are armed at once", BBM_MAX_POINTS);
	PG_RETURN_VOID();
}

/* (point text): NULL for all of them. */
Datum
bbm_test_release(PG_FUNCTION_ARGS)
{
	bbm_point_release(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* (point text) → the pids of those that stand there. */
Datum
bbm_test_standing(PG_FUNCTION_ARGS)
{
	int			pids[BBM_MAX_STANDING];
	Datum		values[BBM_MAX_STANDING];
	int			n = bbm_point_standing(text_to_cstring(PG_GETARG_TEXT_PP(0)), pids);

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum(pids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(values, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}
