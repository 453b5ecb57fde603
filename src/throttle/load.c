/*-------------------------------------------------------------------------
 *
 * load.c
 *		How much is going on, and how much may: hours, rates, sessions, and
 *		what the user asks for.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bbm.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/cancel.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/hours.h"
#include "base/locks.h"
#include "base/point.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/spi.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/user.h"
#include "base/wait_state.h"
#include "throttle/signal.h"
#include "throttle/throttle.h"

/* How long a count of sessions stays valid. */
#define BBM_SESSIONS_MS 200

/* How long a condition may take. */
#define BBM_CONDITION_TIMEOUT_MS 1000

/* Throttles outside of these hours; they are parsed when they differ from those of the last check. */
static void
read_hours(BbmReading *reading, const char *text, BbmKnownHours *known)
{
	const char *why = "";
	TimestampTz opens;

	if (known->text == NULL || strcmp(known->text, text) != 0)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(reading->state));

		known->text = pstrdup(text);
		/* the text was checked when it was set; time zones can disappear */
		if (!bbm_hours_parse(text, &known->hours, &why))
		{
			known->hours = NIL;
			known->text = NULL;
		}
		MemoryContextSwitchTo(old);
	}
	bbm_reading_describes(reading, "open", known->text);
	if (known->text == NULL)
		bbm_reading_throttles(reading, "cannot be read: %s", why);
	else if (!bbm_hours_open(known->hours, reading->now, &opens))
	{
		reading->due = opens;
		bbm_reading_describes(reading, "closed", known->text);
		bbm_reading_throttles(reading, "not before %s (%s)", timestamptz_to_str(opens), text);
	}
}

/* bbm.active_hours of the migration, and those of the server where the migration must keep to them. */
void
bbm_read_hours(BbmReading *reading)
{
	const char *own = bbm_setting_string(reading->migration, BBM_ACTIVE_HOURS);
	const char *servers = bbm_setting_server_string(reading->migration, BBM_ACTIVE_HOURS);

	if (own[0] != '\0')
		read_hours(reading, own, &reading->state->hours);
	if (servers && servers[0] != '\0' && !reading->throttles)
		read_hours(reading, servers, &reading->state->server_hours);
}

/* The hours of the text; none where they cannot be read. */
static List *
hours_of(const char *text)
{
	List	   *windows = NIL;
	const char *why;

	return text && bbm_hours_parse(text, &windows, &why) ? windows : NIL;
}

/* How many seconds it takes from then on until the migration may have worked for so many; negative: it never may. */
double
bbm_throttle_hours_last(const BbmMigration *migration, TimestampTz from, double seconds)
{
	return bbm_hours_last(hours_of(bbm_setting_string(migration, BBM_ACTIVE_HOURS)),
						  hours_of(bbm_setting_server_string(migration, BBM_ACTIVE_HOURS)), from, seconds);
}

/* ----------------------------------------------------------------
 * Rates
 * ----------------------------------------------------------------
 */

/*
 * What has been used since the last batch began, and was owed then, as a rate:
 * it exceeds the limit for as long as that is not paid.
 */
static double
rate_of(const BbmBucket *bucket, TimestampTz now)
{
	return bucket->debt / (Max(now - bucket->at, 1000) / (double) USECS_PER_SEC);
}

static void
read_rate(BbmReading *reading, bool wal, int rate, const char *unit)
{
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, reading->migration->id, reading->now);
	BbmBucket	bucket = wal ? entry->wal : entry->rows;
	TimestampTz due;

	bbm_wait_states_unlock();
	/* the clock went back: it is not known how much of what was used then is still owed */
	if (bucket.at > reading->now)
		return;
	bbm_reading_measures(reading, unit, rate_of(&bucket, reading->now), rate);
	due = bbm_bucket_due(&bucket, rate);
	if (due <= reading->now)
		return;
	reading->due = due;
	bbm_reading_throttles(reading, "limit %d %s", rate, unit);
}

/* bbm.max_wal_rate */
void
bbm_read_wal_rate(BbmReading *reading)
{
	read_rate(reading, true, bbm_setting_int(reading->migration, BBM_MAX_WAL_RATE), "kB a second");
}

/* bbm.max_row_rate */
void
bbm_read_row_rate(BbmReading *reading)
{
	read_rate(reading, false, bbm_setting_int(reading->migration, BBM_MAX_ROW_RATE), "rows a second");
}

/* ----------------------------------------------------------------
 * Sessions
 * ----------------------------------------------------------------
 */

static bool
is_one_of(pid_t pid, const VirtualTransactionId *transactions, int n)
{
	for (int i = 0; i < n; i++)
	{
		PGPROC	   *process = bbm_vxid_process(transactions[i]);

		if (process && process->pid == pid)
			return true;
	}
	return false;
}

/*
 * Counts clients that execute a statement just now, except this one, and those
 * that run a migration or wait for one: otherwise they would be what it waits
 * for.
 */
