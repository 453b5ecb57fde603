/*-------------------------------------------------------------------------
 *
 * run_job.h
 *		The life of a job.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_RUN_JOB_H
#define BBM_ENGINE_RUN_JOB_H

#include "base/bbm.h"

#include "engine/claim.h"
#include "engine/engine.h"
#include "target/target.h"

/* After errors in a row the process pauses for at most so long. */
#define BBM_LONGEST_WAIT_MS (30 * 1000)

extern bool bbm_run_jobs(BbmEngine *engine, BbmClaim *claim);
extern bool bbm_wait_for_throttle(BbmEngine *engine, BbmTarget *target, bool may_help, int ms);

#endif							/* BBM_ENGINE_RUN_JOB_H */
