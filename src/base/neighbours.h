/*-------------------------------------------------------------------------
 *
 * neighbours.h
 *		The workers of bbm in other servers on this machine.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_NEIGHBOURS_H
#define BBM_BASE_NEIGHBOURS_H

#include "base/bbm.h"

extern void bbm_neighbours_announce(void);
extern PGDLLEXPORT int bbm_neighbours_find(pid_t *pids, int most);
extern TimestampTz bbm_neighbours_changed_at(void);

#endif							/* BBM_BASE_NEIGHBOURS_H */
