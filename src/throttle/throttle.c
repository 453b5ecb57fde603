/*-------------------------------------------------------------------------
 *
 * throttle.c
 *		Does the server have room for another batch?
 *
 * NOTES
 *	  Before each batch every signal for which a migration has a limit is read.
 *	  Most are read from shared memory, without a transaction, snapshot or
 *	  lock.  A signal that throttles, or that cannot be read, makes the
 *	  migration wait: that is no failure and no attempt.  The process holds
 *	  nothing meanwhile.
 *
 *	  The relations of a target and the user's condition need a transaction.
 *	  Each opens a short one of its own, and its result stays valid for a
 *	  while.
 *
 *	  Between a check and the batch anything may happen on the server: the next
 *	  check sees it.
 *
 *-------------------------------------------------------------------------
 */
#include "throttle/throttle.h"

#include "base/cancel.h"
#include "base/guc.h"
#include "base/impact_counts.h"
#include "base/point.h"
#include "base/printable.h"
#include "base/rates.h"
#include "base/shared.h"
#include "base/trouble.h"
#include "base/txn.h"
#include "base/wait_state.h"
#include "catalog/job_record.h"
#include "catalog/jobs.h"
#include "target/target.h"
#include "throttle/pacing.h"
#include "throttle/signal.h"

/* The relations of a table may change: partitions come and go. */
#define BBM_RELATIONS_MS (60 * 1000)
#define BBM_FIRST_POLL_MS 200

/* A throttle that comes and goes is logged at most this often. */
#define BBM_LOG_WAIT_MS (60 * 1000)

/* What is owed to a rate is derived from the jobs that ended last, of which at most so many ran at once. */
#define BBM_JOBS_RECALLED 20

typedef struct Signal
{
	const char *word;			/* waiting_on begins with it */
	BbmSetting	limit;			/* the signal is read when this setting is on */
	BbmReader	read;
	bool		by_relation;	/* needs the relations of the target */
	bool		in_transaction; /* may need one of its own */
	bool		after_each;		/* depends on the batch before, when that has committed */
	bool		paces;			/* a limit of its own rate, which its pace shows */
	bool		of_writing;		/* what only reads cannot make it worse */
	bool		of_dead;		/* a vacuum may help */
} Signal;

static const Signal signals[] = {
	{"active hours", BBM_ACTIVE_HOURS, bbm_read_hours},
	{"WAL rate", BBM_MAX_WAL_RATE, bbm_read_wal_rate, .after_each = true, .paces = true, .of_writing = true},
	{"row rate", BBM_MAX_ROW_RATE, bbm_read_row_rate, .after_each = true, .paces = true, .of_writing = true},
	{"standby replay lag", BBM_MAX_REPLICATION_LAG, bbm_read_replication_lag, .of_writing = true},
	{"standby replay delay", BBM_MAX_REPLICATION_DELAY, bbm_read_replication_delay, .of_writing = true},
	{"replay of the last batch", BBM_WAIT_FOR_STANDBYS, bbm_read_last_replay, .after_each = true, .of_writing = true},
	{"WAL kept by a slot", BBM_MAX_SLOT_WAL, bbm_read_slots, .of_writing = true},
	{"unarchived WAL", BBM_MAX_UNARCHIVED_WAL, bbm_read_unarchived, .of_writing = true},
	/* a check that holds a snapshot does not keep a vacuum from removing what it had begun to remove before */
	{"autovacuum", BBM_WAIT_FOR_AUTOVACUUM, bbm_read_autovacuum, .by_relation = true, .of_writing = true},
	{"old snapshot", BBM_MAX_HORIZON_AGE, bbm_read_horizon},
	{"dead tuples", BBM_MAX_DEAD_TUPLES, bbm_read_dead_tuples, .by_relation = true, .of_writing = true, .of_dead = true},
	{"dead tuples", BBM_MAX_DEAD_TUPLE_RATIO, bbm_read_dead_ratio, .by_relation = true, .of_writing = true, .of_dead = true},
	{"active sessions", BBM_MAX_ACTIVE_SESSIONS, bbm_read_sessions},
	{"condition", BBM_CONDITION, bbm_read_condition, .in_transaction = true}
};

/* The numbers, for metrics, of what is no signal: how much of the rates is used up cannot be read; the pace. */
#define BBM_SIGNAL_RATES lengthof(signals)
#define BBM_SIGNAL_PACE (lengthof(signals) + 1)
#define BBM_SIGNALS (lengthof(signals) + 2)

