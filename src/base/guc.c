/*-------------------------------------------------------------------------
 *
 * guc.c
 *		Every setting of bbm and its bounds.
 *
 * Settings that workers read are SIGHUP: one value for the server, so that a
 * session cannot give itself more.  What a migration may set differently is in
 * the column "settings" of its row, as "name=value", or in a column of its
 * own.
 *
 *-------------------------------------------------------------------------
 */
#include "base/guc.h"

#include <ctype.h>
#include <limits.h>

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/hours.h"
#include "base/setting.h"

bool		bbm_enabled = true;
int			bbm_max_workers = 4;
int			bbm_naptime = 600;
int			bbm_lock_timeout = 1000;
int			bbm_job_retention = 1000;
int			bbm_event_retention = 90 * 24 * 60;
int			bbm_stalled_after = 60 * 60;
int			bbm_stale_pause_after = 7 * 24 * 60 * 60;
int			bbm_progress_interval = 5;

static int	max_blocking_time;
static int	max_batch_time;
static int	retry_delay;
static int	retry_max_delay;
static int	missing_job_timeout;
static int	log_min_duration;
static int	max_replication_lag;
static int	max_replication_delay;
static bool wait_for_standbys;
static char *standby_names;
static int	max_slot_wal;
static int	max_unarchived_wal;
static bool wait_for_autovacuum;
static int	max_horizon_age;
static int	max_dead_tuples;
static double max_dead_tuple_ratio;
static bool vacuum;
static int	max_wal_rate;
static int	max_row_rate;
static int	max_active_sessions;
static double min_pace;
static double max_pace;
static double max_impact;
static char *active_hours;

static bool check_names(const char *value, const char **why);
static bool check_hours(const char *value, const char **why);
static bool check_condition(const char *value, const char **why);

