/*-------------------------------------------------------------------------
 *
 * stalled.h
 *		Reports migrations without progress.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_STALLED_H
#define BBM_SERVER_STALLED_H

#include "base/bbm.h"

extern void bbm_report_stalled(void);

#endif							/* BBM_SERVER_STALLED_H */
