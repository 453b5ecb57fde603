/*-------------------------------------------------------------------------
 *
 * title.c
 *		What a process that runs jobs shows of itself: in pg_stat_activity,
 *		and a worker in its process title, too.
 *
 * NOTES
 *	  The percentage is that of bbm_status() when the sums over the jobs were
 *	  last brought up to date, some seconds ago at most.
 *
 *-------------------------------------------------------------------------
 */
#include "engine/title.h"

#include "utils/ps_status.h"

#include "base/printable.h"
#include "base/txn.h"
#include "catalog/whole.h"
#include "target/target.h"

#define BBM_TITLE_LENGTH 256

/* The sums were brought up to date.  Called in a transaction. */
void
bbm_title_update(BbmTarget *target, const BbmTotals *totals)
{
	const BbmMigration *migration = target->migration;
	BbmWhole	whole;
	char	   *title;

	bbm_whole_of(migration, totals, migration->total, &whole);
	title = psprintf("bbm: %s %.1f %%%s", bbm_printable(migration->name),
					 Max(Min(bbm_whole_percent(&whole), 99.9), 0), migration->phase.verifies ? ", verification" : "");
	target->title_length = strlen(title);
	if (target->activity)
		pfree(target->activity);
	/* the job is the rest: tools show the beginning of a statement */
	target->activity = MemoryContextStrdup(target->context, psprintf("%s: %s", title, migration->job));
}

/* This process begins a job of the migration. */
void
bbm_title_show(const BbmTarget *target)
{
	static char shown[BBM_TITLE_LENGTH];
	char		title[BBM_TITLE_LENGTH];

	if (target->activity == NULL)
	{
		pgstat_report_activity(STATE_RUNNING, target->migration->job);
		return;
	}
	pgstat_report_activity(STATE_RUNNING, target->activity);
	/* the title of a session is the client's */
	if (!bbm_txn_in_worker())
		return;
	strlcpy(title, target->activity, Min(target->title_length + 1, sizeof(title)));
	if (strcmp(title, shown) == 0)
		return;
	strlcpy(shown, title, sizeof(shown));
	set_ps_display(shown);
}
