/*-------------------------------------------------------------------------
 *
 * watchdog.h
 *		Tells of migrations that do not move.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_STALLED_H
#define BBM_STALLED_H

#include "bbm.h"

extern void bbm_report_stalled(void);

#endif							/* BBM_STALLED_H */
