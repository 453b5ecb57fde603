/*-------------------------------------------------------------------------
 *
 * spi.c
 *		Running statements through SPI: nothing else calls those of its functions
 *		that parse, plan or execute.
 *
 * NOTES
 *	  SPI's functions leave the procedure's memory context current, whatever
 *	  the caller's was: what is allocated next, and should be kept, is lost
 *	  after SPI_finish.  The functions here restore the caller's context.
 *
 *	  They also provide what hooks of other extensions (planner, executor,
 *	  utility) expect to find during a client's statement: debug_query_string,
 *	  which nobody else sets in a background worker.  There is no active portal
 *	  in a worker, but neither is there in the server's own (parallel,
 *	  autovacuum and logical replication workers).
 *
 *-------------------------------------------------------------------------
 */
#include "base/spi.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"

/* The state around a statement, to be restored after it. */
typedef struct Surroundings
{
	MemoryContext context;
	const char *query;
	ErrorContextCallback *outer;
} Surroundings;

/* What error_context_stack was before SPI added the statement that runs. */
static ErrorContextCallback *outer_context;

static Surroundings
enter(const char *sql)
{
	Surroundings around = {CurrentMemoryContext, debug_query_string, outer_context};

	outer_context = error_context_stack;

	/* our statement runs within a client's */
	if (debug_query_string == NULL)
		debug_query_string = sql;
	return around;
}

/* Called also after an error: the text may not outlive the statement. */
static void
leave(const Surroundings *around)
{
	debug_query_string = around->query;
	outer_context = around->outer;
	MemoryContextSwitchTo(around->context);
}

/*
 * Called by a trigger that one of our statements has fired: errors from here
 * on are those of what called us, and do not show our statement.  Returns what
 * the trigger has to restore in error_context_stack before it returns; an
 * error restores it as well.
 */
ErrorContextCallback *
bbm_spi_hide_statement(void)
{
	ErrorContextCallback *stack = error_context_stack;

	error_context_stack = outer_context;
	return stack;
}

/*
 * Called for an error that has been caught: throws it on, without what SPI says
 * of this statement, which is none of the user's.  What is said of functions
 * and triggers that the statement calls stays.  The error is copied to that
 * memory context meanwhile.
 */
void
bbm_spi_rethrow_without(const char *sql, MemoryContext context)
{
	ErrorData  *error;
	char	   *said;
	char	   *at;

	MemoryContextSwitchTo(context);
	said = psprintf("SQL statement \"%s\"", sql);
	error = CopyErrorData();
	at = error->context ? strstr(error->context, said) : NULL;
	FlushErrorState();
	if (at)
	{
		char	   *rest = at + strlen(said);

		/* it is a line, or several, of its own */
		if (at > error->context)
			at--;
		else if (*rest == '\n')
			rest++;
		memmove(at, rest, strlen(rest) + 1);
		if (error->context[0] == '\0')
			error->context = NULL;
	}
	ReThrowError(error);
}

static const char *
plan_text(SPIPlanPtr plan)
{
	return ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->query_string;
}

/* Makes the call within the surroundings of this statement. */
#define SURROUNDED(sql, call) \
	do \
	{ \
		Surroundings around = enter(sql); \
\
		PG_TRY(); \
		{ \
			call; \
		} \
		PG_FINALLY(); \
		{ \
			leave(&around); \
		} \
		PG_END_TRY(); \
	} while (0)

/* What SPI reports as a negative result is an error. */
static int
checked(int result, const char *sql)
{
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql, SPI_result_code_string(result));
	return result;
}

/* SPI_prepare_cursor */
SPIPlanPtr
bbm_spi_prepare(const char *sql, int nargs, Oid *types, int cursor_options)
{
	SPIPlanPtr volatile plan = NULL;

	SURROUNDED(sql, plan = SPI_prepare_cursor(sql, nargs, types, cursor_options));
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	return plan;
}

/* SPI_keepplan */
void
bbm_spi_keep(SPIPlanPtr plan)
{
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep the plan of \"%s\"", plan_text(plan));
}

/* SPI_plan_get_cached_plan, which may have to plan. */
CachedPlan *
bbm_spi_cached_plan(SPIPlanPtr plan)
{
	CachedPlan *volatile cached = NULL;

	SURROUNDED(plan_text(plan), cached = SPI_plan_get_cached_plan(plan));
	return cached;
}

/* SPI_execute; 0 for "most" means no limit. */
int
bbm_spi_execute(const char *sql, bool read_only, int64 most)
{
	volatile int result = 0;

	SURROUNDED(sql, result = SPI_execute(sql, read_only, most));
	return checked(result, sql);
}

/* The same for a statement of ours, which an error does not show. */
int
bbm_spi_execute_ours(const char *sql, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	volatile int result = 0;

	PG_TRY();
	{
		result = bbm_spi_execute(sql, read_only, 0);
	}
	PG_CATCH();
	{
		bbm_spi_rethrow_without(sql, context);
	}
	PG_END_TRY();
	return result;
}

/* SPI_execute_plan */
int
bbm_spi_execute_plan(SPIPlanPtr plan, Datum *values, const char *nulls, bool read_only, int64 most)
{
	volatile int result = 0;

	SURROUNDED(plan_text(plan), result = SPI_execute_plan(plan, values, nulls, read_only, most));
	return checked(result, plan_text(plan));
}

/* SPI_execute_snapshot: reads what this snapshot sees. */
void
bbm_spi_execute_snapshot(SPIPlanPtr plan, Datum *values, Snapshot snapshot)
{
	volatile int result = 0;

	SURROUNDED(plan_text(plan),
			   result = SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot, true, false, 0));
	(void) checked(result, plan_text(plan));
}

/* Takes the number that the last statement, a count, has returned. */
int64
bbm_spi_count(void)
{
	bool		isnull;
	int64		n = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* SPI_cursor_open, without NULLs, for a query that only reads, with its own snapshot whatever the isolation level. */
Portal
bbm_spi_cursor_open(SPIPlanPtr plan, Datum *values)
{
	volatile Portal portal = NULL;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	SURROUNDED(plan_text(plan), portal = SPI_cursor_open(NULL, plan, values, NULL, true));
	PopActiveSnapshot();
	return portal;
}

/* SPI_cursor_fetch, forwards; returns the number of rows. */
uint64
bbm_spi_cursor_fetch(Portal portal, int64 n)
{
	SURROUNDED(portal->sourceText, SPI_cursor_fetch(portal, true, n));
	return SPI_processed;
}

/* SPI_cursor_close */
void
bbm_spi_cursor_close(Portal portal)
{
	SURROUNDED(portal->sourceText, SPI_cursor_close(portal));
}
