/*-------------------------------------------------------------------------
 *
 * step.h
 *		The next thing to do for one migration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_STEP_H
#define BBM_ENGINE_STEP_H

#include "base/bbm.h"

#include "engine/engine.h"
#include "engine/postpone.h"

extern BbmOutcome bbm_try_migration(BbmEngine *engine, int64 id);
extern void bbm_forget_target(BbmEngine *engine, int64 id);

#endif							/* BBM_ENGINE_STEP_H */
