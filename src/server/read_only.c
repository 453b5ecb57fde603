/*-------------------------------------------------------------------------
 *
 * read_only.c
 *		Statements on a standby that would change our tables.
 *
 * NOTES
 *	  A runbook pauses and starts migrations with an UPDATE.  On a standby the
 *	  server refuses it as any other, without saying where its user is.
 *
 *-------------------------------------------------------------------------
 */
#include "server/read_only.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "parser/parsetree.h"

#include "base/compat.h"
#include "base/next_hook.h"
#include "base/standby.h"
#include "catalog/extension.h"

static ExecutorStart_hook_type previous_start = NULL;

static const char *
command_word(CmdType command)
{
	switch (command)
	{
		case CMD_INSERT:
			return "INSERT";
		case CMD_UPDATE:
			return "UPDATE";
		case CMD_DELETE:
			return "DELETE";
		default:
			return "a change of bbm's tables";
	}
}

/* Raises an error for a change of one of our tables on a standby. */
static void
check(const QueryDesc *query)
{
	Bitmapset  *written = bbm_result_relations(query->plannedstmt);
	const BbmCatalog *catalog = written ? bbm_catalog_find() : NULL;
	int			rti = -1;

	while ((rti = bms_next_member(written, rti)) >= 0)
	{
		Oid			relid = rt_fetch(rti, query->plannedstmt->rtable)->relid;

		for (int i = 0; catalog && i < BBM_TABLES; i++)
		{
			if (relid == catalog->tables[i])
				bbm_not_on_standby(command_word(query->operation));
		}
	}
}

static void
start(QueryDesc *query, int eflags)
{
	if (RecoveryInProgress() && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		check(query);
	bbm_next_start(previous_start, query, eflags);
}

/* Called once per process, from _PG_init. */
void
bbm_read_only_install(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = start;
}
