/*-------------------------------------------------------------------------
 *
 * shares.h
 *		How worker slots are shared among owners, and who gets the next one.
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
