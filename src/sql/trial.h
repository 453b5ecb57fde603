/*-------------------------------------------------------------------------
 *
 * trial.h
 *		Batches of a migration that are run and rolled back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_TRIAL_H
#define BBM_SQL_TRIAL_H

#include "base/bbm.h"

#include "fmgr.h"

#include "engine/batch.h"
#include "engine/claim.h"
#include "target/draw.h"
#include "target/target.h"

typedef struct BbmTrial BbmTrial;

struct BbmTrial
{
	const char *what;			/* "dry run" or "preview"; in */
	const char *name;			/* of the migration */
	void		(*run) (BbmTrial *trial, BbmTarget *target);
	void	   *arg;			/* of "run" */
	int64		id;				/* of the migration; set by bbm_trial */
	MemoryContext context;		/* of the caller */
	MemoryContext scratch;		/* of one batch */
	int64		estimate;		/* keys of the whole migration */
	const char *outside;		/* how a batch has reached outside of this server; NULL if none has */
};

/* A batch: the next one, or one at a place. */
typedef struct BbmTrialBatch
{
	BbmTrial   *trial;			/* in */
	BbmTarget  *target;
	const BbmDraw *draw;		/* NULL: the next one */
	int			most;			/* keys at most; 0: as many as the migration's batches have */
	void		(*before) (struct BbmTrialBatch *batch);	/* when the job is claimed; or NULL */
	void		(*after) (struct BbmTrialBatch *batch); /* when it is done; or NULL */
	void	   *arg;			/* of both */
	bool		only_claim;		/* do not run it */
	BbmClaim	claim;			/* out; its job ... */
	BbmWork		work;
	int64		rows;			/* ... and its cost */
	double		ms;
	int64		wal;
	bool		found;			/* there was a range left */
} BbmTrialBatch;

extern char *bbm_trial_check(FunctionCallInfo fcinfo, const char *function);
extern void bbm_trial(BbmTrial *trial);
extern bool bbm_trial_batch(BbmTrialBatch *batch);

#endif							/* BBM_SQL_TRIAL_H */
