/*-------------------------------------------------------------------------
 *
 * slots.h
 *		A slot for each process of bbm.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SLOTS_H
#define BBM_BASE_SLOTS_H

#include "base/bbm.h"

#include "base/shared.h"

/* The slot of this process. */
extern int	bbm_slot_reserve(BbmKind kind, Oid database, Oid owner, uint32 *generation);
extern bool bbm_slot_attach(int slot, uint32 generation, Oid *database, Oid *owner);
extern bool bbm_slot_take(BbmKind kind, Oid owner);
extern void bbm_slot_cancel_reservation(int slot, uint32 generation);
extern void bbm_slot_stillborn(int slot, uint32 generation);
extern void bbm_slot_release(bool clean);
extern void bbm_slot_connected(void);
extern void bbm_slot_report(int64 migration_id, int64 job_id);
extern void bbm_slot_wait_with(int64 migration_id, const BbmReason *reason);
extern void bbm_slot_wait(const BbmReason *reason);
extern void bbm_slot_pace(double share, int why);
extern bool bbm_slot_blocked(const BbmBlockers *blockers, bool wait);
extern bool bbm_slot_must_exit(void);
extern bool bbm_discovery_is_open(bool others);
extern bool bbm_discovery_gives_way(void);

/* The slots of others. */
extern int	bbm_slots_on(int64 migration_id);
extern bool bbm_slots_pace(int64 migration_id, double *share, int *why);
extern int	bbm_slots_pids(pid_t *pids, int most);
extern void bbm_state_changed(void);
extern void bbm_batch_ended(void);
extern void bbm_await_batches(bool begin);
extern int	bbm_database_ask_to_exit(Oid database, bool terminate);

#endif							/* BBM_BASE_SLOTS_H */
