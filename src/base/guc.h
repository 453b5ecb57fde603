/*-------------------------------------------------------------------------
 *
 * guc.h
 *		The settings of bbm.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_GUC_H
#define BBM_BASE_GUC_H

#include "base/bbm.h"

#include "utils/array.h"

/* bbm.max_workers is at most this. */
#define BBM_MOST_WORKERS 256

extern bool bbm_enabled;
extern int	bbm_max_workers;
extern int	bbm_naptime;		/* s, 0 never */
extern int	bbm_lock_timeout;	/* ms; a migration may have its own */
extern PGDLLEXPORT int bbm_job_retention;	/* jobs, -1 keeps all */
extern int	bbm_event_retention;	/* min, -1 keeps all */
extern int	bbm_stalled_after;	/* s, 0 off */
extern int	bbm_stale_pause_after;	/* s, 0 off */
extern int	bbm_progress_interval;	/* s, 0 never; of this session */

/*
 * What a migration may override.  Read the values with the functions below.
 * They fall back on the server's value, and apply the server's limits unless
 * the migration's owner is a superuser.
 */
typedef enum BbmSetting
{
	BBM_LOCK_TIMEOUT,
	BBM_MAX_BLOCKING_TIME,		/* ms, 0 off */
	BBM_MAX_BATCH_TIME,			/* ms, 0 off */
	BBM_RETRY_DELAY,
	BBM_RETRY_MAX_DELAY,
	BBM_MISSING_JOB_TIMEOUT,	/* s, 0 none */
	BBM_LOG_MIN_DURATION,
	BBM_MAX_REPLICATION_LAG,	/* kB, -1 off */
	BBM_MAX_REPLICATION_DELAY,	/* ms, -1 off */
	BBM_WAIT_FOR_STANDBYS,
	BBM_STANDBY_NAMES,			/* '': all that are connected */
	BBM_MAX_SLOT_WAL,			/* MB, -1 off */
	BBM_MAX_UNARCHIVED_WAL,		/* segments, -1 off */
	BBM_WAIT_FOR_AUTOVACUUM,
	BBM_MAX_HORIZON_AGE,		/* ms, -1 off */
	BBM_MAX_DEAD_TUPLES,		/* -1 off */
	BBM_MAX_DEAD_TUPLE_RATIO,	/* of the table's rows, -1 off */
	BBM_VACUUM,
	BBM_MAX_WAL_RATE,			/* kB/s, 0 off */
	BBM_MAX_ROW_RATE,			/* rows/s, 0 off */
	BBM_MAX_ACTIVE_SESSIONS,	/* -1 off */
	BBM_MIN_PACE,				/* shares of the time, 0 to 1 */
	BBM_MAX_PACE,
	BBM_MAX_IMPACT,				/* by which share statements may take longer, -1 off */
	BBM_ACTIVE_HOURS,			/* '': always */
	BBM_CONDITION,				/* migrations only; NULL: none */
	BBM_SETTINGS				/* the number of settings */
} BbmSetting;

extern bool bbm_setting_is_on(const BbmMigration *migration, BbmSetting setting);
extern bool bbm_setting_bool(const BbmMigration *migration, BbmSetting setting);
extern int	bbm_setting_int(const BbmMigration *migration, BbmSetting setting);
extern double bbm_setting_real(const BbmMigration *migration, BbmSetting setting);
extern const char *bbm_setting_string(const BbmMigration *migration, BbmSetting setting);
extern const char *bbm_setting_server_string(const BbmMigration *migration, BbmSetting setting);
extern const char *bbm_setting_name(BbmSetting setting);

extern char *bbm_condition_query(const char *condition);
extern void bbm_condition_check(const char *condition);

extern void bbm_overrides_check(const ArrayType *entries);
extern void bbm_overrides_notice(const ArrayType *entries, const char *migration);
extern void bbm_overrides_check_limits(const ArrayType *entries, Oid owner);
extern const BbmOverrides *bbm_overrides_read(const ArrayType *entries);
extern const BbmOverrides *bbm_overrides_copy(const BbmOverrides *overrides);

extern void bbm_guc_define(void);
extern bool bbm_guc_reload(void);

/*
 * Sets a setting for this session, or until the GUC nest level ends.  Works in
 * any GUC context; with "local" a nest level must be open.
 */
extern void bbm_guc_set(const char *name, const char *value, bool local);

#endif							/* BBM_BASE_GUC_H */
