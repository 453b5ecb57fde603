/*-------------------------------------------------------------------------
 *
 * requests.h
 *		Requests for workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_REQUESTS_H
#define BBM_BASE_REQUESTS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"

#include "base/shared.h"

/* The request is due even if the clock is set back. */
#define BBM_DUE_NOW ((TimestampTz) 0)
/* The longest back-off of a request. */
#define BBM_LAST_BACKOFF_MS (5 * 60 * 1000)

extern void bbm_request_announce(Oid database, Oid owner);
extern void bbm_request_found(Oid database, Oid owner);
extern void bbm_request_drop(Oid database, Oid owner);
extern uint64 bbm_requests_events(void);
extern void bbm_requests_keep(List *databases, uint64 events);
extern PGDLLEXPORT uint64 bbm_request_generation(Oid database, Oid owner);
extern PGDLLEXPORT void bbm_request_workers(Oid database, Oid owner, int wanted);
extern PGDLLEXPORT void bbm_request_fulfil(Oid database, Oid owner, uint64 generation, TimestampTz due,
										   bool polls);
extern void bbm_requests_reconsider(void);
extern void bbm_request_discovery(Oid database);

/* With the lock held. */
extern void bbm_launcher_wake_locked(void);
extern void bbm_request_back_off(const BbmSlot *slot);
extern void bbm_discovery_died(Oid database);

#endif							/* BBM_BASE_REQUESTS_H */