const BbmSettingDef bbm_settings[BBM_SETTINGS] = {
	[BBM_LOCK_TIMEOUT] = {"bbm.lock_timeout", KIND_INT, &bbm_lock_timeout, 1000, 1, INT_MAX, GUC_UNIT_MS,
		"Sets the longest time a worker waits for a lock.",
	"A batch that waits longer is requeued and does not count as failed.",
	.limit = LIMIT_MOST},
	[BBM_MAX_BLOCKING_TIME] = {"bbm.max_blocking_time", KIND_INT, &max_blocking_time, 1000, 0, INT_MAX, GUC_UNIT_MS,
		"Sets the longest time a batch lets other sessions wait for its locks.",
	"A batch that does longer is requeued, does not count as failed, and the next is smaller. Zero turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MAX_BATCH_TIME] = {"bbm.max_batch_time", KIND_INT, &max_batch_time, 10 * 60 * 1000, 0, INT_MAX, GUC_UNIT_MS,
		"Sets the longest time a batch may take.",
	"A batch that takes longer is requeued, does not count as failed, and the next is smaller. Zero turns it off.",
	.limit = LIMIT_MOST},
	[BBM_RETRY_DELAY] = {"bbm.retry_delay", KIND_INT, &retry_delay, 1000, 1, INT_MAX, GUC_UNIT_MS,
		"Sets the delay before the first retry of a failed job.",
	"It doubles with each attempt, with a third of jitter.",
	.limit = LIMIT_LEAST},
	[BBM_RETRY_MAX_DELAY] = {"bbm.retry_max_delay", KIND_INT, &retry_max_delay, 30 * 60 * 1000, 1, INT_MAX,
	GUC_UNIT_MS, "Sets the longest delay between two attempts of a job.",
	.limit = LIMIT_LEAST},
	[BBM_MISSING_JOB_TIMEOUT] = {"bbm.missing_job_timeout", KIND_INT, &missing_job_timeout, 60 * 60, 0, INT_MAX,
		GUC_UNIT_S, "Sets how long a migration that was started waits for its job to be there.",
	"A function, for example, that is deployed later. After that it fails; zero fails it at once."},
	[BBM_LOG_MIN_DURATION] = {"bbm.log_min_duration", KIND_INT, &log_min_duration, -1, -1, INT_MAX, GUC_UNIT_MS,
		"Sets the execution time of a job above which it is logged.",
	"Zero logs every job, -1 none.",
	.limit = LIMIT_SILENCE},
	[BBM_MAX_REPLICATION_LAG] = {"bbm.max_replication_lag", KIND_INT, &max_replication_lag, 256 * 1024, -1, INT_MAX,
		GUC_UNIT_KB, "Sets how much WAL a standby may have left to replay while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MAX_REPLICATION_DELAY] = {"bbm.max_replication_delay", KIND_INT, &max_replication_delay, -1, -1, INT_MAX,
		GUC_UNIT_MS, "Sets for how long a standby may be behind while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_WAIT_FOR_STANDBYS] = {"bbm.wait_for_standbys", KIND_BOOL, &wait_for_standbys, false, 0, 0, 0,
	"Begins a batch when the standbys have replayed the last one.",
	.limit = LIMIT_ON},
	[BBM_STANDBY_NAMES] = {"bbm.standby_names", KIND_STRING, &standby_names, 0, 0, 0, GUC_LIST_INPUT,
		"Names the standbys whose replay matters, by their application_name.",
	"Empty: all that are connected.", check_names,
	.limit = LIMIT_BOTH},
	[BBM_MAX_SLOT_WAL] = {"bbm.max_slot_wal", KIND_INT, &max_slot_wal, 10 * 1024, -1, INT_MAX, GUC_UNIT_MB,
		"Sets how much WAL a replication slot may keep while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MAX_UNARCHIVED_WAL] = {"bbm.max_unarchived_wal", KIND_INT, &max_unarchived_wal, 42, -1, INT_MAX, 0,
		"Sets how many WAL segments may wait for the archiver while batches run.",
	"-1 turns it off; it does nothing without archive_mode.",
	.limit = LIMIT_MOST},
	[BBM_WAIT_FOR_AUTOVACUUM] = {"bbm.wait_for_autovacuum", KIND_BOOL, &wait_for_autovacuum, true, 0, 0, 0,
		"Begins no batch while autovacuum is at work on the table.",
	"An autovacuum against transaction ID wraparound does not count.",
	.limit = LIMIT_ON},
	[BBM_MAX_HORIZON_AGE] = {"bbm.max_horizon_age", KIND_INT, &max_horizon_age, -1, -1, INT_MAX, GUC_UNIT_MS,
		"Sets for how long a transaction may keep dead tuples from being removed while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MAX_DEAD_TUPLES] = {"bbm.max_dead_tuples", KIND_INT, &max_dead_tuples, -1, -1, INT_MAX, 0,
		"Sets how many dead tuples the table may have while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MAX_DEAD_TUPLE_RATIO] = {"bbm.max_dead_tuple_ratio", KIND_REAL, &max_dead_tuple_ratio, -1, -1, 1, 0,
		"Sets the maximum dead tuple ratio of the table while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_VACUUM] = {"bbm.vacuum", KIND_BOOL, &vacuum, false, 0, 0, 0,
	"Lets workers vacuum the table when it has more dead tuples than it may."},
	[BBM_MAX_WAL_RATE] = {"bbm.max_wal_rate", KIND_INT, &max_wal_rate, 0, 0, INT_MAX, GUC_UNIT_KB,
		"Sets how much WAL the batches of a migration write in a second.",
	"Zero is no limit.",
	.limit = LIMIT_MOST},
	[BBM_MAX_ROW_RATE] = {"bbm.max_row_rate", KIND_INT, &max_row_rate, 0, 0, INT_MAX, 0,
		"Sets how many rows the batches of a migration change in a second.",
	"Zero is no limit.",
	.limit = LIMIT_MOST},
	[BBM_MAX_ACTIVE_SESSIONS] = {"bbm.max_active_sessions", KIND_INT, &max_active_sessions, -1, -1, INT_MAX, 0,
		"Sets how many sessions of others may be active while batches run.",
	"-1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_MIN_PACE] = {"bbm.min_pace", KIND_REAL, &min_pace, 0.1, 0.001, 1, 0,
		"Sets the share of the time that a worker works, however busy the server is.",
	"The time that it waits for a CPU does not count. 1 lets it always work.",
	.limit = LIMIT_MOST},
	[BBM_MAX_PACE] = {"bbm.max_pace", KIND_REAL, &max_pace, 1, 0.001, 1, 0,
		"Sets the share of the time that a worker works, however idle the server is.",
	"It also applies where bbm.min_pace is higher.",
	.limit = LIMIT_MOST},
	[BBM_MAX_IMPACT] = {"bbm.max_impact", KIND_REAL, &max_impact, -1, -1, 10, 0,
		"Sets by which share statements of others may take longer, on average, while batches run.",
	"It is measured if the library is preloaded. -1 turns it off.",
	.limit = LIMIT_MOST},
	[BBM_ACTIVE_HOURS] = {"bbm.active_hours", KIND_STRING, &active_hours, 0, 0, 0, GUC_LIST_INPUT,
		"Sets the hours in which batches run.",
	"A list of \"[days] HH:MM-HH:MM [time zone]\"; empty: always.", check_hours,
	.limit = LIMIT_BOTH},
	[BBM_CONDITION] = {"bbm.condition", KIND_STRING, NULL, 0, 0, 0, 0, NULL, NULL, check_condition}
};

