/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		The shared memory of bbm.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SHMEM_H
#define BBM_BASE_SHMEM_H

#include "base/bbm.h"

#include <signal.h>

#include "nodes/pg_list.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "base/shared.h"

/* NULL when the library was not preloaded */
extern PGDLLEXPORT BbmShared *bbm_shared;

/* The slot of this process, or -1. */
extern int	bbm_my_slot;
extern uint32 bbm_my_generation;

/* Each slot; each that counts against bbm.max_workers; each request, in use or not.  The lock is to be held. */
#define bbm_each_slot(slot) \
	for (BbmSlot *slot = bbm_shared->slots; slot < bbm_shared->slots + bbm_shared->nslots; slot++)
#define bbm_each_worker_slot(slot) \
	for (BbmSlot *slot = bbm_shared->slots; slot < bbm_shared->slots + bbm_max_workers; slot++)
#define bbm_each_request(request) \
	for (BbmWorkRequest *request = bbm_shared->requests; \
		 request < bbm_shared->requests + bbm_shared->nrequests; request++)

static inline bool
bbm_is_my_slot(const BbmSlot *slot)
{
	return slot - bbm_shared->slots == bbm_my_slot;
}

extern void bbm_shmem_install(void);

extern TimestampTz bbm_server_start(void);
extern bool bbm_server_is_young(void);

#endif							/* BBM_BASE_SHMEM_H */
