/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		What the processes of bbm know of each other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SHMEM_H
#define BBM_SHMEM_H

#include "bbm.h"

#include <signal.h>

#include "nodes/pg_list.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "blockers.h"
#include "holds.h"
#include "trouble.h"

#define BBM_MAX_REQUESTS 256
#define BBM_FOREGROUND_SLOTS 16

/* A demand is due whatever the clock says, as it may be set back. */
#define BBM_DUE_NOW ((TimestampTz) 0)
/* The longest back-off of a demand. */
#define BBM_LAST_BACKOFF_MS (5 * 60 * 1000)

typedef enum BbmKind
{
	BBM_KIND_WORKER,			/* started by the launcher */
	BBM_KIND_LAUNCHED,			/* started by bbm_launch_worker(); counts against bbm.max_workers as well */
	BBM_KIND_FOREGROUND,		/* CALL bbm_run() */
	BBM_KIND_DISCOVERY			/* looks into a database and leaves */
} BbmKind;

/*
 * One process that works or is about to.  All fields are protected by
 * BbmShared.lock.  A slot is reserved by the launcher, or by the process
 * itself; the process clears it when it exits.  The generation tells a worker
 * that was slow to start that its slot has meanwhile been given away.
 */
typedef struct BbmSlot
{
	bool		in_use;
	uint32		generation;
	BbmKind		kind;
	pid_t		pid;			/* 0 until the process has attached */
	Latch	   *latch;
	Oid			database;
	Oid			owner;
	bool		connected;		/* it got through authentication */
	bool		leave;			/* asked to give its batch back and go */
	bool		yields;			/* goes by itself, for others to have the slot */
	int64		migration_id;	/* 0 none */
	int64		job_id;			/* 0 none */
	TimestampTz since;
	BbmReason	waiting_on;		/* empty: for nothing */
	BbmBlockers blocked;		/* the lock it waits for, or could not have, just now */
} BbmSlot;

/*
 * Work that some (database, owner) has, as far as anybody has said.  The
 * launcher starts workers until as many run as are wanted.
 */
typedef struct BbmWorkRequest
{
	bool		in_use;
	Oid			database;
	Oid			owner;
	int			wanted;			/* workers that would find work */
	TimestampTz due;			/* when; DT_NOEND if only an event can tell */
	TimestampTz served;			/* when a worker was started last */
	uint64		generation;			/* events so far: a worker that saw fewer must look again */
	int			failures;		/* workers in a row that died before doing anything */
	TimestampTz not_before;		/* back-off after such a death */
} BbmWorkRequest;

typedef struct BbmShared
{
	LWLock	   *lock;			/* protects everything below; held for moments only */
	TimestampTz laid_out_at;	/* when the server started, or restarted after a crash */
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		discover_everywhere;	/* demands were lost, or may exist unannounced */
	Oid			discovery_database;	/* one database to look into, or InvalidOid */
	ConditionVariable changed;	/* some migration or job changed its state */
	int			batch_waiters;	/* sessions that wait for batches to end */
	int			nslots;
	BbmWaitStates holds;
	BbmTransients troubles;
	BbmWorkRequest requests[BBM_MAX_REQUESTS];
	BbmSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} BbmShared;

/* NULL when the library was not preloaded */
extern BbmShared *bbm_shared;

extern void bbm_shmem_install(void);

/* The slot of this process. */
extern int	bbm_slot_reserve(BbmKind kind, Oid database, Oid owner, uint32 *generation);
extern bool bbm_slot_attach(int slot, uint32 generation, Oid *database, Oid *owner);
extern bool bbm_slot_take(BbmKind kind, Oid owner);
extern void bbm_slot_cancel_reservation(int slot, uint32 generation);
extern void bbm_slot_release(bool clean);
extern void bbm_slot_connected(void);
extern void bbm_slot_report(int64 migration_id, int64 job_id);
extern void bbm_slot_wait(const char *what, TimestampTz due);
extern void bbm_slot_wait_with(int64 migration_id, const char *what, TimestampTz due);
extern bool bbm_slot_blocked(const BbmBlockers *blockers, bool wait);
extern bool bbm_slot_must_exit(void);
extern bool bbm_slot_is_wanted(bool works);
extern int	bbm_slots_unused(void);
extern void bbm_slots_wake_waiting(void);
extern int	bbm_slots_with_job(void);
extern int	bbm_slots_on(int64 migration_id);

extern bool bbm_server_is_young(void);

/* Demands. */
extern void bbm_request_announce(Oid database, Oid owner);
extern void bbm_request_found(Oid database, Oid owner);
extern void bbm_request_drop(Oid database, Oid owner);
extern void bbm_requests_keep(List *databases);
extern uint64 bbm_request_generation(Oid database, Oid owner);
extern void bbm_request_workers(Oid database, Oid owner, int wanted);
extern void bbm_request_fulfil(Oid database, Oid owner, uint64 generation, TimestampTz due);
extern void bbm_requests_reconsider(void);
extern bool bbm_request_next(Oid *database, Oid *owner, bool *needed, TimestampTz *wait);
extern void bbm_request_discovery(Oid database);
extern void bbm_state_changed(void);
extern void bbm_batch_ended(void);
extern void bbm_await_batches(bool begin);

/* Making a database free of our workers. */
extern int	bbm_database_ask_to_exit(Oid database, bool terminate);

#endif							/* BBM_SHMEM_H */
