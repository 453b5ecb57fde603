/*-------------------------------------------------------------------------
 *
 * engine.h
 *		What one process that runs migrations keeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_ENGINE_H
#define BBM_ENGINE_ENGINE_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "throttle/throttle.h"

typedef struct BbmEngine
{
	Oid			owner;			/* whose migrations */
	int64		only;			/* this one alone, or 0 */
	int			max_attempts;	/* instead of what the migrations have; 0: theirs */
	int32		worker_id;		/* names the lock that says we live */
	Oid			lock_class;		/* the token's */
	MemoryContext context;		/* lives as long as the engine */
	MemoryContext step;			/* reset before each step */
	MemoryContext job[2];		/* the bounds of the job at hand, and of the next */
	List	   *targets;		/* BbmTarget, resolved so far */
	List	   *runnable;		/* BbmRunnable, as last read */
	int64		current;		/* id of the one at hand, or 0 */
	TimestampTz slice_end;		/* when others get their turn */
	uint64		generation;		/* events seen before "runnable" was read */
	int64		permit_of;		/* the migration we hold a place of ... */
	int			permit;			/* ... and which, -1 none */
	bool		worked;			/* the last step did something */
	bool		called_for_help;			/* others were called for help in this slice */
	bool		held;			/* the last step has met a throttle ... */
	BbmWait		wait;			/* ... which is this */
	ErrorData  *cancelled;		/* a batch was cancelled; the foreground passes it on */
} BbmEngine;

#define BBM_SLICE_MS 1000

extern bool bbm_engine_slice_over(const BbmEngine *engine);

#endif							/* BBM_ENGINE_ENGINE_H */
