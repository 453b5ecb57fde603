/*-------------------------------------------------------------------------
 *
 * events.h
 *		The events: every change of state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_CATALOG_EVENTS_H
#define BBM_CATALOG_EVENTS_H

#include "base/bbm.h"

extern void bbm_event_add(int64 migration_id, const char *name, const char *event, BbmStatus status,
						  Oid owner, const char *detail);
extern bool bbm_event_exists(int64 migration_id, const char *event);
extern void bbm_events_prune(void);

#endif							/* BBM_CATALOG_EVENTS_H */
