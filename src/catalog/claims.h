/*-------------------------------------------------------------------------
 *
 * claims.h
 *		What a claim reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_CLAIMS_H
#define BBM_CATALOG_CLAIMS_H

#include "base/bbm.h"

#include "access/htup.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/relcache.h"

/* catalog/claims.c */
typedef struct BbmClaimState
{
	BbmStatus	status;
	TimestampTz updated_at;
	BbmPhase	phase;
	BbmBound	min;
	BbmBound	max;
	bool		min_found;
	bool		is_wide;		/* the phase verifies rows beyond min and max as well, ... */
	BbmBound	verify_max;		/* ... up to here */
	int			batch_size;
	bool		has_job;		/* a range has been allocated, in any phase */
	bool		has_last;		/* ... in this phase ... */
	BbmBound	last;			/* ... up to this key ... */
	Oid			last_relation;	/* ... of this partition, when the migration runs per partition */
	int			last_size;		/* the batch size at that time; 0 without a range, in any phase */
	int64		last_id;		/* of the newest job of any kind; 0 without */
} BbmClaimState;

/* Another migration that may have batches on the same table. */
typedef struct BbmCompetitor
{
	Oid			owner;
	int64		id;
	int			workers;
	int			priority;
	bool		share_table;
} BbmCompetitor;

typedef struct BbmRunningJob
{
	int64		id;
	int64		migration_id;
	int			attempts;
	int			pid;
	int32		worker_id;
	Oid			owner;
	TimestampTz started_at;
} BbmRunningJob;

extern bool bbm_claim_is_running(int64 migration_id, TimestampTz updated_at);
extern bool bbm_claim_state(int64 migration_id, BbmClaimState *state);
extern List *bbm_competing_migrations(int64 migration_id, Oid table);
extern List *bbm_jobs_running(int64 migration_id);

#endif							/* BBM_CATALOG_CLAIMS_H */
