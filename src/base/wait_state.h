/*-------------------------------------------------------------------------
 *
 * wait_state.h
 *		The wait states of migrations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_WAIT_STATE_H
#define BBM_BASE_WAIT_STATE_H

#include "base/bbm.h"

#include "access/xlogdefs.h"

#include "base/shared.h"

/*
 * Returns the entry of a migration of this database, and creates it when there
 * is none.  Call it between bbm_wait_states_lock and bbm_wait_states_unlock,
 * which should be held only briefly.
 */
extern BbmWaitStates *bbm_wait_states_lock(void);
extern void bbm_wait_states_unlock(void);
extern BbmWaitState *bbm_wait_state_find(BbmWaitStates *entries, int64 migration_id, TimestampTz now);

extern int64 bbm_table_wait_since(int64 migration_id, TimestampTz now);
extern void bbm_table_wait_end(int64 migration_id, TimestampTz now);
extern void bbm_table_wait_keep(int64 migration_id, TimestampTz until);
extern bool bbm_table_wait_is_kept(int64 migration_id, TimestampTz now);
extern void bbm_wait_state_forget(int64 migration_id);
extern bool bbm_recount_begin(int64 migration_id, TimestampTz now, bool soon);
extern void bbm_recount_end(int64 migration_id, TimestampTz begin);
extern void bbm_idle_until(int64 migration_id, TimestampTz until);
extern void bbm_wait_state_reason(int64 migration_id, TimestampTz now, BbmReason *longest, bool *idle);
extern void bbm_wait_state_count(BbmWaitState *entry, int signal, TimestampTz now);
extern double bbm_wait_state_uncounted(const BbmWaitState *entry, TimestampTz now);
extern void bbm_outlasts(BbmReason *longest, const BbmReason *reason);
extern BbmReason bbm_reason(const char *text, TimestampTz due);
extern void bbm_clip(char *to, const char *from, size_t size);

/* Time that a migration, or a process for it, has not been at work. */
typedef struct BbmIdleTime
{
	double		left_out_ms;	/* throttled */
	double		paced_ms;		/* pacing, or keeping to a rate */
	char		reason[BBM_WAITING_LENGTH];	/* of the last pause for pacing; or empty */
} BbmIdleTime;

extern void bbm_idle_count(BbmWaitState *entry, TimestampTz now);
extern void bbm_idle_paced(int64 migration_id, TimestampTz since, TimestampTz now, const char *reason);
extern void bbm_idle_time(int64 migration_id, TimestampTz now, bool take, BbmIdleTime *idle);

#endif							/* BBM_BASE_WAIT_STATE_H */
