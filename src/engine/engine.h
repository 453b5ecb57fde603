/*-------------------------------------------------------------------------
 *
 * engine.h
 *		The state of one process that runs migrations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_ENGINE_H
#define BBM_ENGINE_ENGINE_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "throttle/throttle.h"

typedef enum BbmStepResult
{
	BBM_STEP_WORKED,			/* there may be more at once */
	BBM_STEP_WAIT,				/* nothing before "due" */
	BBM_STEP_IDLE				/* nothing until an event */
} BbmStepResult;

typedef struct BbmEngine
{
	Oid			owner;			/* whose migrations */
	int64		only;			/* this migration alone, or 0 */
	int			max_attempts;	/* overrides the migrations' own; 0: does not */
	int32		worker_id;		/* identifies the lock that shows that we are alive */
	Oid			lock_class;		/* of the worker id's lock */
	MemoryContext context;		/* lives as long as the engine */
	MemoryContext step;			/* reset before each step */
	MemoryContext commit;		/* reset before each commit of a job */
	MemoryContext job[2];		/* the bounds of the current job, and of the next */
	List	   *targets;		/* BbmTarget, resolved so far */
	List	   *runnable;		/* BbmRunnable, as last read */
	int64		started;		/* this process has set it to running last, and not yet worked on it; 0: none */
	int64		current;		/* id of the current migration, or 0 */
	int64		last;			/* id of the one that has worked last, also when there is no current one; or 0 */
	double		slice_end_ms;	/* when other migrations get their time slice; see base/clock.h */
	uint64		generation;		/* events seen before "runnable" was read */
	int64		permit_of;		/* the migration for which we hold a permit ... */
	int			permit;			/* ... and its number, -1 none */
	bool		worked;			/* the last step did something */
	bool		called_for_help;			/* further workers were requested in this slice */
	bool		throttled;		/* the last step was throttled ... */
	BbmWait		wait;			/* ... by this */
	ErrorData  *cancelled;		/* a batch was cancelled; the foreground rethrows it */
} BbmEngine;

#define BBM_SLICE_MS 1000

extern bool bbm_engine_slice_over(const BbmEngine *engine);
extern void bbm_release_permit(BbmEngine *engine);

#endif							/* BBM_ENGINE_ENGINE_H */
