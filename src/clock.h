/*-------------------------------------------------------------------------
 *
 * clock.h
 *		The clock that batches are measured with; tests can replace it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CLOCK_H
#define BBM_CLOCK_H

#include "bbm.h"

extern double bbm_clock_ms(void);
extern void bbm_clock_advance(double ms);

#endif							/* BBM_CLOCK_H */