/* ----------------------------------------------------------------
 * Checks of strings
 * ----------------------------------------------------------------
 */

static bool
check_names(const char *value, const char **why)
{
	List	   *names;

	if (SplitGUCList(pstrdup(value), ',', &names))
		return true;
	*why = "It is a list of names with commas between them.";
	return false;
}

static bool
check_hours(const char *value, const char **why)
{
	return bbm_hours_parse(value, NULL, why);
}

#define EXPRESSION_PREFIX "SELECT ("

/* A condition that is parsed. */
typedef struct ConditionText
{
	const char *condition;
	int			before;			/* so much precedes it in the SQL */
} ConditionText;

/* Is it an expression, and not a statement? */
static bool
is_expression(const char *condition)
{
	static const char *const first_words[] = {"select", "with"};
	const char *p = condition + strspn(condition, " \t\r\n");

	for (int i = 0; i < lengthof(first_words); i++)
	{
		int			n = strlen(first_words[i]);

		/* and no longer name that begins with it */
		if (pg_strncasecmp(p, first_words[i], n) == 0 && !isalnum((unsigned char) p[n]) && p[n] != '_' && p[n] != '$' &&
			!IS_HIGHBIT_SET(p[n]))
			return false;
	}
	return true;
}

/* Returns the SQL to run: an expression is put into a SELECT. */
char *
bbm_condition_query(const char *condition)
{
	/* the line end ends a comment at the end of the expression */
	return is_expression(condition) ? psprintf(EXPRESSION_PREFIX "%s\n)", condition) : pstrdup(condition);
}

/*
 * A position in the condition is not a position in the statement that sets
 * it, and a user knows what he has written, not what bbm makes of it.
 */
static void
condition_position(void *arg)
{
	const ConditionText *text = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(Max(Min(position - text->before, pg_mbstrlen(text->condition) + 1), 1));
		internalerrquery(text->condition);
	}
	errcontext("setting \"%s\"", bbm_settings[BBM_CONDITION].name);
	if (geterrcode() == ERRCODE_UNDEFINED_TABLE || geterrcode() == ERRCODE_UNDEFINED_COLUMN ||
		geterrcode() == ERRCODE_UNDEFINED_FUNCTION)
	{
		errdetail("It is evaluated before batches, and knows none of their rows.");
		errhint("Names are looked up with search_path \"%s\".", namespace_search_path);
	}
	if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
		errhint("It is evaluated as the migration's owner: GRANT that role what it reads.");
}

/*
 * Checks the syntax; whether the condition can be run is only known when it is
 * run.  A syntax error is raised.
 */
static bool
check_condition(const char *value, const char **why)
{
	char	   *query = bbm_condition_query(value);
	ConditionText text = {.condition = value, .before = is_expression(value) ? strlen(EXPRESSION_PREFIX) : 0};
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = condition_position, .arg = &text};
	List	   *statements;
	SelectStmt *select;

	*why = "It is an expression or a SELECT of one column, which is true when a batch may run.";
	if (strspn(value, " \t\r\n") == strlen(value))
		return false;
	error_context_stack = &callback;
	statements = raw_parser(query, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	if (list_length(statements) != 1)
		return false;
	select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;
	return IsA(select, SelectStmt) && select->intoClause == NULL;
}

/*
 * Raises an error unless the condition can be run with the current search_path,
 * and returns one column of type boolean.  Needs a transaction and a snapshot.
 * One whose syntax is wrong is reported when the setting is written.
 */
void
bbm_condition_check(const char *condition)
{
	char	   *sql = bbm_condition_query(condition);
	ConditionText text = {.condition = condition, .before = is_expression(condition) ? strlen(EXPRESSION_PREFIX) : 0};
	ErrorContextCallback callback = {.previous = error_context_stack, .callback = condition_position, .arg = &text};
	const char *why;
	Query	   *query;

	if (!check_condition(condition, &why))
		return;
	error_context_stack = &callback;
	query = parse_analyze_fixedparams(linitial_node(RawStmt, raw_parser(sql, RAW_PARSE_DEFAULT)), sql, NULL, 0, NULL);
	error_context_stack = callback.previous;
	if (ExecCleanTargetListLength(query->targetList) != 1 ||
		exprType((Node *) linitial_node(TargetEntry, query->targetList)->expr) != BOOLOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s must return one column of type boolean", bbm_settings[BBM_CONDITION].name),
				 errdetail("It says whether batches may run."),
				 errhint("Write it as an expression, or as a SELECT of one.")));
}

