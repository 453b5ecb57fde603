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
#include "executor/executor.h"
#include "miscadmin.h"
#include "parser/parsetree.h"

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
	const BbmCatalog *catalog = bbm_catalog_find();
	ListCell   *cell;

	foreach(cell, query->plannedstmt->resultRelations)
	{
		Oid			relid = rt_fetch(lfirst_int(cell), query->plannedstmt->rtable)->relid;

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
	if (query->plannedstmt->resultRelations != NIL && RecoveryInProgress() && !(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		check(query);
	if (previous_start)
		previous_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* Called once per process, from _PG_init. */
void
bbm_read_only_install(void)
{
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = start;
}
