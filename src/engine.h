/*-------------------------------------------------------------------------
 *
 * engine.h
 *		One engine for background workers and foreground sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SCHEDULER_H
#define BBM_SCHEDULER_H

#include "bbm.h"

#include "nodes/pg_list.h"

#include "pressure.h"

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
	bool		held;			/* the last step has met pressure ... */
	BbmWait		wait;			/* ... which is this */
	ErrorData  *cancelled;		/* a batch was cancelled; the foreground passes it on */
} BbmEngine;

typedef enum BbmStepResult
{
	BBM_STEP_WORKED,			/* there may be more at once */
	BBM_STEP_WAIT,				/* nothing before "due" */
	BBM_STEP_IDLE				/* nothing until an event */
} BbmStepResult;

extern BbmEngine *bbm_engine_begin(Oid owner, int64 only, ErrorData **why_not);
extern BbmStepResult bbm_engine_step(BbmEngine *engine, TimestampTz *due);
extern void bbm_engine_keep_table_waits(const BbmEngine *engine, TimestampTz until);
extern bool bbm_engine_slice_over(const BbmEngine *engine);
extern void bbm_engine_end(BbmEngine *engine);

/* run.c */
struct BbmClaim;
extern bool bbm_run_jobs(BbmEngine *engine, struct BbmClaim *claim);
extern bool bbm_wait_for_throttle(BbmEngine *engine, BbmTarget *target, bool may_help, int ms);

#endif							/* BBM_SCHEDULER_H */