static BbmThrottle *
state_of(BbmTarget *target)
{
	if (target->throttle == NULL)
		target->throttle = MemoryContextAllocZero(target->context, sizeof(BbmThrottle));
	return target->throttle;
}

/* Uses a snapshot of the catalogs; the next read sees a partition that is attached or detached later. */
static void
find_relations(void *arg)
{
	BbmTarget  *target = arg;

	bbm_find_relations(target->throttle, target->context, target->relid);
}

static void
refresh_relations(BbmTarget *target, TimestampTz now)
{
	BbmThrottle *state = target->throttle;

	if (!bbm_time_has_come(now, state->relations_until, BBM_RELATIONS_MS))
		return;
	state->relations_error = bbm_txn_run(find_relations, target, false);
	/* otherwise read again at once: the error does not live longer than this check */
	state->relations_until = state->relations_error ? 0 : TimestampTzPlusMilliseconds(now, BBM_RELATIONS_MS);
}

/*
 * Does the migration obey the signal?  It does if it has a limit for it; but
 * while it verifies, which writes nothing but the record, it does not wait for
 * signals that depend on writing: dead tuples that nobody vacuums would keep
 * it forever.
 */
static bool
obeys(const BbmMigration *migration, const Signal *signal)
{
	return bbm_setting_is_on(migration, signal->limit) &&
		!(signal->of_writing && migration->phase.verifies);
}

/* Reads one signal, and puts its word before what the reader reports. */
static void
read_signal(const Signal *signal, BbmReading *reading)
{
	char		text_of_signal[BBM_WAITING_LENGTH];
	char		text[2 * BBM_WAITING_LENGTH];

	reading->throttles = false;
	reading->due = 0;
	reading->first_poll_ms = BBM_FIRST_POLL_MS;
	memset(&reading->measure, 0, sizeof(BbmMeasure));
	if (signal->by_relation && reading->state->relations_error)
		bbm_reading_throttles(reading, "cannot be read: %s", bbm_error_to_string(reading->state->relations_error));
	else
		signal->read(reading);
	if (!reading->throttles)
		return;
	strlcpy(text_of_signal, reading->reason, sizeof(text_of_signal));
	snprintf(text, sizeof(text), "%s: %s", signal->word, text_of_signal);
	bbm_clip(reading->reason, text, sizeof(reading->reason));
}

/*
 * This process pauses, for a moment.  The migration does not wait for it: what
 * is known about the migration's wait stays as it is, and nothing is left
 * behind when the process exits.
 */
static void
begin_pause(const BbmMigration *migration, TimestampTz now, TimestampTz due, BbmWait *wait)
{
	static TimestampTz counted = 0; /* a pause that is polled early is counted once */

	if (due > counted)
	{
		BbmWaitStates *entries = bbm_wait_states_lock();
		BbmWaitState *entry = bbm_wait_state_find(entries, migration->id, now);

		entry->waited[BBM_SIGNAL_PACE] += (due - Max(now, counted)) / 1000000.0;
		counted = due;
		bbm_wait_states_unlock();
	}
	memset(wait, 0, sizeof(BbmWait));
	wait->of_process = true;
	wait->reason = bbm_reason(bbm_pacing_reason(), due);
	wait->since = now;
}

/*
 * Records that the migration waits, for what and until when.  If it keeps to a
 * rate of its own, the wait is part of its pace.
 */
static void
begin_wait(BbmReading *reading, BbmWait *wait)
{
	/* the check itself may have taken a while */
	TimestampTz now = GetCurrentTimestamp();
	bool		report;
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, reading->migration->id, now);
	int64		throttled_ms;
	int64		poll_ms;

	bbm_wait_state_count(entry, reading->signal, now);
	wait->begins = entry->since == 0;
	if (entry->since == 0 || entry->since > now)
		entry->since = reading->now;
	throttled_ms = (now - entry->since) / 1000;
	bbm_idle_count(entry, now);
	if (reading->paces)
		strlcpy(entry->pace_reason, reading->reason, sizeof(entry->pace_reason));
	/* for how long it has been so in all is not known where entries are reused all the time */
	poll_ms = bbm_next_poll_ms(entry->crowded ? PG_INT32_MAX : throttled_ms, reading->first_poll_ms);
	entry->reason = bbm_reason(reading->reason,
							   reading->due ? reading->due : TimestampTzPlusMilliseconds(now, poll_ms));
	entry->reason.paces = reading->paces;
	report = throttled_ms >= BBM_REPORT_WAIT_MS && (entry->logged < entry->since || entry->logged > now) &&
		bbm_time_has_come(now, TimestampTzPlusMilliseconds(entry->logged, BBM_LOG_WAIT_MS), BBM_LOG_WAIT_MS);
	if (report)
		entry->logged = now;
	wait->reason = entry->reason;
	wait->since = entry->since;
	bbm_wait_states_unlock();

	wait->cancelled = reading->cancelled;
	if (report)
		ereport(LOG,
				(errmsg("migration \"%s\" waits: %s", bbm_printable(reading->migration->name), bbm_printable(wait->reason.text))));
}

