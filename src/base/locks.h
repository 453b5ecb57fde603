/*-------------------------------------------------------------------------
 *
 * locks.h
 *		Heavyweight locks of ours that SQL cannot reach.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_LOCKS_H
#define BBM_BASE_LOCKS_H

#include "base/bbm.h"

#include "storage/lock.h"

extern PGDLLEXPORT void bbm_lock_migration(Oid lock_class, int64 migration_id);
extern bool bbm_lock_migration_at_once(Oid lock_class, int64 migration_id);
extern void bbm_unlock_migration(Oid lock_class, int64 migration_id);
extern void bbm_lock_nodes(Oid lock_class, int64 migration_id);
extern bool bbm_lock_nodes_at_once(Oid lock_class, int64 migration_id);
extern bool bbm_lock_for_claim_at_once(Oid lock_class, int64 migration_id, Oid table);
extern void bbm_lock_table(Oid lock_class, Oid table);
extern int	bbm_permit_acquire(Oid lock_class, int64 migration_id, int limit);
extern bool bbm_permit_keep(Oid lock_class, int64 migration_id, int slot);
extern PGDLLEXPORT void bbm_permit_release(Oid lock_class, int64 migration_id, int slot);
extern bool bbm_permits_held(Oid lock_class, int64 migration_id, int limit);
extern void bbm_set_waiting_for_table(Oid lock_class, int64 migration_id, bool begin);
extern bool bbm_launched_permit_acquire(Oid lock_class, int limit);
extern int	bbm_launched_permits(Oid lock_class, int limit);
extern bool bbm_is_waiting_for_table(Oid lock_class, int64 migration_id);
extern bool bbm_has_waiters(Oid lock_class, int64 migration_id);
extern PGDLLEXPORT int32 bbm_worker_id_acquire(Oid lock_class);
extern void bbm_worker_id_keep(Oid lock_class, int32 worker_id);
extern PGDLLEXPORT void bbm_worker_id_release(Oid lock_class, int32 worker_id);
extern bool bbm_worker_id_is_mine(Oid lock_class, int32 worker_id);
extern bool bbm_worker_is_alive(Oid lock_class, int32 worker_id);
extern void bbm_ours_begin(void);
extern void bbm_ours_end(void);
extern VirtualTransactionId *bbm_ours(int *n);
extern bool bbm_lock_is_worker_id(const LOCKTAG *tag);
extern bool bbm_lock_is_of_migration(const LOCKTAG *tag);
extern bool bbm_lock_is_for_claims(const LOCKTAG *tag, Oid *table);
extern void bbm_lock_database_for_us(Oid database);
extern void bbm_unlock_database_for_us(Oid database);
extern bool bbm_database_is_locked(Oid database);
extern bool bbm_table_is_written(Oid table);

#endif							/* BBM_BASE_LOCKS_H */
