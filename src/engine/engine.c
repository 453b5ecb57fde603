/*-------------------------------------------------------------------------
 *
 * engine.c
 *		The state of one process that runs migrations.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/point.h"

bool
bbm_engine_slice_over(const BbmEngine *engine)
{
	return BBM_POINT_DUE("slice-due", bbm_clock_ms() >= engine->slice_end_ms);
}