static void
end_wait(const BbmMigration *migration, TimestampTz now)
{
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, migration->id, now);
	TimestampTz since = entry->since;
	bool		text_of_signal = since != 0 && entry->logged >= since;

	bbm_idle_count(entry, now);
	bbm_wait_state_count(entry, entry->signal, now);
	entry->since = 0;
	bbm_wait_states_unlock();
	if (text_of_signal)
		ereport(LOG,
				(errmsg("migration \"%s\" goes on after waiting for %.1f s",
						bbm_printable(migration->name), (now - since) / 1000000.0)));
}

/*
 * This process pauses for pacing, for this reason, or (NULL) it does not, or
 * not any more: then the pause is counted.
 */
static void
count_pause(const BbmMigration *migration, TimestampTz now, const char *reason)
{
	static int64 pauses_for = 0;	/* 0: it does not pause */
	static TimestampTz since = 0;
	static char why[BBM_WAITING_LENGTH];

	if (pauses_for != 0 && (reason == NULL || pauses_for != migration->id))
	{
		bbm_idle_paced(pauses_for, since, now, why);
		pauses_for = 0;
	}
	if (reason == NULL)
		return;
	if (pauses_for == 0)
		since = now;
	pauses_for = migration->id;
	strlcpy(why, reason, sizeof(why));
}

static void
spend(BbmBucket *bucket, TimestampTz since, TimestampTz now, int rate, double amount)
{
	if (rate > 0)
		bbm_bucket_spend(bucket, since, now, rate, amount);
	else
		memset(bucket, 0, sizeof(BbmBucket));
}

static bool
has_rate(const BbmMigration *migration)
{
	return bbm_setting_is_on(migration, BBM_MAX_WAL_RATE) || bbm_setting_is_on(migration, BBM_MAX_ROW_RATE);
}

/* Since when the migration has been throttled; *recalled: is it known what it owes to its rates? */
static TimestampTz
throttled_since(const BbmMigration *migration, TimestampTz now, bool *recalled)
{
	BbmWaitStates *entries = bbm_wait_states_lock();
	BbmWaitState *entry = bbm_wait_state_find(entries, migration->id, now);
	TimestampTz since = entry->since;

	/* a rate that is set later counts from then on */
	entry->recalled = entry->recalled || !has_rate(migration);
	*recalled = entry->recalled;
	bbm_wait_states_unlock();
	return since;
}

/*
 * The entry that has a migration's rates may be new: the number of entries is
 * limited, and a restart of the server forgets them all.  The rows of the
 * newest jobs show what they have used.  A job began when everything was paid,
 * except for the jobs that ran beside it: so the last of them suffice, and a
 * rate that is set as the server starts is not owed what was done without it.
 *
 * A batch of another process that commits after our snapshot, and that was
 * added to the entry before we have its lock, is not counted, this once.
 */
static void
recall_rates(void *arg)
{
	const BbmMigration *migration = arg;
	BbmSpent	spent[BBM_JOBS_RECALLED];
	int			n = bbm_jobs_spent(migration->id, spent, BBM_JOBS_RECALLED);
	int			wal_rate = bbm_setting_int(migration, BBM_MAX_WAL_RATE);
	int			row_rate = bbm_setting_int(migration, BBM_MAX_ROW_RATE);
	TimestampTz busy_until = DT_NOBEGIN;
	BbmWaitStates *entries;
	BbmWaitState *entry;

	BBM_POINT("rates_read");
	entries = bbm_wait_states_lock();
	entry = bbm_wait_state_find(entries, migration->id, GetCurrentTimestamp());
	for (int i = 0; i < n && !entry->recalled; i++)
	{
		if (spent[i].since >= busy_until)
		{
			memset(&entry->wal, 0, sizeof(BbmBucket));
			memset(&entry->rows, 0, sizeof(BbmBucket));
		}
		busy_until = Max(busy_until, spent[i].until);
		spend(&entry->wal, spent[i].since, spent[i].until, wal_rate, spent[i].wal / 1024.0);
		spend(&entry->rows, spent[i].since, spent[i].until, row_rate, spent[i].rows);
	}
	entry->recalled = true;
	bbm_wait_states_unlock();
}

