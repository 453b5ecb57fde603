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

/* The outcome of trying one migration. */
typedef struct BbmOutcome
{
	BbmStepResult result;
	TimestampTz due;
} BbmOutcome;

extern BbmOutcome bbm_try_migration(BbmEngine *engine, int64 id);
extern BbmOutcome bbm_try_later(BbmEngine *engine, int64 id, const char *name, ErrorData *error);
extern void bbm_forget_target(BbmEngine *engine, int64 id);
extern void bbm_release_permit(BbmEngine *engine);

#endif							/* BBM_ENGINE_STEP_H */
