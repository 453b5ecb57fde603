/*-------------------------------------------------------------------------
 *
 * shares.h
 *		Who has how many of the worker slots, and who is to have the next one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_SHARES_H
#define BBM_BASE_SHARES_H

#include "base/bbm.h"

extern bool bbm_slot_is_wanted(bool works);
extern int	bbm_slots_unused(void);
extern void bbm_slots_wake_waiting(void);
extern bool bbm_request_next(Oid *database, Oid *owner, bool *needed, TimestampTz *wait);

#endif							/* BBM_BASE_SHARES_H */
