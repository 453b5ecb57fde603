/*-------------------------------------------------------------------------
 *
 * lockset.h
 *		The table locks of a batch: each taken once, first, and as strong as it
 *		will be needed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TARGET_LOCKSET_H
#define BBM_TARGET_LOCKSET_H

#include "base/bbm.h"

#include "nodes/plannodes.h"

#include "target/target.h"

/* The lock that a batch takes on its own table, and the one for only reading it. */
#define BBM_WORK_LOCK RowExclusiveLock
#define BBM_READ_LOCK AccessShareLock

extern void bbm_lockset_install(void);
extern void bbm_lockset_add_plan(BbmTarget *target, Oid partition, SPIPlanPtr plan);
extern void bbm_lockset_take(BbmTarget *target, Oid relid);
extern void bbm_lockset_note(const PlannedStmt *stmt);
extern void bbm_lockset_end(void);
extern bool bbm_lockset_is_on(void);
extern void bbm_lockset_forget(const BbmTarget *target);

#endif							/* BBM_TARGET_LOCKSET_H */