/* What cannot be read, throttles; so does a cancel, which the driver rethrows. */
static void
recall_or_wait(BbmReading *reading)
{
	ErrorData  *error = bbm_txn_run(recall_rates, (void *) reading->migration, false);

	if (error == NULL)
		return;
	if (bbm_error_is_cancel(error))
		reading->cancelled = error;
	reading->first_poll_ms = BBM_FIRST_POLL_MS;
	bbm_reading_throttles(reading, "rates: cannot be read: %s", bbm_error_to_string(error));
}

/* Can the signal be read in the transaction of a batch, for another batch in the same one? */
static bool
is_readable_at_once(const Signal *signal, const BbmReading *reading)
{
	return !signal->after_each &&
		!(signal->by_relation && bbm_time_has_come(reading->now, reading->state->relations_until, BBM_RELATIONS_MS)) &&
		!(signal->in_transaction && bbm_time_has_come(reading->now, reading->state->condition_until, BBM_CONDITION_MS));
}

/*
 * Reads the signals that the migration obeys, up to the first that throttles.
 * "at_once": for another batch in the transaction of this one; a signal that
 * cannot be read there throttles.
 */
static void
read_signals(BbmTarget *target, BbmReading *reading, bool at_once, bool may_help)
{
	for (int i = 0; i < lengthof(signals) && !reading->throttles; i++)
	{
		const Signal *signal = &signals[i];

		if (!obeys(reading->migration, signal))
			continue;
		if (at_once && !is_readable_at_once(signal, reading))
		{
			reading->throttles = true;
			return;
		}
		if (signal->by_relation)
			refresh_relations(target, reading->now);
		reading->signal = i;
		read_signal(signal, reading);
		reading->paces = signal->paces;
		if (reading->throttles && may_help && signal->of_dead && bbm_vacuum_instead(reading))
			read_signal(signal, reading);
	}
}

/*
 * Must the migration wait before its next batch?  Then *wait says for what.
 * With "may_help" a worker may do something about it, which takes its time.
 * Called between transactions; raises no error.
 */
bool
bbm_is_throttled(BbmTarget *target, bool may_help, BbmWait *wait)
{
	const BbmMigration *migration = target->migration;
	BbmReading		reading = {.migration = migration, .state = state_of(target), .now = GetCurrentTimestamp()};
	bool		recalled;
	TimestampTz due;

	/* a pause counts from the end of the batch, and includes what else there is to wait for */
	if (bbm_pacing_pauses(reading.now, &due))
	{
		count_pause(migration, reading.now, bbm_pacing_reason());
		begin_pause(migration, reading.now, due, wait);
		return true;
	}
	count_pause(migration, reading.now, NULL);
	reading.throttled_since = throttled_since(migration, reading.now, &recalled);
	wait->of_process = false;
	StaticAssertStmt(BBM_SIGNALS <= BBM_MAX_SIGNALS, "a wait state has too few counters");
	reading.signal = BBM_SIGNAL_RATES;
	if (!recalled)
		recall_or_wait(&reading);
	read_signals(target, &reading, false, may_help);
	if (reading.throttles)
	{
		begin_wait(&reading, wait);
		/* a migration that waits for its own rate works as fast as it is to */
		if (reading.paces)
			bbm_impact_works_until(wait->reason.due);
		return true;
	}
	if (reading.throttled_since != 0)
		end_wait(migration, reading.now);
	/* the checks may have taken a while */
	bbm_pacing_begin(migration, GetCurrentTimestamp());
	return false;
}

/*
 * May another batch be claimed in the transaction of this one?  Not when this
 * cannot be determined in that transaction, as with a rate.
 */
bool
bbm_throttle_lets_follow(BbmTarget *target)
{
	BbmReading		reading = {.migration = target->migration, .state = target->throttle, .now = GetCurrentTimestamp()};

	if (reading.state == NULL)
		return false;
	read_signals(target, &reading, true, false);
	return !reading.throttles;
}

