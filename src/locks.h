/*-------------------------------------------------------------------------
 *
 * locks.h
 *		Heavyweight locks of ours that SQL cannot reach.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_LOCKS_H
#define BBM_LOCKS_H

#include "bbm.h"

#include "storage/lock.h"

extern void bbm_lock_migration(Oid space, int64 migration_id);
extern void bbm_unlock_migration(Oid space, int64 migration_id);
extern bool bbm_lock_for_claim_at_once(Oid space, int64 migration_id, Oid table);
extern void bbm_lock_table(Oid space, Oid table);
extern int	bbm_slot_lock_take(Oid space, int64 migration_id, int limit);
extern bool bbm_slot_lock_keep(Oid space, int64 migration_id, int slot);
extern void bbm_slot_lock_drop(Oid space, int64 migration_id, int slot);
extern bool bbm_slot_locks_held(Oid space, int64 migration_id, int limit);
extern void bbm_contend(Oid space, int64 migration_id, bool begin);
extern bool bbm_launched_place_take(Oid space, int limit);
extern int	bbm_launched_places(Oid space, int limit);
extern bool bbm_contends(Oid space, int64 migration_id);
extern bool bbm_is_contended(Oid space, int64 migration_id);
extern int32 bbm_token_take(Oid space);
extern void bbm_token_keep(Oid space, int32 token);
extern void bbm_token_drop(Oid space, int32 token);
extern bool bbm_token_alive(Oid space, int32 token);
extern void bbm_ours_begin(void);
extern void bbm_ours_end(void);
extern VirtualTransactionId *bbm_ours(int *n);
extern bool bbm_lock_is_token(const LOCKTAG *tag);
extern bool bbm_lock_is_of_migration(const LOCKTAG *tag);
extern bool bbm_lock_is_for_claims(const LOCKTAG *tag, Oid *table);
extern void bbm_lock_database_for_us(Oid database);
extern void bbm_unlock_database_for_us(Oid database);
extern bool bbm_database_is_locked(Oid database);

#endif							/* BBM_LOCKS_H */
