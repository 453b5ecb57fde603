/*-------------------------------------------------------------------------
 *
 * scheduler.h
 *		One engine for background workers and foreground sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_SCHEDULER_H
#define BBM_ENGINE_SCHEDULER_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "engine/engine.h"

extern BbmEngine *bbm_engine_begin(Oid owner, int64 only, ErrorData **why_not);
extern BbmStepResult bbm_engine_step(BbmEngine *engine, TimestampTz *due);
extern bool bbm_engine_is_throttled(const BbmEngine *engine);
extern void bbm_engine_keep_table_waits(const BbmEngine *engine, TimestampTz until);
extern void bbm_engine_end(BbmEngine *engine);

#endif							/* BBM_ENGINE_SCHEDULER_H */