/* A batch has committed: the rates are charged with what it has used.  Called between transactions. */
void
bbm_throttle_spent(const BbmTarget *target, const BbmCost *cost)
{
	const BbmMigration *migration = target->migration;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz since = now - (TimestampTz) (cost->ms * 1000);
	BbmWaitStates *entries;
	BbmWaitState *entry;

	bbm_pacing_end(migration, (double) cost->rows);
	/* its number of rows is how many rows it has found */
	if (migration->phase.verifies)
		return;
	if (!has_rate(migration) && !bbm_setting_is_on(migration, BBM_WAIT_FOR_STANDBYS))
		return;
	entries = bbm_wait_states_lock();
	entry = bbm_wait_state_find(entries, migration->id, now);
	entry->commit = Max(entry->commit, XactLastCommitEnd);
	spend(&entry->wal, since, now, bbm_setting_int(migration, BBM_MAX_WAL_RATE), cost->wal / 1024.0);
	spend(&entry->rows, since, now, bbm_setting_int(migration, BBM_MAX_ROW_RATE), cost->rows);
	bbm_wait_states_unlock();
	BBM_POINT_BETWEEN("rates_charged");
}

/* What a reader has measured, in words, and as a share of the limit. */
static void
show_measure(const BbmMeasure *measure, BbmThrottleRow *row)
{
	row->value = measure->words;
	row->limit = measure->limit_words;
	if (measure->unit == NULL)
		return;
	row->value = bbm_quantity_to_string(measure->unit, measure->value);
	row->limit = bbm_quantity_to_string(measure->unit, measure->limit);
	row->has_share = measure->limit > 0;
	row->share = row->has_share ? measure->value / measure->limit : 0;
}

/*
 * Reads every signal that the migration obeys, for display.  Called in a
 * transaction; the condition is left to the workers, and so are the signals
 * about a table that is not known yet, or does not exist any more.
 */
void
bbm_throttle_show(const BbmMigration *migration, Oid relid, BbmThrottleSink sink, void *arg)
{
	BbmTarget	target = {.context = CurrentMemoryContext, .relid = relid};
	BbmReading	reading = {.migration = migration, .state = state_of(&target), .now = GetCurrentTimestamp(),
	.afresh = true};
	bool		recalled;

	bbm_find_relations(reading.state, target.context, relid);
	(void) throttled_since(migration, reading.now, &recalled);
	if (!recalled)
		recall_rates((void *) migration);
	for (int i = 0; i < lengthof(signals); i++)
	{
		const Signal *signal = &signals[i];
		BbmThrottleRow row = {.signal = signal->word, .setting = bbm_setting_name(signal->limit)};
		instr_time	start;
		instr_time	end;

		if (!obeys(migration, signal))
			continue;
		row.checked = !signal->in_transaction && !(signal->by_relation && reading.state->nrelations == 0);
		if (row.checked)
		{
			INSTR_TIME_SET_CURRENT(start);
			read_signal(signal, &reading);
			INSTR_TIME_SET_CURRENT(end);
			INSTR_TIME_SUBTRACT(end, start);
			row.microseconds = INSTR_TIME_GET_DOUBLE(end) * 1e6;
			row.reason = reading.throttles ? reading.reason : NULL;
			show_measure(&reading.measure, &row);
		}
		sink(arg, &row);
	}
}

/*
 * Passes on for how long each migration of this database was throttled since
 * the server started, by signal.  Two settings may limit the same signal.
 */
void
bbm_throttle_waited(BbmWaitedSink sink, void *arg)
{
	/* first: nothing that allocates memory may run under the lock */
	BbmWaitState *states = palloc(sizeof(BbmWaitState) * BBM_MAX_WAIT_STATES);
	BbmWaitStates *shared = bbm_wait_states_lock();
	TimestampTz now = GetCurrentTimestamp();
	int			n = shared->n;

	memcpy(states, shared->entries, sizeof(BbmWaitState) * n);
	bbm_wait_states_unlock();
	for (int i = 0; i < n; i++)
	{
		const BbmWaitState *state = &states[i];
		double		uncounted = bbm_wait_state_uncounted(state, now);

		if (state->database != MyDatabaseId)
			continue;
		for (int j = 0; j < BBM_SIGNALS; j++)
		{
			const char *word = j == BBM_SIGNAL_PACE ? "pace" : j == BBM_SIGNAL_RATES ? "rates" : signals[j].word;
			bool		is_current = state->since != 0 && j == state->signal;
			double		seconds = state->waited[j] + (is_current ? uncounted : 0);

			if (seconds > 0)
				sink(arg, state->migration_id, word, seconds, is_current && uncounted > 0);
		}
	}
	pfree(states);
}
