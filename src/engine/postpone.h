/*-------------------------------------------------------------------------
 *
 * postpone.h
 *		What a step does with a migration that cannot go on now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_POSTPONE_H
#define BBM_ENGINE_POSTPONE_H

#include "base/bbm.h"

#include "engine/engine.h"

/* The outcome of trying one migration. */
typedef struct BbmOutcome
{
	BbmStepResult result;
	TimestampTz due;
} BbmOutcome;

#define BBM_WORKED ((BbmOutcome) {BBM_STEP_WORKED, 0})
#define BBM_NOTHING ((BbmOutcome) {BBM_STEP_IDLE, DT_NOEND})

extern bool bbm_in_trouble(BbmEngine *engine, int64 id, BbmOutcome *outcome);
extern BbmOutcome bbm_try_later(BbmEngine *engine, int64 id, const char *name, ErrorData *error);
extern BbmOutcome bbm_fail_or_wait(BbmEngine *engine, const BbmMigration *migration, ErrorData *error);
extern BbmOutcome bbm_wait_until(int64 id, const BbmReason *reason);

#endif							/* BBM_ENGINE_POSTPONE_H */
