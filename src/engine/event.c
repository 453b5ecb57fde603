/*-------------------------------------------------------------------------
 *
 * event.c
 *		Every change of state: its event row, its notification and, of a user's, its log line.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/event.h"

#include "miscadmin.h"
#include "utils/json.h"

#include "base/commit.h"
#include "base/printable.h"
#include "base/user.h"
#include "catalog/events.h"

const char *
bbm_status_word(int status)
{
	static const char *const string[] = {"paused", "active", "finished", "failed", "running"};

	return status >= 0 && status < lengthof(string) ? string[status] : "unknown";
}

static void
report(int64 id, const char *name, const char *event, BbmStatus status, Oid owner, const char *detail, bool logs)
{
	char	   *role = GetUserNameFromId(bbm_acting_user(), true);
	StringInfoData json;

	bbm_event_add(id, name, event, status, owner, detail);
	initStringInfo(&json);
	appendStringInfo(&json, "{\"id\": " INT64_FORMAT ", \"name\": ", id);
	/* a name that the guards accept fits into a payload, however it is escaped */
	escape_json(&json, bbm_shortened(name, BBM_MAX_NAME_LENGTH));
	appendStringInfoString(&json, ", \"event\": ");
	escape_json(&json, event);
	appendStringInfoString(&json, ", \"status\": ");
	escape_json(&json, bbm_status_word(status));
	appendStringInfoString(&json, ", \"role\": ");
	escape_json(&json, role ? role : "");
	appendStringInfoChar(&json, '}');
	bbm_notify_at_commit(json.data,
						 logs ? psprintf("migration \"%s\": %s by role \"%s\"", bbm_printable(name), event,
										 role ? bbm_printable(role) : "") : NULL);
}

/*
 * Writes an event's row and sends its notification.  The caller is in the
 * transaction of what has happened, with SPI connected; it logs what it does.
 */
void
bbm_report_event(int64 id, const char *name, const char *event, BbmStatus status, Oid owner, const char *detail)
{
	report(id, name, event, status, owner, detail, false);
}

/* The same of what a user has done, which the server log gets as well once it is committed. */
void
bbm_report_act(int64 id, const char *name, const char *event, BbmStatus status, Oid owner, const char *detail)
{
	report(id, name, event, status, owner, detail, true);
}
