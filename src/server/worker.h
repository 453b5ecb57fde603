/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The background processes that work in one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_WORKER_H
#define BBM_SERVER_WORKER_H

#include "base/bbm.h"

#include "postmaster/bgworker.h"

#include "base/shared.h"

/* What a worker is started with, in bgw_extra. */
typedef struct BbmWorkerStart
{
	BbmKind		kind;
	uint32		generation;		/* of the slot in bgw_main_arg; only for workers that the launcher starts */
	Oid			database;
	Oid			owner;			/* InvalidOid for discovery */
	int64		idle_ms;		/* a launched worker exits after this time without work */
} BbmWorkerStart;

extern PGDLLEXPORT void bbm_worker_main(Datum arg);
extern PGDLLEXPORT void bbm_discovery_main(Datum arg);
extern void bbm_worker_describe(BackgroundWorker *worker, const char *function, int slot,
								const BbmWorkerStart *start);

#endif							/* BBM_SERVER_WORKER_H */
