/*-------------------------------------------------------------------------
 *
 * ended.h
 *		What DROP EXTENSION ends on other servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_ENDED_H
#define BBM_SERVER_ENDED_H

extern void bbm_report_ended(void);

#endif							/* BBM_SERVER_ENDED_H */
