/*-------------------------------------------------------------------------
 *
 * hold.c
 *		Holds a process between two statements until the test lets it go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(bbm_test_hold_after);

static ExecutorEnd_hook_type next_hook;
static char *held_text;
static int64 held_lock;

/* Polls, as a wait for the lock would end with lock_timeout. */
static void
hold_after(QueryDesc *query)
{
	Datum		lock = Int64GetDatum(held_lock);

	if (query->sourceText && strstr(query->sourceText, held_text) &&
		!DatumGetBool(DirectFunctionCall1(pg_try_advisory_xact_lock_shared_int8, lock)))
	{
		elog(LOG, "held after \"%s\"", held_text);
		do
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(10 * 1000);
		} while (!DatumGetBool(DirectFunctionCall1(pg_try_advisory_xact_lock_shared_int8, lock)));
	}
	if (next_hook)
		next_hook(query);
	else
		standard_ExecutorEnd(query);
}

/*
 * (part text, lock bigint): when a statement whose text contains that has ended,
 * this session waits until nobody has the advisory lock.  (Before a statement would be
 * too late: it has its snapshot already when a hook is called.)
 */
Datum
bbm_test_hold_after(PG_FUNCTION_ARGS)
{
	bool		hooked = held_text != NULL;

	held_lock = PG_GETARG_INT64(1);
	held_text = MemoryContextStrdup(TopMemoryContext, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!hooked)
	{
		next_hook = ExecutorEnd_hook;
		ExecutorEnd_hook = hold_after;
	}
	PG_RETURN_VOID();
}
