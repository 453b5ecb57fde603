/*-------------------------------------------------------------------------
 *
 * hours.h
 *		Hours of the day in a time zone: bbm.active_hours.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_BASE_HOURS_H
#define BBM_BASE_HOURS_H

#include "base/bbm.h"

#include "nodes/pg_list.h"
#include "pgtime.h"

/* One window; it may reach into the next day. */
typedef struct BbmHours
{
	int			days;			/* bit n: it may begin on weekday n, Sunday is 0 */
	int			from;			/* minutes after midnight */
	int			to;				/* exclusive; <= from: on the next day */
	pg_tz	   *zone;			/* NULL: log_timezone */
} BbmHours;

extern PGDLLEXPORT bool bbm_hours_parse(const char *text, List **windows, const char **why);
extern double bbm_hours_last(const List *own, const List *servers, TimestampTz now, double seconds);
extern PGDLLEXPORT bool bbm_hours_open(const List *windows, TimestampTz now, TimestampTz *opens);

#endif							/* BBM_BASE_HOURS_H */
