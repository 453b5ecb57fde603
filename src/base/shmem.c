/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		The shared memory of bbm: its size and its start.
 *
 *-------------------------------------------------------------------------
 */
#include "base/shmem.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/point.h"
#include "base/shared.h"

#define BBM_YOUNG_MS 5000

BbmShared  *bbm_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* The slot of this process, or -1. */
int			bbm_my_slot = -1;
uint32		bbm_my_generation = 0;

static int
slot_count(void)
{
	StaticAssertStmt(BBM_MOST_WORKERS + BBM_FOREGROUND_SLOTS + BBM_DISCOVERY_SLOTS <= BBM_MOST_PROCESSES,
					 "not all processes could be measured");
	return bbm_max_workers + BBM_FOREGROUND_SLOTS + BBM_DISCOVERY_SLOTS;
}

static void
start_impact_counts(BbmImpactCounts *counts)
{
	for (int i = 0; i < BBM_IMPACT_BUCKETS; i++)
		pg_atomic_init_u32(&counts->counts[i], 0);
	for (int i = 0; i < BBM_IMPACT_GROUPS; i++)
	{
		pg_atomic_init_u64(&counts->us[i], 0);
		pg_atomic_init_u32(&counts->statements[i], 0);
	}
}

/* The windows of a server are drawn anew whenever it starts. */
static void
start_impact(BbmImpactState *impact)
{
	impact->seed = pg_prng_uint64(&pg_global_prng_state);
	pg_atomic_init_u32(&impact->on, 0);
	pg_atomic_init_u32(&impact->shift, 0);
	for (int i = 0; i <= BBM_WINDOW_MOST_SHIFT; i++)
		pg_atomic_init_u64(&impact->shift_needed[i], 0);
	pg_atomic_init_u64(&impact->heard, 0);
	pg_atomic_init_u64(&impact->heard_since, 0);
	for (int i = 0; i < BBM_MAX_IMPACTS; i++)
	{
		BbmImpactEntry *entry = &impact->entries[i];

		pg_atomic_init_u32(&entry->database, InvalidOid);
		pg_atomic_init_u32(&entry->generation, 0);
		pg_atomic_init_u32(&entry->pulses, 0);
		pg_atomic_init_u64(&entry->works_until, 0);
		pg_atomic_init_u32(&entry->newer, 0);
		for (int j = 0; j < lengthof(entry->counts) * BBM_WINDOW_KINDS; j++)
			start_impact_counts(&entry->counts[0][0] + j);
	}
}

static Size
shmem_size(void)
{
	return add_size(offsetof(BbmShared, slots), mul_size(slot_count(), sizeof(BbmSlot)));
}

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shmem_size());
	RequestNamedLWLockTranche("bbm", 1);
	BBM_POINTS_REQUEST();
}

static void
shmem_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	bbm_shared = ShmemInitStruct("bbm", shmem_size(), &found);
	if (!found)
	{
		memset(bbm_shared, 0, shmem_size());
		bbm_shared->lock = &(GetNamedLWLockTranche("bbm"))->lock;
		bbm_shared->nslots = slot_count();
		bbm_shared->discover_everywhere = true;
		bbm_shared->laid_out_at = GetCurrentTimestamp();
		ConditionVariableInit(&bbm_shared->changed);
		start_impact(&bbm_shared->impact);
	}
	BBM_POINTS_STARTUP();
	LWLockRelease(AddinShmemInitLock);
}

/* Installs the shared memory hooks; called from _PG_init while the server preloads. */
void
bbm_shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* When the server was started, or restarted after a crash. */
TimestampTz
bbm_server_start(void)
{
	return bbm_shared ? bbm_shared->laid_out_at : PgStartTime;
}

/*
 * Did the server start, or restart after a crash, a moment ago?  Perhaps a
 * batch caused the crash, and will again.
 */
bool
bbm_server_is_young(void)
{
	return bbm_shared &&
		!TimestampDifferenceExceeds(bbm_shared->laid_out_at, GetCurrentTimestamp(), BBM_YOUNG_MS);
}
