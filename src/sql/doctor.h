/*-------------------------------------------------------------------------
 *
 * doctor.h
 *		What would keep migrations from running on this server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SQL_DOCTOR_H
#define BBM_SQL_DOCTOR_H

extern void bbm_warn_if_nothing_runs(void);

#endif							/* BBM_SQL_DOCTOR_H */
