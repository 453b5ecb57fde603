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

#include "miscadmin.h"
#include "tcop/tcopprot.h"

/* The state around a statement, to be restored after it. */
typedef struct Surroundings
{
	MemoryContext context;
	const char *query;
	ErrorContextCallback *outer;
} Surroundings;

/* Of the statement that runs: what error_context_stack was before SPI added the statement itself. */
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

/* SPI_prepare_cursor */
SPIPlanPtr
bbm_spi_prepare(const char *sql, int nargs, Oid *types, int cursor_options)
{
	Surroundings around = enter(sql);
	SPIPlanPtr volatile plan = NULL;

	PG_TRY();
	{
		plan = SPI_prepare_cursor(sql, nargs, types, cursor_options);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return plan;
}

/* SPI_plan_get_cached_plan, which may have to plan. */
CachedPlan *
bbm_spi_cached_plan(SPIPlanPtr plan)
{
	Surroundings around = enter(plan_text(plan));
	CachedPlan *volatile cached = NULL;

	PG_TRY();
	{
		cached = SPI_plan_get_cached_plan(plan);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return cached;
}

/* SPI_execute; 0 for "most" means no limit. */
int
bbm_spi_execute(const char *sql, bool read_only, int64 most)
{
	Surroundings around = enter(sql);
	volatile int result = 0;

	PG_TRY();
	{
		result = SPI_execute(sql, read_only, most);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return result;
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
	Surroundings around = enter(plan_text(plan));
	volatile int result = 0;

	PG_TRY();
	{
		result = SPI_execute_plan(plan, values, nulls, read_only, most);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return result;
}

/* SPI_cursor_open, without NULLs, and with its own snapshot. */
/* SPI_execute_snapshot: reads what this snapshot sees. */
int
bbm_spi_execute_snapshot(SPIPlanPtr plan, Datum *values, const char *nulls, Snapshot snapshot)
{
	Surroundings around = enter(plan_text(plan));
	volatile int result = 0;

	PG_TRY();
	{
		result = SPI_execute_snapshot(plan, values, nulls, snapshot, InvalidSnapshot, true, false, 0);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return result;
}

Portal
bbm_spi_cursor_open(SPIPlanPtr plan, Datum *values)
{
	Surroundings around = enter(plan_text(plan));
	volatile Portal portal = NULL;

	PG_TRY();
	{
		portal = SPI_cursor_open(NULL, plan, values, NULL, false);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return portal;
}

/* SPI_cursor_fetch, forwards; returns the number of rows. */
uint64
bbm_spi_cursor_fetch(Portal portal, int64 n)
{
	Surroundings around = enter(portal->sourceText);

	PG_TRY();
	{
		SPI_cursor_fetch(portal, true, n);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
	return SPI_processed;
}

/* SPI_cursor_close */
void
bbm_spi_cursor_close(Portal portal)
{
	Surroundings around = enter(portal->sourceText);

	PG_TRY();
	{
		SPI_cursor_close(portal);
	}
	PG_FINALLY();
	{
		leave(&around);
	}
	PG_END_TRY();
}
