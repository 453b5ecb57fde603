/*-------------------------------------------------------------------------
 *
 * clock.h
 *		The clock that batches are measured with; tests can replace it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_CLOCK_H
#define BBM_BASE_CLOCK_H

#include "base/bbm.h"

extern double bbm_clock_ms(void);
extern PGDLLEXPORT void bbm_clock_advance(double ms);

#endif							/* BBM_BASE_CLOCK_H */
