/*-------------------------------------------------------------------------
 *
 * guc.h
 *		The settings of bbm.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_GUC_H
#define BBM_GUC_H

#include "bbm.h"

extern bool bbm_enabled;
extern int	bbm_max_workers;
extern int	bbm_naptime;		/* s, 0 never */
extern int	bbm_lock_timeout;	/* ms */
extern int	bbm_max_blocking_time;	/* ms, 0 off */
extern int	bbm_max_batch_time; /* ms, 0 off */
extern int	bbm_retry_delay;	/* ms */
extern int	bbm_retry_max_delay;	/* ms */
extern int	bbm_job_retention;	/* jobs, -1 keeps all */
extern int	bbm_event_retention;	/* min, -1 keeps all */
extern int	bbm_log_min_duration;	/* ms, -1 never */

extern void bbm_guc_define(void);

/*
 * Sets a setting for this session, or until the GUC nest level ends.  Any
 * context; with "local" a nest level must be open.
 */
extern void bbm_guc_set(const char *name, const char *value, bool local);

#endif							/* BBM_GUC_H */