static int
count_active(void)
{
	int			nours;
	VirtualTransactionId *ours = bbm_ours(&nours);
	int			active = 0;
	int			n;

	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n; i++)
	{
		PgBackendStatus *status = bbm_backend_status(i);

		if (status && status->st_backendType == B_BACKEND && status->st_procpid != MyProcPid &&
			(status->st_state == STATE_RUNNING || status->st_state == STATE_FASTPATH) &&
			!is_one_of(status->st_procpid, ours, nours))
			active++;
	}
	pgstat_clear_backend_activity_snapshot();
	pfree(ours);
	return active;
}

/* bbm.max_active_sessions */
void
bbm_read_sessions(BbmReading *reading)
{
	static int	active = 0;
	static TimestampTz until = 0;
	int			limit = bbm_setting_int(reading->migration, BBM_MAX_ACTIVE_SESSIONS);

	if (!pgstat_track_activities)
	{
		bbm_reading_throttles(reading, "cannot be read: track_activities is off");
		return;
	}
	if (bbm_time_has_come(reading->now, until, BBM_SESSIONS_MS))
	{
		active = count_active();
		until = TimestampTzPlusMilliseconds(reading->now, BBM_SESSIONS_MS);
	}
	bbm_reading_measures(reading, "sessions", active, limit);
	if (active > limit)
		bbm_reading_throttles(reading, "%d sessions are active (limit %d)", active, limit);
}

/* ----------------------------------------------------------------
 * The user's condition
 * ----------------------------------------------------------------
 */

static TimeoutId condition_timeout = MAX_TIMEOUTS;	/* not registered */
static volatile sig_atomic_t condition_timed_out = false;

/* Called in a signal handler. */
static void
condition_takes_long(void)
{
	condition_timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/*
 * The condition has ended, successfully or not; removes what remains of its
 * timer: a pending cancel would hit what follows, that is, the rollback of the
 * condition, a claim, or a statement of the session.  A cancel by somebody
 * else at the same moment is lost with it.
 */
static void
no_more_timeout(void)
{
	disable_timeout(condition_timeout, false);
	BBM_POINT_BETWEEN("condition_ended");
	if (condition_timed_out)
		QueryCancelPending = false;
}

typedef struct ConditionArgs
{
	const BbmMigration *migration;
	bool		met;
} ConditionArgs;

/*
 * Evaluates the condition as the migration's owner with the settings of its
 * job, read-only, and with a short time limit: its snapshot must not be what
 * keeps dead tuples.
 */
static void
run_condition(void *arg)
{
	ConditionArgs *args = arg;
	int			level = bbm_job_settings(args->migration);
	volatile int result = 0;
	bool		isnull;
	Datum		value;

	XactReadOnly = true;
	enable_timeout_after(condition_timeout, BBM_CONDITION_TIMEOUT_MS);
	PG_TRY();
	{
		result = bbm_spi_execute(bbm_condition_query(bbm_setting_string(args->migration, BBM_CONDITION)), false, 2);
	}
	PG_FINALLY();
	{
		no_more_timeout();
	}
	PG_END_TRY();
	/* it has caught the cancel, or ended before the cancel could reach it */
	if (condition_timed_out)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("it takes more than %d ms", BBM_CONDITION_TIMEOUT_MS),
				 errdetail("It is evaluated before batches."),
				 errhint("Let it read what something else keeps up to date.")));
	if (result != SPI_OK_SELECT || SPI_tuptable->tupdesc->natts != 1 ||
		SPI_gettypeid(SPI_tuptable->tupdesc, 1) != BOOLOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("it must return one column of type boolean"),
				 errdetail("It says whether batches may run."),
				 errhint("Write it as an expression, or as a SELECT of one.")));
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("it returned more than one row"),
				 errdetail("It says whether batches may run."),
				 errhint("Use an aggregate such as bool_and.")));
	if (SPI_processed == 1)
	{
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		args->met = !isnull && DatumGetBool(value);
	}
	SPI_freetuptable(SPI_tuptable);
	bbm_user_settings_end(level);
}

/* bbm.condition; in a transaction of its own, so not in that of a batch. */
void
bbm_read_condition(BbmReading *reading)
{
	ConditionArgs args = {reading->migration, false};
	ErrorData  *error;

	if (!bbm_time_has_come(reading->now, reading->state->condition_until, BBM_CONDITION_MS))
		return;
	if (condition_timeout == MAX_TIMEOUTS)
		condition_timeout = RegisterTimeout(USER_TIMEOUT, condition_takes_long);
	condition_timed_out = false;
	error = bbm_txn_run(run_condition, &args, false);
	if (error && condition_timed_out)
		bbm_reading_throttles(reading, "cannot be read: it takes more than %d ms", BBM_CONDITION_TIMEOUT_MS);
	else if (error || bbm_cancel_seen())
	{
		/* a cancel that the condition has caught was meant for the session, too, whatever the condition returns */
		if (bbm_cancel_seen())
			error = reading->cancelled = bbm_cancelled_by_user();
		else if (bbm_error_is_cancel(error))
			reading->cancelled = error;
		bbm_reading_throttles(reading, "cannot be read: %s", bbm_error_to_string(error));
	}
	else if (!args.met)
		bbm_reading_throttles(reading, "not met");
	else
		reading->state->condition_until = TimestampTzPlusMilliseconds(reading->now, BBM_CONDITION_MS);
}
