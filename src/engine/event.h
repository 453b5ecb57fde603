/*-------------------------------------------------------------------------
 *
 * event.h
 *		Every change of state: its event row, its notification and, of a user's, its log line.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_ENGINE_EVENT_H
#define BBM_ENGINE_EVENT_H

#include "base/bbm.h"

extern const char *bbm_status_word(int status);
extern void bbm_report_event(int64 id, const char *name, const char *event, BbmStatus status, Oid owner,
							 const char *detail);
extern void bbm_report_act(int64 id, const char *name, const char *event, BbmStatus status, Oid owner,
						   const char *detail);

#endif							/* BBM_ENGINE_EVENT_H */
