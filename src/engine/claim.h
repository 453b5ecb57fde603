/*-------------------------------------------------------------------------
 *
 * claim.h
 *		The first transaction of a job: claiming it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_CLAIM_H
#define BBM_ENGINE_CLAIM_H

#include "base/bbm.h"

#include "base/shared.h"
#include "catalog/claims.h"
#include "target/draw.h"
#include "target/target.h"

/* The usual time between checks of a job whose row somebody has locked; the first ones are sooner. */
#define BBM_LOCKED_POLL_MS 1000

typedef enum BbmClaimResult
{
	BBM_CLAIM_JOB,				/* "job" is ours */
	BBM_CLAIM_CHANGED,			/* paused, gone or altered: read the migration again */
	BBM_CLAIM_LATER,			/* not before "reason" is due */
	BBM_CLAIM_OTHERS,			/* other processes run what is left */
	BBM_CLAIM_DONE,				/* nothing is left */
	BBM_CLAIM_USED_UP			/* a job has no attempts left */
} BbmClaimResult;

typedef struct BbmClaim
{
	BbmTarget  *target;			/* in */
	int32		worker_id;
	int			rank;			/* of the migration, among those of its owner */
	bool		one_commit;		/* the claim is not to be for more than one commit */
	MemoryContext context;		/* the job's bounds are to be allocated here */
	int			most;			/* keys of a new range; 0: as many as the migration's batches have */
	int			slot;			/* out: the number of our permit, or -1 */
	BbmClaimResult result;
	BbmJob		job;
	BbmReason	reason;			/* why it waits, and until when */
	TimestampTz idle_until;		/* until then nothing is left but jobs that are not due; or 0 */
} BbmClaim;

/* What a migration waits for while another one, with that id, is at work on its table. */
#define BBM_WAITS_FOR_TABLE "another migration on the table, id " INT64_FORMAT

/* A BbmTxnFn with a BbmClaim. */
extern PGDLLEXPORT void bbm_claim(void *arg);
extern void bbm_claim_next(BbmClaim *claim);
extern bool bbm_claim_any(BbmClaim *claim);
extern bool bbm_claim_at(BbmClaim *claim, const BbmDraw *draw);
extern bool bbm_competes(Oid table, const BbmMigration *migration, const BbmCompetitor *competitor);
extern bool bbm_slice_is_over(const BbmTarget *target);
extern bool bbm_nothing_left(BbmTarget *target);

#endif							/* BBM_ENGINE_CLAIM_H */
