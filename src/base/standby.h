/*-------------------------------------------------------------------------
 *
 * standby.h
 *		What our functions say on a standby.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_STANDBY_H
#define BBM_BASE_STANDBY_H

#include "base/bbm.h"

extern void bbm_not_on_standby(const char *what);
extern void bbm_must_be_writable(const char *what);
extern void bbm_notice_standby(void);

#endif							/* BBM_BASE_STANDBY_H */
