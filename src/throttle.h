/*-------------------------------------------------------------------------
 *
 * throttle.h
 *		From what happened to a delay: pure functions, without clock or state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_THROTTLE_H
#define BBM_THROTTLE_H

#include "bbm.h"

extern int	bbm_size_of_part(int full, int job, int process);
extern int	bbm_size_after_give_back(int size, int min);
extern int	bbm_size_after_success(int size, int full);
extern int64 bbm_backoff_ms(int attempt, int64 first_ms, int64 max_ms, double random);

#endif							/* BBM_THROTTLE_H */
