/*-------------------------------------------------------------------------
 *
 * engine.c
 *		The state of one process that runs migrations.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/engine.h"

#include "base/point.h"
#include "base/rates.h"

bool
bbm_engine_slice_over(const BbmEngine *engine)
{
	return BBM_POINT_DUE("slice-due", bbm_time_has_come(GetCurrentTimestamp(), engine->slice_end, BBM_SLICE_MS));
}
