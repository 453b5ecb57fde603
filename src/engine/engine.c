/*-------------------------------------------------------------------------
 *
 * engine.c
 *		The state of one process that runs migrations.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/locks.h"
#include "base/point.h"

bool
bbm_engine_slice_over(const BbmEngine *engine)
{
	return BBM_POINT_DUE("slice-due", bbm_clock_ms() >= engine->slice_end_ms);
}

/* Releases the permit that the last claim has acquired, if any. */
void
bbm_release_permit(BbmEngine *engine)
{
	if (engine->permit >= 0)
		bbm_permit_release(engine->lock_class, engine->permit_of, engine->permit);
	engine->permit = -1;
}
