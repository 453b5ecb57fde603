/*-------------------------------------------------------------------------
 *
 * watchdog.h
 *		Tells of migrations that do not move.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_WATCHDOG_H
#define BBM_WATCHDOG_H

#include "bbm.h"

extern void bbm_watchdog(void);

#endif							/* BBM_WATCHDOG_H */