/* The same checks as GUC check hooks, which have a signature of their own. */
static bool
hook_names(char **newval, void **extra, GucSource source)
{
	const char *why = "";
	bool		ok = check_names(*newval, &why);

	if (!ok)
		GUC_check_errdetail("%s", why);
	return ok;
}

static bool
hook_hours(char **newval, void **extra, GucSource source)
{
	const char *why = "";
	bool		ok = check_hours(*newval, &why);

	if (!ok)
		GUC_check_errdetail("%s", why);
	return ok;
}

/* ----------------------------------------------------------------
 * Definition
 * ----------------------------------------------------------------
 */

static void
define_setting(const BbmSettingDef *def)
{
	if (def->variable == NULL)
		return;
	switch (def->kind)
	{
		case KIND_BOOL:
			DefineCustomBoolVariable(def->name, def->short_desc, def->long_desc, def->variable, def->boot != 0,
									 PGC_SIGHUP, def->flags, NULL, NULL, NULL);
			break;
		case KIND_INT:
			DefineCustomIntVariable(def->name, def->short_desc, def->long_desc, def->variable, (int) def->boot,
									(int) def->min, (int) def->max, PGC_SIGHUP, def->flags, NULL, NULL, NULL);
			break;
		case KIND_REAL:
			DefineCustomRealVariable(def->name, def->short_desc, def->long_desc, def->variable, def->boot,
									 def->min, def->max, PGC_SIGHUP, def->flags, NULL, NULL, NULL);
			break;
		case KIND_STRING:
			DefineCustomStringVariable(def->name, def->short_desc, def->long_desc, def->variable, "",
									   PGC_SIGHUP, def->flags, def->check == check_hours ? hook_hours : hook_names,
									   NULL, NULL);
			break;
	}
}

void
bbm_guc_define(void)
{
	DefineCustomBoolVariable("bbm.enabled",
							 "Lets workers run migrations.",
							 "When off, workers exit after the batch in flight and none is started.",
							 &bbm_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	/* It determines the size of shared memory, so it is defined only while that is being set up. */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("bbm.max_workers",
								"Sets the maximum number of workers of all migrations.",
								"They are taken from max_worker_processes.",
								&bbm_max_workers, 4, 1, BBM_MOST_WORKERS,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("bbm.naptime",
							"Sets the time between polls for migrations that no event announced.",
							"Zero turns polling off, except at server start and after a promotion.",
							&bbm_naptime, 600, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.job_retention",
							"Sets how many finished jobs a migration keeps as rows of their own.",
							"Older neighbours are merged into one row; -1 keeps all.",
							&bbm_job_retention, 1000, -1, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.event_retention",
							"Sets how long rows of bbm_events are kept.",
							"-1 keeps all.",
							&bbm_event_retention, 90 * 24 * 60, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.stalled_after",
							"Sets the time without progress after which a started migration is reported.",
							"It is checked every bbm.naptime. Zero turns it off.",
							&bbm_stalled_after, 60 * 60, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("bbm.stale_pause_after",
							"Sets the time after which a paused migration is reported.",
							"It is checked every bbm.naptime. Zero turns it off.",
							&bbm_stale_pause_after, 7 * 24 * 60 * 60, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	/* about what the session sees, so it is the session's */
	DefineCustomIntVariable("bbm.progress_interval",
							"Sets the time between two progress reports of CALL bbm_run.",
							"Zero turns them off.",
							&bbm_progress_interval, 5, 0, INT_MAX / 1000,
							PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	for (int i = 0; i < BBM_SETTINGS; i++)
		define_setting(&bbm_settings[i]);

	MarkGUCPrefixReserved("bbm");
}

/*
 * Reads the configuration files anew if somebody has the server reload them;
 * returns whether that was so.  Called between transactions of ours: a setting
 * does not change while a batch runs.
 */
bool
bbm_guc_reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

void
bbm_guc_set(const char *name, const char *value, bool local)
{
	/* PGC_SUSET: a worker also limits its owner's session with SUSET settings */
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 local ? GUC_ACTION_SAVE : GUC_ACTION_SET,
							 true, 0, false);
}
